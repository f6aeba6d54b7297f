# SPDX-License-Identifier: Apache-2.0
# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, embedsignature=True
"""Compiled kernels, bound: each class looks its buffers up once and checks dtype, layout and size there.

In and out: C-contiguous arrays, float32 data, float64 coefficients, state and sums; sizes are in rows.
Always: no allocation after construction; ValueError before any byte is touched when a buffer does not fit.
The GIL is kept: a block takes microseconds, and giving the GIL away costs up to a switch interval (5 ms) to get it
back when another thread is busy (docs/dsp.md).  The faces are ionmd/dsp/*.py, the twins ionmd/dsp/reference.py.
"""
from cpython.buffer cimport (PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release,
                             PyObject_GetBuffer)
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memset


cdef extern from "kernels.h" nogil:
    int IIR_MAX_SECTIONS
    int iir_f32(const float *x, float *y, size_t rows, size_t stride, const double *coef, int sections, double *state)
    int iir_f64_signal(const double *x, double *y, size_t n, ptrdiff_t step, const double *coef, int sections,
                       double *state)
    void derive(const float *x, float *y, size_t rows, size_t stride_in, size_t stride_out, const int32_t *plus,
                const int32_t *minus)
    void sweep_extremes(const float *x, size_t rows, size_t stride, float *lo, float *hi)
    void sweep_add(const float *x, size_t rows, size_t stride, const uint8_t *accept, int64_t *count, double *sum,
                   double *squares)
    void c_autocovariance "autocovariance"(const double *x, size_t n, size_t lags, double *out)
    void emg_features(const float *x, size_t rows, size_t stride, const float *threshold, int32_t quiet, size_t phase,
                      float *partial, float *previous, int32_t *gap, double *squares, double *length, float *peak,
                      int32_t *over, int32_t *bursts)


cdef extern from "lanes.h" nogil:
    uint64_t dsp_flush_on()
    void dsp_flush_restore(uint64_t old)


MAX_SECTIONS = IIR_MAX_SECTIONS
MAX_STRIDE = 256


def flush_on():
    """Subnormals to zero in this thread; returns what `flush_restore` takes."""
    return dsp_flush_on()


def flush_restore(uint64_t old):
    dsp_flush_restore(old)


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


cdef class Iir:
    """iir.c over arrays that stay: coef float64[sections, 5], state float64[sections, 2, stride]."""

    cdef Slot coef_, state_, x_, y_
    cdef Py_ssize_t stride
    cdef int sections
    cdef double *coef
    cdef double *state

    def __init__(self, coef, state, Py_ssize_t stride, int sections):
        check_stride(stride)
        if not (0 <= sections <= IIR_MAX_SECTIONS):
            raise ValueError(f"{sections} sections came, 0 to {IIR_MAX_SECTIONS} were expected")
        self.stride, self.sections = stride, sections
        self.coef_, self.state_, self.x_, self.y_ = Slot(), Slot(), Slot(), Slot()
        self.coef = self.coef_.f64(coef, 5 * sections, False)
        self.state = self.state_.f64(state, 2 * sections * stride, True)

    def process(self, x, y, Py_ssize_t n):
        cdef float *px
        cdef float *py
        if n < 0:
            raise ValueError(f"{n} rows came, 0 or more were expected")
        px = self.x_.f32(x, n * self.stride, False)
        py = self.y_.f32(y, n * self.stride, True)
        return iir_f32(px, py, n, self.stride, self.coef, self.sections, self.state) != 0


def sosfilt_signal(coef, x, y, bint backwards, state):
    """One float64 signal through a cascade, forwards or backwards; state float64[sections, 2] is updated."""
    cdef Slot c = Slot(), s = Slot(), a = Slot(), b = Slot()
    cdef double *pc
    cdef double *ps
    cdef double *px
    cdef double *py
    c.bind(coef, b"d", 8, False)
    cdef Py_ssize_t sections = c.items // 5, n
    if sections > IIR_MAX_SECTIONS:
        raise ValueError(f"{sections} sections came, at most {IIR_MAX_SECTIONS} were expected")
    pc = c.f64(coef, 0, False)
    ps = s.f64(state, 2 * sections, True)
    px = a.f64(x, 0, False)
    n = a.items
    py = b.f64(y, n, True)
    if n == 0:
        return True
    if backwards:
        return iir_f64_signal(px + n - 1, py + n - 1, n, -1, pc, <int>sections, ps) != 0
    return iir_f64_signal(px, py, n, 1, pc, <int>sections, ps) != 0


cdef class Derive:
    """sweep.c:derive with its index lists."""

    cdef Slot plus_, minus_, x_, y_
    cdef Py_ssize_t stride_in, stride_out
    cdef int32_t *plus
    cdef int32_t *minus

    def __init__(self, plus, minus, Py_ssize_t stride_in, Py_ssize_t stride_out):
        cdef Py_ssize_t k
        check_stride(stride_in)
        check_stride(stride_out)
        self.stride_in, self.stride_out = stride_in, stride_out
        self.plus_, self.minus_, self.x_, self.y_ = Slot(), Slot(), Slot(), Slot()
        # copies are made by the face; nobody else holds these two arrays
        self.plus = self.plus_.i32(plus, stride_out, False)
        self.minus = self.minus_.i32(minus, stride_out, False)
        for k in range(stride_out):
            if not (0 <= self.plus[k] <= stride_in and 0 <= self.minus[k] <= stride_in):
                raise ValueError(f"derivation {k}: input {self.plus[k]} or {self.minus[k]} is not below {stride_in}")

    def apply(self, x, Py_ssize_t n, y):
        cdef float *px
        cdef float *py
        if n < 0:
            raise ValueError(f"{n} rows came, 0 or more were expected")
        px = self.x_.f32(x, n * self.stride_in, False)
        py = self.y_.f32(y, n * self.stride_out, True)
        derive(px, py, n, self.stride_in, self.stride_out, self.plus, self.minus)


