# SPDX-License-Identifier: Apache-2.0
# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, embedsignature=True
"""Compiled kernels of finished curves and spectra; same manners as _kernels.pyx."""
include "slot.pxi"
from libc.math cimport ceil, floor


cdef extern from "kernels.h" nogil:
    void c_autocovariance "autocovariance"(const double *x, size_t n, size_t lags, double *out)
    void c_gaussian_half "gaussian_half"(double sigma, size_t reach, double *out)
    void c_smooth "smooth_symmetric"(const double *wide, size_t n, const double *kernel, size_t reach, double *out)
    void c_blend "blend"(const double *x, const double *factor, size_t rows, size_t n, double *out)
    double c_beta_fraction "beta_fraction"(double a, double b, double x)
    void c_shape_at "shape_at"(const double *curves, size_t k, size_t length, double first, double step, size_t n,
                               size_t stride, double *out)
    void c_shape_root "shape_root"(const double *row, size_t m, double *root)
    size_t shape_scratch(size_t m)
    size_t c_shape_search "shape_search"(const double *curves, size_t k, size_t length, const double *root,
                                         const double *y, size_t m, const double *firsts, size_t shifts, double step,
                                         double prior, double *best, double *scratch)
    void c_shape_cover "shape_cover"(const double *root, const double *design, size_t m, size_t w, size_t held,
                                     double prior, double *cover, double *gain, double *scratch)
    size_t mains_scratch(size_t harmonics, size_t columns)
    size_t c_mains_fit "mains_fit"(const double *x, const uint8_t *use, size_t n, size_t stride, size_t columns, double w,
                                   size_t harmonics, double *coef, double *left, double *scratch)
    void c_mains_subtract "mains_subtract"(float *sweep, size_t rows, size_t stride, size_t columns, double first,
                                           double w, size_t harmonics, const double *coef, double *removed)
    int WELCH_SHORTEST, WELCH_LONGEST, SHAPE_MOST, MAINS_MOST
    ctypedef struct dsp_peak:
        double position, value, prominence, curvature, index
    ctypedef struct dsp_summit:
        pass
    size_t peaks_scratch(size_t columns)
    size_t peaks_find(const double *y, size_t lo, size_t hi, double sign, size_t first, size_t last, double least,
                      dsp_peak *out, size_t room, dsp_summit *all)
    void peaks_rank(dsp_peak *peak, size_t n)
    size_t match_scratch(size_t m, size_t lags)
    void match_template(const float *x, size_t channels, size_t n, const float *templates, size_t each, size_t m,
                        float *out, float *scratch)
    int welch_twiddles(size_t n, float *out)
    size_t welch_scratch(size_t n)
    void welch_segments(const float *x, size_t n, size_t step, size_t count, size_t stride, const float *window,
                        const float *twiddles, float *power, float *scratch)


SEGMENT_RANGE = (WELCH_SHORTEST, WELCH_LONGEST)
MOST_COEFFICIENTS = SHAPE_MOST
MOST_HARMONICS = MAINS_MOST


