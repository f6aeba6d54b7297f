# SPDX-License-Identifier: Apache-2.0
# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, embedsignature=True
"""Compiled kernels, bound: each class looks its buffers up once and checks dtype, layout and size there.

In and out: C-contiguous arrays, float32 data, float64 coefficients, state and sums; sizes are in rows.
Always: no allocation after construction; ValueError before any byte is touched when a buffer does not fit.
The GIL is kept: a block takes microseconds, and giving the GIL away costs up to a switch interval (5 ms) to get it
back when another thread is busy (docs/performance.md).  The faces are ionmd/dsp/*.py, the twins ionmd/dsp/reference.py.
"""
from libc.stdint cimport INT32_MAX, INT32_MIN
from libc.string cimport memcpy, memset

include "slot.pxi"


cdef extern from "kernels.h" nogil:
    int IIR_MAX_SECTIONS
    int iir_f32(const float *x, float *y, size_t rows, size_t stride, const double *coef, int sections, double *state)
    int iir_f64_signal(const double *x, double *y, size_t n, ptrdiff_t step, const double *coef, int sections,
                       double *state)
    void derive(const float *x, float *y, size_t rows, size_t stride_in, size_t stride_out, const int32_t *plus,
                const int32_t *minus)
    int SWEEP_CHUNK
    void hold(float *x, size_t rows, size_t stride, const int64_t *spans, size_t count, float *good, int *seen)
    void sweep_extremes(const float *x, size_t rows, size_t stride, float *lo, float *hi)
    void chunk_extremes(const float *ring, size_t capacity, size_t stride, size_t at, size_t rows, float *lo,
                        float *hi)
    void window_extremes(const float *ring, size_t capacity, size_t stride, size_t at, size_t rows,
                         const float *chunk_lo, const float *chunk_hi, float *lo, float *hi)
    void sweep_add(const float *x, size_t rows, size_t stride, const uint8_t *accept, int64_t *count, double *sum,
                   double *squares)
    void sweep_add_many(const float *const *x, size_t many, size_t rows, size_t stride, const uint8_t *accept,
                        int64_t *count, double *sum, double *squares)
    void emg_features(const float *x, size_t rows, size_t stride, const float *threshold, int32_t quiet, size_t phase,
                      float *partial, float *previous, int32_t *gap, double *squares, double *length, float *peak,
                      int32_t *over, int32_t *bursts)


cdef extern from "unpack.h" nogil:
    int IONM_UNPACK_SLACK
    void ionm_unpack24(const uint8_t *p, uint32_t rows, uint32_t inputs, uint32_t stride, const float *lsb,
                       int32_t *counts, float *uv, int32_t *lo, int32_t *hi)


cdef extern from "lanes.h" nogil:
    uint64_t dsp_flush_on()
    void dsp_flush_restore(uint64_t old)


MAX_SECTIONS = IIR_MAX_SECTIONS
MAX_STRIDE = 256
CHUNK = SWEEP_CHUNK
cdef enum:
    MOST = 16

MOST_SWEEPS = MOST
UNPACK_SLACK = IONM_UNPACK_SLACK


def flush_on():
    """Subnormals to zero in this thread; returns what `flush_restore` takes."""
    return dsp_flush_on()


def flush_restore(uint64_t old):
    dsp_flush_restore(old)


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

    def add_many(self, sweeps, accept):
        """At most MOST_SWEEPS of them; accept uint8[len(sweeps), stride]."""
        cdef const float *x[MOST]
        cdef Slot held
        cdef Py_ssize_t many = len(sweeps), k
        if not (0 <= many <= MOST):
            raise ValueError(f"{many} sweeps came, {MOST} at most were expected")
        slots = [Slot() for _ in range(many)]
        for k in range(many):
            held = slots[k]
            x[k] = held.f32(sweeps[k], self.rows * self.stride, False)
        cdef uint8_t *pa = self.accept_.u8(accept, many * self.stride, False)
        sweep_add_many(x, many, self.rows, self.stride, pa, self.count, self.sum, self.squares)


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


