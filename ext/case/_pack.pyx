# cython: boundscheck=False, wraparound=False
# _pack.pyx -- face of pack.c: counts <-> BDF data records.  Shapes are checked here; layouts are in pack.h.
#   pack(counts, row, rows, inputs, record, samples_per_record, at) -> values outside 24 bits
#   fill(last_row, rows, inputs, record, samples_per_record, at)
#   unpack(record, samples_per_record, at, rows, inputs, counts, row)
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t


cdef extern from "pack.h" nogil:
    size_t ionmd_pack24(const int32_t *counts, size_t stride, size_t rows, size_t inputs, uint8_t *record,
                        size_t samples_per_record, size_t at)
    void ionmd_fill24(const int32_t *row, size_t rows, size_t inputs, uint8_t *record, size_t samples_per_record,
                      size_t at)
    void ionmd_unpack24(const uint8_t *record, size_t samples_per_record, size_t at, size_t rows, size_t inputs,
                        int32_t *counts, size_t stride)


cdef int check(Py_ssize_t rows, Py_ssize_t inputs, Py_ssize_t record_bytes, Py_ssize_t spr, Py_ssize_t at) except -1:
    if rows < 0 or at < 0 or spr < 1 or inputs < 0 or at + rows > spr or inputs * spr * 3 > record_bytes:
        raise ValueError(f"record of {record_bytes} bytes, {spr} samples: {rows} rows of {inputs} inputs at {at} do not fit")
    return 0


def pack(const int32_t[:, ::1] counts, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t inputs, uint8_t[::1] record,
         Py_ssize_t spr, Py_ssize_t at):
    cdef size_t outside
    check(rows, inputs, record.shape[0], spr, at)
    if row < 0 or row + rows > counts.shape[0] or inputs > counts.shape[1]:
        raise ValueError(f"counts {counts.shape[0]}x{counts.shape[1]}: rows {row}..{row + rows} of {inputs} inputs")
    if rows == 0 or inputs == 0:
        return 0
    with nogil:
        outside = ionmd_pack24(&counts[row, 0], <size_t>counts.shape[1], <size_t>rows, <size_t>inputs, &record[0],
                               <size_t>spr, <size_t>at)
    return outside


def fill(const int32_t[::1] last_row, Py_ssize_t rows, Py_ssize_t inputs, uint8_t[::1] record, Py_ssize_t spr,
         Py_ssize_t at):
    check(rows, inputs, record.shape[0], spr, at)
    if inputs > last_row.shape[0]:
        raise ValueError(f"last row has {last_row.shape[0]} values, {inputs} inputs were asked for")
    if rows and inputs:
        with nogil:
            ionmd_fill24(&last_row[0], <size_t>rows, <size_t>inputs, &record[0], <size_t>spr, <size_t>at)


def unpack(const uint8_t[::1] record, Py_ssize_t spr, Py_ssize_t at, Py_ssize_t rows, Py_ssize_t inputs,
           int32_t[:, ::1] counts, Py_ssize_t row=0):
    check(rows, inputs, record.shape[0], spr, at)
    if row < 0 or row + rows > counts.shape[0] or inputs > counts.shape[1]:
        raise ValueError(f"counts {counts.shape[0]}x{counts.shape[1]}: rows {row}..{row + rows} of {inputs} inputs")
    if rows and inputs:
        with nogil:
            ionmd_unpack24(&record[0], <size_t>spr, <size_t>at, <size_t>rows, <size_t>inputs, &counts[row, 0],
                           <size_t>counts.shape[1])
