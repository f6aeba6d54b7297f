# cython: language_level=3, boundscheck=False, wraparound=False
"""Thin face of ionm1.c: binds a Block's memory once, then one call without the GIL per read.

Shapes are checked when a Block is first seen; the same object is then taken to keep its arrays.
"""
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free

from ionmd.model import Gap, Mark, MarkKind, StimState


cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from "ring.h" nogil:
    ctypedef struct ionm_ring:
        uint64_t size, transfers, bytes, lost_transfers, lost_bytes, high
    int ionm_ring_init(ionm_ring *r, uint64_t size)
    void ionm_ring_destroy(ionm_ring *r)
    int ionm_ring_push(ionm_ring *r, const uint8_t *data, uint32_t length, uint32_t flags, uint64_t done_ns)
    int ionm_ring_empty(ionm_ring *r)

cdef extern from "crc32.h" nogil:
    void ionm_crc32_init()
    uint32_t ionm_crc32(uint32_t crc, const uint8_t *p, size_t n)
    uint32_t ionm_crc32_portable(uint32_t crc, const uint8_t *p, size_t n)
    int ionm_crc32_vector()

cdef extern from "ionm1.h" nogil:
    enum: IONM1_PENDING, IONM1_MAX_BLOCK
    ctypedef struct ionm1_mark:
        uint64_t sample
        uint8_t kind, output, slot, flags
        uint16_t pulse, width_us
        uint32_t nonce
        int32_t set, delivered
        uint32_t value
    ctypedef struct ionm1_counters:
        uint64_t blocks, status_blocks, samples, lost_samples, gaps, duplicates, bad_frames, stale, seq_holes, unknown
        uint64_t marks, marks_lost, cancelled
        uint32_t dropped_blocks, fifo_high
    ctypedef struct ionm1_decoder:
        uint32_t inputs, session, boot_id, left, n_pending, fifo_permille, stim_state, trip_reason, aux
        uint64_t next_sample, pair_sample, pair_device_ns, pair_host_ns
        int running
        ionm1_counters n
    ctypedef struct ionm1_out:
        int32_t *counts
        float *uv
        float *lo
        float *hi
        uint32_t capacity, stride, n, gap, n_marks
        uint64_t limit, first, lost
        ionm1_mark marks[IONM1_PENDING]
    int ionm1_init(ionm1_decoder *d, ionm_ring *ring, uint32_t inputs, const float *lsb_uv)
    void ionm1_destroy(ionm1_decoder *d)
    void ionm1_begin(ionm1_decoder *d, uint32_t session, uint32_t boot_id)
    int ionm1_read(ionm1_decoder *d, ionm1_out *out)


ionm_crc32_init()
MAX_BLOCK_BYTES = IONM1_MAX_BLOCK


def crc32(const uint8_t[::1] data, uint32_t crc=0, bint portable=False):
    """zlib.crc32 of the bytes, by the decoder's own code (for its test)."""
    cdef const uint8_t *p = &data[0] if data.shape[0] else NULL
    cdef size_t n = data.shape[0]
    return ionm_crc32_portable(crc, p, n) if portable else ionm_crc32(crc, p, n)


def crc32_is_vectorised():
    return bool(ionm_crc32_vector())


cdef object _KINDS = {int(k): k for k in MarkKind}
cdef object _GAPS = [Gap(i) for i in range(32)]
cdef object _STATES = {int(s): s for s in StimState}


cdef object _mark(ionm1_mark *m):
    """Device units become mA, V or ohm; None when the kind is unknown to this version."""
    kind = _KINDS.get(m.kind)
    if kind is None:
        return None
    cdef int value = 0
    cdef int state = 0
    if kind == MarkKind.STIM_STATE:
        state = m.value & 0xFF
        value = m.value >> 8
    elif kind == MarkKind.AUX:
        value = 1 if m.flags & 32 else 0
    elif kind == MarkKind.IMPEDANCE:
        value = m.delivered
    else:
        value = <int>(m.value & 0x7FFFFFFF)
    return Mark(
        kind=kind, sample=m.sample, output=m.output, slot=m.slot, nonce=m.nonce, pulse=m.pulse,
        last=bool(m.flags & 1), set=m.set / 1000.0,
        delivered=0.0 if kind == MarkKind.IMPEDANCE else m.delivered / 1000.0,
        width_us=m.width_us, polarity=-1 if m.flags & 16 else 1, ok=not m.flags & 2, no_contact=bool(m.flags & 4),
        compliance=bool(m.flags & 8), value=value, state=state,
    )


