# SPDX-License-Identifier: Apache-2.0
# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, embedsignature=True
"""Compiled kernels of finished curves and spectra; same manners as _kernels.pyx."""
include "slot.pxi"


cdef extern from "kernels.h" nogil:
    void c_autocovariance "autocovariance"(const double *x, size_t n, size_t lags, double *out)
    void c_smooth "smooth_symmetric"(const double *wide, size_t n, const double *kernel, size_t reach, double *out)
    int WELCH_SHORTEST, WELCH_LONGEST
    ctypedef struct dsp_peak:
        double position, value, prominence, curvature, index
    ctypedef struct dsp_summit:
        pass
    size_t peaks_scratch(size_t columns)
    size_t peaks_find(const double *y, size_t lo, size_t hi, double sign, size_t first, size_t last, double least,
                      dsp_peak *out, size_t room, dsp_summit *all)
    size_t match_scratch(size_t m, size_t lags)
    void match_template(const float *x, size_t channels, size_t n, const float *templates, size_t each, size_t m,
                        float *out, float *scratch)
    int welch_twiddles(size_t n, float *out)
    size_t welch_scratch(size_t n)
    void welch_segments(const float *x, size_t n, size_t step, size_t count, size_t stride, const float *window,
                        const float *twiddles, float *power, float *scratch)


SEGMENT_RANGE = (WELCH_SHORTEST, WELCH_LONGEST)