def find_peaks(make, y, double sign, Py_ssize_t lo, Py_ssize_t hi, double start, double stop, double least):
    """peaks.c: [make(index, position, value, prominence, curvature)] of float64 y, the most prominent first."""
    cdef Py_ssize_t first, last
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
        if not (0 <= lo and hi <= view.len // 8 and start == start and stop == stop):
            raise ValueError(f"columns {start} to {stop} within {lo} to {hi} came, of {view.len // 8}")
        first = lo + 1 if start < lo + 1 else <Py_ssize_t>ceil(start) if start < hi else hi
        last = hi - 2 if stop > hi - 2 else <Py_ssize_t>floor(stop) if stop > lo else lo
        if last < first:
            return []
        scratch = <dsp_summit *>malloc(peaks_scratch(hi - lo) * sizeof(dsp_summit))
        if scratch == NULL:
            raise MemoryError
        n = peaks_find(<double *>view.buf, lo, hi, sign, first, last, least, p, 64, scratch)
        if n > 64:   # a curve of noise and no `least`: once more with room for all
            p = <dsp_peak *>malloc(n * sizeof(dsp_peak))
            if p == NULL:
                raise MemoryError
            n = peaks_find(<double *>view.buf, lo, hi, sign, first, last, least, p, n, scratch)
        peaks_rank(p, n)
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


def gaussian_half(double sigma, Py_ssize_t reach, out):
    """noise.c: out[reach + 1]."""
    cdef Slot a = Slot()
    if not (sigma > 0.0 and reach >= 0):
        raise ValueError(f"a sigma of {sigma} and a reach of {reach} came, above 0 and not negative were expected")
    c_gaussian_half(sigma, reach, a.f64(out, reach + 1, True))


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


def blend(x, factor, Py_ssize_t rows, Py_ssize_t n, out):
    """blend.c: out[rows, n] += factor[rows] * x[rows, n]."""
    cdef Slot a = Slot(), b = Slot(), c = Slot()
    if rows < 0 or n < 0:
        raise ValueError(f"{rows} rows of {n} came, none may be negative")
    cdef double *px = a.f64(x, rows * n, False)
    cdef double *pf = b.f64(factor, rows, False)
    cdef double *po = c.f64(out, rows * n, True)
    with nogil:
        c_blend(px, pf, rows, n, po)


def beta_fraction(double a, double b, double x):
    """beta.c."""
    return c_beta_fraction(a, b, x)


def shape_at(curves, Py_ssize_t k, double first, double step, Py_ssize_t n, out):
    """shape.c: out[n, k] of curves[k, :]."""
    cdef Slot a = Slot(), b = Slot()
    if not (0 < k <= SHAPE_MOST and n >= 0):
        raise ValueError(f"{k} curves at {n} places came, 1 to {SHAPE_MOST} curves were expected")
    cdef double *px = a.f64(curves, k, False)
    cdef double *po = b.f64(out, n * k, True)
    with nogil:
        c_shape_at(px, k, a.items // k, first, step, n, k, po)


def shape_root(row, Py_ssize_t m, root):
    """shape.c: root[m, m] of row[m]."""
    cdef Slot a = Slot(), b = Slot()
    if m < 1:
        raise ValueError(f"{m} points came, 1 at least was expected")
    cdef double *pr = a.f64(row, m, False)
    cdef double *po = b.f64(root, m * m, True)
    with nogil:
        c_shape_root(pr, m, po)


def shape_search(curves, Py_ssize_t k, root, y, Py_ssize_t m, firsts, Py_ssize_t shifts, double step, double prior, best):
    """shape.c: index of the best shift; best[k + 1] are the coefficients there."""
    cdef Slot a = Slot(), b = Slot(), c = Slot(), d = Slot(), e = Slot()
    if not (0 < k < SHAPE_MOST - 1 and m > 0 and shifts > 0 and prior > 0.0):
        raise ValueError(f"{k} curves, {m} points, {shifts} shifts and a prior of {prior} came; 1 to {SHAPE_MOST - 2} "
                         "curves and the rest above 0 were expected")
    cdef double *pc = a.f64(curves, k, False)
    cdef double *pr = b.f64(root, m * m, False)
    cdef double *py = c.f64(y, m, False)
    cdef double *pf = d.f64(firsts, shifts, False)
    cdef double *po = e.f64(best, k + 1, True)
    cdef double *scratch = <double *>malloc(shape_scratch(m) * sizeof(double))
    cdef size_t found
    if scratch == NULL:
        raise MemoryError
    with nogil:
        found = c_shape_search(pc, k, a.items // k, pr, py, m, pf, shifts, step, prior, po, scratch)
        free(scratch)
    return found


def shape_cover(root, design, Py_ssize_t m, Py_ssize_t w, Py_ssize_t held, double prior, cover, gain):
    """shape.c: cover[w, w] and gain[w, m] of design[m, w]."""
    cdef Slot a = Slot(), b = Slot(), c = Slot(), d = Slot()
    if not (0 < w <= SHAPE_MOST and m > 0 and 0 <= held < w and prior > 0.0):
        raise ValueError(f"{w} coefficients, {held} of them held, {m} points and a prior of {prior} came; 1 to "
                         f"{SHAPE_MOST} coefficients were expected and the rest above 0")
    cdef double *pr = a.f64(root, m * m, False)
    cdef double *pd = b.f64(design, m * w, False)
    cdef double *pc = c.f64(cover, w * w, True)
    cdef double *pg = d.f64(gain, w * m, True)
    cdef double *scratch = <double *>malloc(shape_scratch(m) * sizeof(double))
    if scratch == NULL:
        raise MemoryError
    with nogil:
        c_shape_cover(pr, pd, m, w, held, prior, pc, pg, scratch)
        free(scratch)


def mains_fit(x, use, Py_ssize_t n, Py_ssize_t stride, Py_ssize_t columns, double w, Py_ssize_t harmonics, coef, left):
    """mains.c: samples in use; coef[2 * harmonics + 3, columns] and left[columns] of x[n, stride]."""
    cdef Slot a = Slot(), b = Slot(), c = Slot(), d = Slot()
    if not (n > 0 and 0 < columns <= stride and 0 < harmonics <= MAINS_MOST):
        raise ValueError(f"{n} samples of {columns} columns in {stride} and {harmonics} harmonics came, 1 to {MAINS_MOST} "
                         "harmonics and the rest above 0 were expected")
    cdef double *px = a.f64(x, n * stride, False)
    cdef uint8_t *pu = b.u8(use, n, False)
    cdef double *pc = c.f64(coef, (2 * harmonics + 3) * columns, True)
    cdef double *pl = d.f64(left, columns, True)
    cdef double *scratch = <double *>malloc(mains_scratch(harmonics, columns) * sizeof(double))
    cdef size_t used
    if scratch == NULL:
        raise MemoryError
    with nogil:
        used = c_mains_fit(px, pu, n, stride, columns, w, harmonics, pc, pl, scratch)
        free(scratch)
    return used


def mains_subtract(sweep, Py_ssize_t rows, Py_ssize_t stride, Py_ssize_t columns, double first, double w,
                   Py_ssize_t harmonics, coef, removed):
    """mains.c: sweep float32[rows, stride] less the harmonics; removed[columns] += their squares."""
    cdef Slot a = Slot(), b = Slot(), c = Slot()
    if not (rows >= 0 and 0 < columns <= stride and 0 < harmonics <= MAINS_MOST):
        raise ValueError(f"{rows} rows of {columns} columns in {stride} and {harmonics} harmonics came, 1 to {MAINS_MOST} "
                         "harmonics were expected")
    cdef float *px = a.f32(sweep, rows * stride, True)
    cdef double *pc = b.f64(coef, 2 * harmonics * columns, False)
    cdef double *pr = c.f64(removed, columns, True)
    with nogil:
        c_mains_subtract(px, rows, stride, columns, first, w, harmonics, pc, pr)
