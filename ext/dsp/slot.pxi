# SPDX-License-Identifier: Apache-2.0
# slot.pxi -- how the compiled modules hold and check arrays; included by both.
from cpython.buffer cimport (PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release,
                             PyObject_GetBuffer)
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc


cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)


cdef class Slot:
    """One array, held: the same object costs one comparison, another one is looked up and checked."""

    cdef object owner
    cdef Py_buffer view
    cdef char *ptr
    cdef Py_ssize_t items

    def __cinit__(self):
        self.owner = None
        self.ptr = NULL
        self.items = 0

    def __dealloc__(self):
        if self.owner is not None:
            PyBuffer_Release(&self.view)

    cdef int bind(self, object array, char code, Py_ssize_t itemsize, bint writable) except -1:
        cdef Py_buffer view
        cdef int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT
        cdef const char *fmt
        if array is self.owner and array is not None:
            return 0
        if writable:
            flags |= PyBUF_WRITABLE
        PyObject_GetBuffer(array, &view, flags)
        fmt = view.format
        if fmt != NULL and (fmt[0] == b"<" or fmt[0] == b"@" or fmt[0] == b"="):
            fmt += 1
        if fmt == NULL or fmt[0] != code or fmt[1] != 0 or view.itemsize != itemsize:
            came = view.format.decode() if view.format != NULL else "bytes"
            PyBuffer_Release(&view)
            raise ValueError(f"array of '{came}' came, a C-contiguous array of '{chr(code)}' was expected")
        if self.owner is not None:
            PyBuffer_Release(&self.view)
        self.view = view
        self.owner = array
        self.ptr = <char *>view.buf
        self.items = view.len // itemsize
        return 0

    cdef inline float *f32(self, object array, Py_ssize_t need, bint writable) except NULL:
        self.bind(array, b"f", 4, writable)
        if self.items < need:
            raise ValueError(f"{self.items} float32 values came, at least {need} were expected")
        return <float *>self.ptr

    cdef inline double *f64(self, object array, Py_ssize_t need, bint writable) except NULL:
        self.bind(array, b"d", 8, writable)
        if self.items < need:
            raise ValueError(f"{self.items} float64 values came, at least {need} were expected")
        return <double *>self.ptr

    cdef inline int32_t *i32(self, object array, Py_ssize_t need, bint writable) except NULL:
        self.bind(array, b"i", 4, writable)
        if self.items < need:
            raise ValueError(f"{self.items} int32 values came, at least {need} were expected")
        return <int32_t *>self.ptr

    cdef inline int64_t *i64(self, object array, Py_ssize_t need, bint writable) except NULL:
        self.bind(array, b"l", 8, writable)
        if self.items < need:
            raise ValueError(f"{self.items} int64 values came, at least {need} were expected")
        return <int64_t *>self.ptr

    cdef inline uint8_t *u8(self, object array, Py_ssize_t need, bint writable) except NULL:
        self.bind(array, b"B", 1, writable)
        if self.items < need:
            raise ValueError(f"{self.items} uint8 values came, at least {need} were expected")
        return <uint8_t *>self.ptr


cdef int check_stride(Py_ssize_t stride) except -1:
    if not (16 <= stride <= 256 and stride % 16 == 0):
        raise ValueError(f"a stride of {stride} came, a multiple of 16 from 16 to 256 was expected")
    return 0