def find_peaks(make, y, double sign, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t first, Py_ssize_t last, double least):
    """peaks.c: [make(index, position, value, prominence, curvature)] of float64 y, in time order."""
    cdef Py_buffer view
    cdef dsp_peak out[64]
    cdef dsp_peak *p = out
    cdef dsp_summit *scratch = NULL
    cdef size_t n, i
    cdef list found
    PyObject_GetBuffer(y, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    try:
        if view.format == NULL or view.format[0] != b"d" or view.ndim != 1:
            raise ValueError("a curve came that is no contiguous array of float64 with one axis")
        if not (0 <= lo < first and first <= last and last + 1 < hi and hi <= view.len // 8):
            raise ValueError(f"columns {first} to {last} within {lo} to {hi} came, of {view.len // 8}")
        scratch = <dsp_summit *>malloc(peaks_scratch(hi - lo) * sizeof(dsp_summit))
        if scratch == NULL:
            raise MemoryError
        n = peaks_find(<double *>view.buf, lo, hi, sign, first, last, least, p, 64, scratch)
        if n > 64:   # a curve of noise and no `least`: once more with room for all
            p = <dsp_peak *>malloc(n * sizeof(dsp_peak))
            if p == NULL:
                raise MemoryError
            n = peaks_find(<double *>view.buf, lo, hi, sign, first, last, least, p, n, scratch)
        found = []
        for i in range(n):
            found.append(make(<Py_ssize_t>p[i].index, p[i].position, p[i].value, p[i].prominence, p[i].curvature))
        return found
    finally:
        free(scratch)
        if p != out:
            free(p)
        PyBuffer_Release(&view)


cdef class Match:
    """match.c: templates float32[channels or 1, m]; curves of `n` columns, lags n - m + 1."""

    cdef Slot templates_, x_, out_
    cdef Py_ssize_t channels, m, n
    cdef size_t each
    cdef float *templates
    cdef float *scratch

    def __cinit__(self):
        self.scratch = NULL

    def __dealloc__(self):
        free(self.scratch)

    def __init__(self, templates, Py_ssize_t channels, bint each, Py_ssize_t m, Py_ssize_t n):
        if not (channels >= 1 and 2 <= m <= n):
            raise ValueError(f"{channels} channels, templates of {m} and curves of {n} came, 2 <= m <= n was expected")
        self.channels, self.each, self.m, self.n = channels, each, m, n
        self.templates_, self.x_, self.out_ = Slot(), Slot(), Slot()
        self.templates = self.templates_.f32(templates, (channels if each else 1) * m, False)
        free(self.scratch)
        self.scratch = <float *>aligned_alloc(64, match_scratch(m, n - m + 1) * 4 // 64 * 64 + 64)
        if self.scratch == NULL:
            raise MemoryError

    def process(self, x, out):
        cdef float *px = self.x_.f32(x, self.channels * self.n, False)
        cdef float *po = self.out_.f32(out, self.channels * (self.n - self.m + 1), True)
        match_template(px, self.channels, self.n, self.templates, self.each, self.m, po, self.scratch)


def roots_of_unity(Py_ssize_t n, out):
    """welch.c:welch_twiddles into float32[n, 2]."""
    cdef Slot a = Slot()
    cdef float *p = a.f32(out, 2 * n, True)
    if not welch_twiddles(n, p):
        raise ValueError(f"a segment of {n} samples came, a power of two from {WELCH_SHORTEST} to {WELCH_LONGEST} "
                         "was expected")


cdef class Welch:
    """welch.c over its power sum float32[n / 2 + 1, stride]."""

    cdef Slot window_, twiddles_, power_, x_
    cdef Py_ssize_t n, stride
    cdef float *window
    cdef float *twiddles
    cdef float *power
    cdef float *scratch

    def __cinit__(self):
        self.scratch = NULL

    def __dealloc__(self):
        free(self.scratch)

    def __init__(self, window, twiddles, power, Py_ssize_t n, Py_ssize_t stride):
        check_stride(stride)
        self.n, self.stride = n, stride
        self.window_, self.twiddles_, self.power_, self.x_ = Slot(), Slot(), Slot(), Slot()
        if not (WELCH_SHORTEST <= n <= WELCH_LONGEST and n & (n - 1) == 0):
            raise ValueError(f"a segment of {n} samples came, a power of two from {WELCH_SHORTEST} to "
                             f"{WELCH_LONGEST} was expected")
        self.window = self.window_.f32(window, n, False)
        self.twiddles = self.twiddles_.f32(twiddles, 2 * n, False)
        self.power = self.power_.f32(power, (n // 2 + 1) * stride, True)
        free(self.scratch)
        self.scratch = <float *>aligned_alloc(64, welch_scratch(n) * 4)
        if self.scratch == NULL:
            raise MemoryError

    def add(self, x, Py_ssize_t first, Py_ssize_t step, Py_ssize_t count):
        """`count` segments of n rows, beginning at `first`, `step` rows apart."""
        if not (first >= 0 and step >= 1 and count >= 0):
            raise ValueError(f"segments from row {first} by {step}, {count} of them came, none may be negative")
        if count == 0:
            return
        cdef float *px = self.x_.f32(x, (first + (count - 1) * step + self.n) * self.stride, False)
        welch_segments(px + first * self.stride, self.n, step, count, self.stride, self.window, self.twiddles, self.power,
                       self.scratch)


def autocovariance(x, Py_ssize_t n, Py_ssize_t lags, out):
    """noise.c: out[:lags] of x[:n]."""
    cdef Slot a = Slot(), b = Slot()
    if not (0 < lags <= n):
        raise ValueError(f"{lags} lags of {n} samples came, 1 to {n} were expected")
    cdef double *px = a.f64(x, n, False)
    cdef double *po = b.f64(out, lags, True)
    with nogil:
        c_autocovariance(px, n, lags, po)


def smooth_symmetric(wide, Py_ssize_t n, kernel, Py_ssize_t reach, out):
    """noise.c: out[:n] of wide[:n + 2 reach] with kernel[:reach + 1]."""
    cdef Slot a = Slot(), b = Slot(), c = Slot()
    if n < 0 or reach < 0:
        raise ValueError(f"{n} values and a reach of {reach} came, none may be negative")
    cdef double *pw = a.f64(wide, n + 2 * reach, False)
    cdef double *pk = b.f64(kernel, reach + 1, False)
    cdef double *po = c.f64(out, n, True)
    with nogil:
        c_smooth(pw, n, pk, reach, po)