cdef class Extremes:
    """sweep.c:chunk_extremes over one ring: float32[capacity, stride] and its tables float32[capacity / CHUNK, stride].

    update(at, n)  after rows at..at + n were written;  window(at, n) -> lo, hi of those rows (arrays given here)
    within(limit, accept)  of the last window: accept[k] = 1 where -limit <= lo and hi <= limit, else 0; says if any is 1
    """

    cdef Slot ring_, chunk_lo_, chunk_hi_, lo_, hi_, accept_
    cdef Py_ssize_t capacity, stride
    cdef float *ring
    cdef float *chunk_lo
    cdef float *chunk_hi
    cdef float *lo
    cdef float *hi

    def __init__(self, ring, chunk_lo, chunk_hi, lo, hi, Py_ssize_t capacity, Py_ssize_t stride):
        check_stride(stride)
        if not (capacity > 0 and capacity % SWEEP_CHUNK == 0):
            raise ValueError(f"a ring of {capacity} rows came, a multiple of {SWEEP_CHUNK} was expected")
        self.capacity, self.stride = capacity, stride
        self.ring_, self.chunk_lo_, self.chunk_hi_ = Slot(), Slot(), Slot()
        self.lo_, self.hi_, self.accept_ = Slot(), Slot(), Slot()
        self.ring = self.ring_.f32(ring, capacity * stride, False)
        self.chunk_lo = self.chunk_lo_.f32(chunk_lo, capacity // SWEEP_CHUNK * stride, True)
        self.chunk_hi = self.chunk_hi_.f32(chunk_hi, capacity // SWEEP_CHUNK * stride, True)
        self.lo = self.lo_.f32(lo, stride, True)
        self.hi = self.hi_.f32(hi, stride, True)

    cdef int _check(self, Py_ssize_t at, Py_ssize_t n) except -1:
        if not (0 <= at < self.capacity and 0 < n <= self.capacity):
            raise ValueError(f"rows {at} to {at + n} came, 1 to {self.capacity} rows of the ring were expected")
        return 0

    def update(self, Py_ssize_t at, Py_ssize_t n):
        self._check(at, n)
        chunk_extremes(self.ring, self.capacity, self.stride, at, n, self.chunk_lo, self.chunk_hi)

    def window(self, Py_ssize_t at, Py_ssize_t n):
        self._check(at, n)
        window_extremes(self.ring, self.capacity, self.stride, at, n, self.chunk_lo, self.chunk_hi, self.lo, self.hi)

    def within(self, double limit, accept):
        cdef uint8_t *pa = self.accept_.u8(accept, 0, True)
        cdef Py_ssize_t k
        cdef int any_ = 0
        if self.accept_.items > self.stride:
            raise ValueError(f"accept of {self.accept_.items} came, at most {self.stride} were expected")
        for k in range(self.accept_.items):   # written so that nan is refused
            pa[k] = -limit <= self.lo[k] and self.hi[k] <= limit
            any_ |= pa[k]
        return any_ != 0


cdef class Emg:
    """emg.c over its accumulators."""

    cdef Slot threshold_, partial_, previous_, gap_, squares_, length_, peak_, over_, bursts_, x_
    cdef Py_ssize_t stride
    cdef readonly Py_ssize_t n   # rows in this window
    cdef bint fresh              # no row yet: there is no step into the first
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
        self.stride, self.quiet, self.n, self.fresh = stride, quiet, 0, True
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
        self.run(px + first * self.stride, n)

    cdef void run(self, const float *x, Py_ssize_t n) noexcept:
        if n and self.fresh:
            memcpy(self.previous, x, self.stride * 4)
            self.fresh = False
        emg_features(x, n, self.stride, self.threshold, self.quiet, self.n, self.partial, self.previous, self.gap,
                     self.squares, self.length, self.peak, self.over, self.bursts)
        self.n += n

    def forget(self):
        """The next row has no row before it."""
        self.fresh = True

    def clear(self):
        """A new window: sums to zero; the last row and the gap counter go on."""
        self.n = 0
        memset(self.partial, 0, 2 * self.stride * 4)
        memset(self.squares, 0, self.stride * 8)
        memset(self.length, 0, self.stride * 8)
        memset(self.peak, 0, self.stride * 4)
        memset(self.over, 0, self.stride * 4)
        memset(self.bursts, 0, self.stride * 4)


cdef class Unpack:
    """decode/unpack.c for bytes that are no ionm1 block: lsb float32[stride]; lo, hi int32[stride] of the last call."""

    cdef Slot lsb_, counts_, uv_, lo_, hi_, raw_
    cdef Py_ssize_t inputs, stride
    cdef float *lsb
    cdef int32_t *lo
    cdef int32_t *hi
    cdef int32_t *counts
    cdef float *uv
    cdef Py_ssize_t room

    def __init__(self, lsb, counts, uv, lo, hi, Py_ssize_t inputs, Py_ssize_t stride):
        check_stride(stride)
        if not (1 <= inputs <= stride):
            raise ValueError(f"{inputs} inputs came, 1 to {stride} were expected")
        self.inputs, self.stride = inputs, stride
        self.lsb_, self.counts_, self.uv_ = Slot(), Slot(), Slot()
        self.lo_, self.hi_, self.raw_ = Slot(), Slot(), Slot()
        self.lsb = self.lsb_.f32(lsb, stride, False)
        self.lo = self.lo_.i32(lo, stride, True)
        self.hi = self.hi_.i32(hi, stride, True)
        self.counts = self.counts_.i32(counts, 0, True)
        self.uv = self.uv_.f32(uv, 0, True)
        self.room = min(self.counts_.items, self.uv_.items) // stride

    cdef int run(self, object raw, Py_ssize_t n) except -1:
        cdef Py_ssize_t k
        self.raw_.bind(raw, b"B", 1, False)
        if not (0 <= n <= self.room) or self.raw_.items < 3 * n * self.inputs + IONM_UNPACK_SLACK:
            raise ValueError(f"{self.raw_.items} bytes came for {n} rows, at most {self.room} rows and "
                             f"{3 * n * self.inputs} bytes with {IONM_UNPACK_SLACK} behind them were expected")
        for k in range(self.stride):
            self.lo[k], self.hi[k] = INT32_MAX, INT32_MIN
        ionm_unpack24(<uint8_t *>self.raw_.ptr, <uint32_t>n, <uint32_t>self.inputs, <uint32_t>self.stride, self.lsb,
                      self.counts, self.uv, self.lo, self.hi)
        return 0

    def process(self, raw, Py_ssize_t n):
        """`n` rows of int24 from a buffer of bytes that has UNPACK_SLACK more behind them."""
        self.run(raw, n)


cdef class Chain:
    """A block through all stages of a stream in one call: (unpack) -> derive -> hold -> filter -> (features).

    work  float32[capacity, stride]  derivations;  rows  float32[capacity, stride]  filtered;  good  float32[stride]
    """

    cdef Derive derive
    cdef Iir iir
    cdef Emg emg
    cdef Unpack unpack
    cdef Slot uv_, work_, rows_, good_
    cdef float *work
    cdef float *rows
    cdef float *good
    cdef Py_ssize_t capacity
    cdef int seen
    cdef int64_t spans[2 * 64]

    def __init__(self, Derive derive not None, Iir iir not None, work, rows, good, Emg emg=None, Unpack unpack=None):
        cdef Py_ssize_t stride = derive.stride_out
        if iir.stride != stride or (emg is not None and emg.stride != stride):
            raise ValueError(f"stages of different strides came, {stride} was expected")
        if unpack is not None and unpack.stride != derive.stride_in:
            raise ValueError(f"an unpack stage of stride {unpack.stride} came, {derive.stride_in} was expected")
        self.derive, self.iir, self.emg, self.unpack = derive, iir, emg, unpack
        self.uv_, self.work_, self.rows_, self.good_ = Slot(), Slot(), Slot(), Slot()
        self.good = self.good_.f32(good, stride, True)
        self.work = self.work_.f32(work, 0, True)
        self.rows = self.rows_.f32(rows, 0, True)
        self.capacity = min(self.work_.items, self.rows_.items) // stride
        self.seen = 0

    def forget(self):
        """After a gap: there is no good row any more."""
        self.seen = 0

    cdef int run(self, const float *uv, Py_ssize_t n, object spans) except -1:
        cdef Py_ssize_t stride = self.derive.stride_out, count = 0
        if spans is not None:
            for start, stop in spans:
                if count == 64:   # hold what lies between rather than let an artefact through
                    self.spans[2 * 63 + 1] = max(self.spans[2 * 63 + 1], <int64_t>stop)
                    continue
                self.spans[2 * count], self.spans[2 * count + 1] = start, stop
                count += 1
        if n == 0:
            return 1
        derive(uv, self.work, n, self.derive.stride_in, stride, self.derive.plus, self.derive.minus)
        hold(self.work, n, stride, self.spans, count, self.good, &self.seen)
        cdef int ok = iir_f32(self.work, self.rows, n, stride, self.iir.coef, self.iir.sections, self.iir.state)
        if self.emg is not None:
            self.emg.run(self.rows, n)
        return ok

    def feed(self, uv, Py_ssize_t n, spans):
        """Rows 0..n of uv float32[n, stride_in]; spans: rows to hold.  True: the filter's state is finite."""
        if not (0 <= n <= self.capacity):
            raise ValueError(f"{n} rows came, 0 to {self.capacity} were expected")
        return self.run(self.uv_.f32(uv, n * self.derive.stride_in, False), n, spans) != 0

    def feed_int24(self, raw, Py_ssize_t n, spans):
        """The same from bytes, through the unpack stage."""
        if self.unpack is None:
            raise ValueError("bytes came, but this chain has no unpack stage")
        if not (0 <= n <= self.capacity):
            raise ValueError(f"{n} rows came, 0 to {self.capacity} were expected")
        self.unpack.run(raw, n)
        return self.run(self.unpack.uv, n, spans) != 0