cdef class Decoder:
    """Parser of one device with its transport ring; a USB queue writes into the ring at `ring_address`."""

    cdef ionm_ring *ring
    cdef ionm1_decoder *d
    cdef ionm1_out *out
    cdef object bound
    cdef object keep
    cdef uint64_t unknown_marks

    def __cinit__(self, lsb_uv, uint64_t ring_bytes=1 << 20):
        cdef float lsb[64]
        cdef uint32_t inputs = len(lsb_uv)
        if not 1 <= len(lsb_uv) <= 64:
            raise ValueError(f"{len(lsb_uv)} inputs came, 1 to 64 were expected")
        for i in range(inputs):
            lsb[i] = lsb_uv[i]
            if not 0 < lsb[i] < 1e6:
                raise ValueError(f"input {i}: {lsb_uv[i]!r} uV per count came, a positive number was expected")
        self.d = <ionm1_decoder *>calloc(1, sizeof(ionm1_decoder))
        self.out = <ionm1_out *>calloc(1, sizeof(ionm1_out))
        if self.d == NULL or self.out == NULL:
            raise MemoryError
        self.ring = <ionm_ring *>aligned_alloc(64, sizeof(ionm_ring))  # its counters sit on cache lines of their own
        if self.ring == NULL or ionm_ring_init(self.ring, ring_bytes) or ionm1_init(self.d, self.ring, inputs, lsb):
            raise MemoryError

    def __dealloc__(self):
        if self.d != NULL:
            ionm1_destroy(self.d)
        if self.ring != NULL:
            ionm_ring_destroy(self.ring)
            free(self.ring)
        free(self.d)
        free(self.out)

    def begin(self, uint32_t session, uint32_t boot_id):
        ionm1_begin(self.d, session, boot_id)

    def feed(self, const uint8_t[::1] transfer, uint64_t done_ns=0):
        """One transfer's bytes into the ring; False when it is full (counted)."""
        return ionm_ring_push(self.ring, &transfer[0] if transfer.shape[0] else NULL, <uint32_t>transfer.shape[0], 0,
                              done_ns) == 0

    cdef int _bind(self, block) except -1:
        cdef int32_t[:, ::1] counts = block.counts
        cdef float[:, ::1] uv = block.uv
        cdef float[::1] lo = block.lo
        cdef float[::1] hi = block.hi
        cdef Py_ssize_t stride = block.stride, capacity = block.capacity
        if block.inputs != self.d.inputs:
            raise ValueError(f"a block of {block.inputs} inputs came, {self.d.inputs} were expected")
        if (capacity < 1 or stride % 16 or not self.d.inputs <= stride <= 64 or counts.shape[1] != stride
                or uv.shape[1] != stride or counts.shape[0] < capacity or uv.shape[0] < capacity
                or lo.shape[0] < stride or hi.shape[0] < stride):
            raise ValueError("the block's arrays do not have the shape its capacity, inputs and stride say")
        self.out.counts = &counts[0, 0]
        self.out.uv = &uv[0, 0]
        self.out.lo = &lo[0]
        self.out.hi = &hi[0]
        self.out.capacity = <uint32_t>capacity
        self.out.stride = <uint32_t>stride
        self.keep = (block.counts, block.uv, block.lo, block.hi)
        self.bound = block
        return 0

    def read_into(self, block, limit=None):
        """Appends rows; True when the block is complete (Amplifier.read_into)."""
        cdef int got = 2
        cdef uint32_t i
        if block is not self.bound:
            self._bind(block)
        self.out.limit = <uint64_t>0xFFFFFFFFFFFFFFFF if limit is None else limit
        cdef uint32_t had = block.n
        self.out.n = had
        self.out.first = block.first
        while got == 2:
            with nogil:
                got = ionm1_read(self.d, self.out)
            if had == 0 and (self.out.n or got):
                block.first = block.device_first = self.out.first
                block.lost = self.out.lost
                block.gap = _GAPS[self.out.gap]
                block.session = self.d.session
                block.boot_id = self.d.boot_id
            elif self.out.gap:
                block.gap |= _GAPS[self.out.gap]
            block.n = had = self.out.n
            for i in range(self.out.n_marks):
                mark = _mark(&self.out.marks[i])
                if mark is None:
                    self.unknown_marks += 1
                else:
                    block.marks.append(mark)
        block.fifo_permille = self.d.fifo_permille
        block.stim_state = _STATES.get(self.d.stim_state, StimState.TRIPPED)
        return got == 1

    @property
    def ring_address(self):
        """Address of the transport ring; valid as long as this object lives."""
        return <uintptr_t>self.ring

    @property
    def waiting(self):
        """True when a read may give something."""
        return bool(self.d.left) or not ionm_ring_empty(self.ring)

    @property
    def next_sample(self):
        """Sample that follows the last one parsed; 0 before the first."""
        return self.d.next_sample

    @property
    def clock_pair(self):
        """(sample, device ns, host CLOCK_MONOTONIC ns) of the newest data block; host 0: not known."""
        return self.d.pair_sample, self.d.pair_device_ns, self.d.pair_host_ns

    @property
    def aux(self):
        return self.d.aux

    @property
    def trip_reason(self):
        return self.d.trip_reason

    @property
    def stim_state(self):
        return _STATES.get(self.d.stim_state, StimState.TRIPPED)

    @property
    def fifo_permille(self):
        return self.d.fifo_permille

    def counters(self):
        """Every counter by name, since the decoder was made."""
        c = dict(self.d.n)
        c["unknown_marks"] = self.unknown_marks
        c["ring_transfers"] = self.ring.transfers
        c["ring_lost_transfers"] = self.ring.lost_transfers
        c["ring_lost_bytes"] = self.ring.lost_bytes
        c["ring_high_permille"] = self.ring.high * 1000 // self.ring.size
        return c
