/* Transport ring: whole USB transfers, one producer, one consumer, no lock.
 *
 * In:  ionm_ring_push, called by whoever runs libusb's event handling (one thread at a time: libusb's event lock).
 * Out: ionm_ring_peek / ionm_ring_release, called by the decoder, which reads samples in place.
 * Always: a transfer lies in one piece (a skip record fills the end of the memory); a full ring refuses the newest
 * transfer and counts it, it never waits.  64 readable bytes follow the data so that vector loads may overrun.
 * Shared by ext/usb (producer) and ext/decode (consumer, and producer when bytes come from elsewhere).
 */
#ifndef IONM_RING_H
#define IONM_RING_H

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define IONM_RING_ALIGN 16u
#define IONM_RING_SLACK 64u
#define IONM_RING_SKIP 0xFFFFFFFFu

typedef struct {
    uint32_t len;     /* bytes of the transfer, or IONM_RING_SKIP: go to the start of the memory */
    uint32_t flags;   /* bit 0: the transfer was cancelled and this is what it held */
    uint64_t done_ns; /* CLOCK_MONOTONIC at completion */
} ionm_ring_record;

typedef struct {
    _Alignas(64) _Atomic uint64_t head; /* bytes ever written, records and skips included */
    _Alignas(64) _Atomic uint64_t tail; /* bytes ever released */
    _Alignas(64) uint64_t size;         /* multiple of IONM_RING_ALIGN */
    uint8_t *data;
    _Atomic uint64_t transfers;      /* stored */
    _Atomic uint64_t bytes;          /* stored */
    _Atomic uint64_t lost_transfers; /* refused: the ring was full */
    _Atomic uint64_t lost_bytes;
    _Atomic uint64_t high; /* largest fill seen, bytes */
} ionm_ring;

static inline uint64_t ionm_ring_room(uint32_t len) {
    return sizeof(ionm_ring_record) + (((uint64_t)len + IONM_RING_ALIGN - 1) & ~(uint64_t)(IONM_RING_ALIGN - 1));
}

/* 0 on success.  Every page is touched here, so that streaming never faults one in. */
static inline int ionm_ring_init(ionm_ring *r, uint64_t size) {
    memset(r, 0, sizeof *r);
    r->size = (size + 63) & ~63ull;
    r->data = aligned_alloc(64, r->size + IONM_RING_SLACK);
    if (!r->data) return -1;
    memset(r->data, 0, r->size + IONM_RING_SLACK);
    return 0;
}

static inline void ionm_ring_destroy(ionm_ring *r) {
    free(r->data);
    r->data = NULL;
}

/* Producer.  0 stored, -1 full (counted). */
static inline int ionm_ring_push(ionm_ring *r, const uint8_t *bytes, uint32_t len, uint32_t flags, uint64_t done_ns) {
    uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);
    uint64_t at = head % r->size, to_end = r->size - at, need = ionm_ring_room(len);
    uint64_t skip = to_end < need ? to_end : 0;
    if (head + skip + need - tail > r->size) {
        atomic_fetch_add_explicit(&r->lost_transfers, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&r->lost_bytes, len, memory_order_relaxed);
        return -1;
    }
    if (skip) {
        ionm_ring_record s = {IONM_RING_SKIP, 0, 0};
        memcpy(r->data + at, &s, sizeof s);
        at = 0;
    }
    ionm_ring_record h = {len, flags, done_ns};
    memcpy(r->data + at, &h, sizeof h);
    if (len) memcpy(r->data + at + sizeof h, bytes, len);
    atomic_store_explicit(&r->head, head + skip + need, memory_order_release);
    atomic_fetch_add_explicit(&r->transfers, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&r->bytes, len, memory_order_relaxed);
    uint64_t fill = head + skip + need - tail;
    if (fill > atomic_load_explicit(&r->high, memory_order_relaxed))
        atomic_store_explicit(&r->high, fill, memory_order_relaxed);
    return 0;
}

/* Consumer.  The oldest transfer, or NULL; it stays valid until ionm_ring_release. */
static inline const ionm_ring_record *ionm_ring_peek(ionm_ring *r) {
    for (;;) {
        uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
        if (tail == atomic_load_explicit(&r->head, memory_order_acquire)) return NULL;
        const ionm_ring_record *h = (const ionm_ring_record *)(r->data + tail % r->size);
        if (h->len != IONM_RING_SKIP) return h;
        atomic_store_explicit(&r->tail, tail + (r->size - tail % r->size), memory_order_release);
    }
}

static inline void ionm_ring_release(ionm_ring *r, const ionm_ring_record *h) {
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    atomic_store_explicit(&r->tail, tail + ionm_ring_room(h->len), memory_order_release);
}

static inline int ionm_ring_empty(ionm_ring *r) {
    return atomic_load_explicit(&r->tail, memory_order_relaxed) == atomic_load_explicit(&r->head, memory_order_acquire);
}

#endif