cdef class Sums:
    """sweep.c over its sums: count int64[2, stride], sum float64[2, rows, stride], squares float64[rows, stride]."""

    cdef Slot count_, sum_, squares_, x_, accept_, lo_, hi_
    cdef Py_ssize_t stride, rows
    cdef int64_t *count
    cdef double *sum
    cdef double *squares

    def __init__(self, count, sum, squares, Py_ssize_t rows, Py_ssize_t stride):
        check_stride(stride)
        if rows < 1:
            raise ValueError(f"{rows} rows came, 1 or more were expected")
        self.stride, self.rows = stride, rows
        self.count_, self.sum_, self.squares_ = Slot(), Slot(), Slot()
        self.x_, self.accept_, self.lo_, self.hi_ = Slot(), Slot(), Slot(), Slot()
        self.count = self.count_.i64(count, 2 * stride, True)
        self.sum = self.sum_.f64(sum, 2 * rows * stride, True)
        self.squares = NULL
        if squares is not None:
            self.squares = self.squares_.f64(squares, rows * stride, True)

    def add(self, x, accept):
        """One sweep; accept uint8[stride]."""
        cdef float *px = self.x_.f32(x, self.rows * self.stride, False)
        cdef uint8_t *pa = self.accept_.u8(accept, self.stride, False)
        sweep_add(px, self.rows, self.stride, pa, self.count, self.sum, self.squares)


def extremes(x, Py_ssize_t stride, Py_ssize_t lo_row, Py_ssize_t hi_row, lo, hi):
    """Smallest and largest of rows lo_row..hi_row of each column, into lo and hi (float32[stride])."""
    cdef Slot a = Slot(), b = Slot(), c = Slot()
    check_stride(stride)
    if not (0 <= lo_row < hi_row):
        raise ValueError(f"rows {lo_row} to {hi_row} came, a range of at least one row was expected")
    cdef float *px = a.f32(x, hi_row * stride, False)
    cdef float *pl = b.f32(lo, stride, True)
    cdef float *ph = c.f32(hi, stride, True)
    sweep_extremes(px + lo_row * stride, hi_row - lo_row, stride, pl, ph)


def autocovariance(x, Py_ssize_t n, Py_ssize_t lags, out):
    """noise.c: out[:lags] of x[:n]."""
    cdef Slot a = Slot(), b = Slot()
    if not (0 < lags <= n):
        raise ValueError(f"{lags} lags of {n} samples came, 1 to {n} were expected")
    cdef double *px = a.f64(x, n, False)
    cdef double *po = b.f64(out, lags, True)
    with nogil:
        c_autocovariance(px, n, lags, po)


cdef class Emg:
    """emg.c over its accumulators."""

    cdef Slot threshold_, partial_, previous_, gap_, squares_, length_, peak_, over_, bursts_, x_
    cdef Py_ssize_t stride
    cdef readonly Py_ssize_t n   # rows in this window
    cdef float *partial
    cdef int32_t quiet
    cdef float *threshold
    cdef float *previous
    cdef int32_t *gap
    cdef double *squares
    cdef double *length
    cdef float *peak
    cdef int32_t *over
    cdef int32_t *bursts

    def __init__(self, Py_ssize_t stride, int32_t quiet, threshold, partial, previous, gap, squares, length, peak,
                 over, bursts):
        check_stride(stride)
        self.stride, self.quiet, self.n = stride, quiet, 0
        self.threshold_, self.previous_, self.gap_, self.squares_ = Slot(), Slot(), Slot(), Slot()
        self.partial_ = Slot()
        self.partial = self.partial_.f32(partial, 2 * stride, True)
        self.length_, self.peak_, self.over_, self.bursts_, self.x_ = Slot(), Slot(), Slot(), Slot(), Slot()
        self.threshold = self.threshold_.f32(threshold, stride, False)
        self.previous = self.previous_.f32(previous, stride, True)
        self.gap = self.gap_.i32(gap, stride, True)
        self.squares = self.squares_.f64(squares, stride, True)
        self.length = self.length_.f64(length, stride, True)
        self.peak = self.peak_.f32(peak, stride, True)
        self.over = self.over_.i32(over, stride, True)
        self.bursts = self.bursts_.i32(bursts, stride, True)

    def add(self, x, Py_ssize_t first, Py_ssize_t n):
        if first < 0 or n < 0:
            raise ValueError(f"rows {first} to {first + n} came, none may be negative")
        cdef float *px = self.x_.f32(x, (first + n) * self.stride, False)
        emg_features(px + first * self.stride, n, self.stride, self.threshold, self.quiet, self.n, self.partial,
                     self.previous, self.gap, self.squares, self.length, self.peak, self.over, self.bursts)
        self.n += n

    def clear(self):
        """A new window: sums to zero; the last row and the gap counter go on."""
        self.n = 0
        memset(self.partial, 0, 2 * self.stride * 4)
        memset(self.squares, 0, self.stride * 8)
        memset(self.length, 0, self.stride * 8)
        memset(self.peak, 0, self.stride * 4)
        memset(self.over, 0, self.stride * 4)
        memset(self.bursts, 0, self.stride * 4)
