/* ionm1 blocks (docs/wire/ionm1.md section 3) -> rows of samples.
 *
 * In:  transfers from a transport ring; a transfer may hold part of a block, one block or several.
 * Out: ionm1_read fills rows of int32 counts and float32 uV, in order, and hands over the marks that belong to them.
 * Always: first_sample is the truth.  Nothing is invented and nothing is given twice: a hole is reported as an exact
 *   count before the next row, samples already given are skipped, a damaged block is dropped and becomes a hole.
 *   One call reads as many transfers as it needs and allocates nothing.
 * A damaged header makes the parser look for the next `IONM` with a good header CRC; a damaged payload under a good
 * header costs just that block.
 */
#ifndef IONM1_DECODE_H
#define IONM1_DECODE_H

#include <stdint.h>

#include "ring.h"

enum {
    IONM1_HEADER = 64,
    IONM1_MARK = 32,
    IONM1_MAX_INPUTS = 64,
    IONM1_MAX_SAMPLES = 4096,
    IONM1_MAX_MARKS = 256,
    IONM1_MAX_BLOCK = IONM1_HEADER + IONM1_MAX_SAMPLES * IONM1_MAX_INPUTS * 3 + IONM1_MAX_MARKS * IONM1_MARK + 4,
    IONM1_PENDING = 1024, /* marks waiting for their sample */
};

enum { IONM1_GAP_LOST = 1, IONM1_GAP_CLIPPED = 2, IONM1_GAP_OVERFLOW = 4, IONM1_GAP_SESSION = 16 }; /* model.Gap */

typedef struct {
    uint64_t sample;
    uint8_t kind, output, slot, flags;
    uint16_t pulse, width_us;
    uint32_t nonce;
    int32_t set, delivered;
    uint32_t value;
} ionm1_mark;

typedef struct {
    uint64_t blocks;        /* accepted */
    uint64_t status_blocks; /* of type 4 */
    uint64_t samples;       /* given out */
    uint64_t lost_samples;
    uint64_t gaps;
    uint64_t duplicates; /* blocks whose samples were known already */
    uint64_t bad_frames; /* a stretch of bytes that is no block, a wrong CRC, a truncated block, wrong inputs */
    uint64_t stale;      /* another session or another boot */
    uint64_t seq_holes;  /* blocks missing by their sequence number */
    uint64_t unknown;    /* good blocks of a type this version does not know */
    uint64_t marks;
    uint64_t marks_lost; /* no room among the waiting marks */
    uint64_t cancelled;  /* transfers cut short by a cancel; their bytes were used */
    uint32_t dropped_blocks; /* the device's own count, this session */
    uint32_t fifo_high;      /* permille */
} ionm1_counters;

typedef struct {
    ionm_ring *ring;
    uint32_t inputs;
    float lsb_uv[IONM1_MAX_INPUTS];
    /* stream position */
    uint32_t session, boot_id;
    int running;         /* a sample of this session has been seen */
    int known;           /* next_sample is valid, from this session or an earlier one of the same boot */
    uint64_t next_sample;
    uint32_t next_seq;
    uint64_t seen; /* bit k: sequence number next_seq - 1 - k has come */
    /* what precedes the next row */
    uint32_t gap;
    uint64_t lost;
    /* the block being given out */
    const uint8_t *at;
    uint32_t left;
    uint64_t sample; /* of the row at `at` */
    uint32_t fifo_permille, stim_state, trip_reason, aux;
    /* the transfer being parsed */
    const ionm_ring_record *rec;
    uint32_t pos;
    uint32_t pad_due; /* zero bytes that may follow a block of a multiple of 512 */
    int garbage;      /* inside a stretch of garbage that has been counted */
    uint32_t stashed; /* start of a block whose rest is in the next transfer */
    uint32_t stash_due; /* its whole length; 0: header not complete */
    uint8_t *stash;     /* IONM1_MAX_BLOCK + slack; NULL until needed */
    int stash_busy;     /* `at` points into the stash */
    /* clock pair of the newest block */
    uint64_t pair_sample, pair_device_ns, pair_host_ns;
    uint32_t n_pending;
    ionm1_mark pending[IONM1_PENDING];
    ionm1_counters n;
} ionm1_decoder;

typedef struct {
    int32_t *counts; /* [capacity, stride] */
    float *uv;       /* [capacity, stride] */
    float *lo, *hi;  /* [stride] */
    uint32_t capacity, stride;
    uint64_t limit;        /* rows have samples below this */
    uint32_t n;            /* in: rows already there; out: rows now */
    uint64_t first;        /* sample of row 0: in when n, out when it was 0 (of the next row when it stays 0) */
    uint64_t lost;         /* out: to add; samples missing before row 0 */
    uint32_t gap;          /* out: IONM1_GAP_ bits to add */
    uint32_t n_marks;      /* out: to append */
    ionm1_mark marks[IONM1_PENDING]; /* out */
} ionm1_out;

int ionm1_init(ionm1_decoder *d, ionm_ring *ring, uint32_t inputs, const float *lsb_uv);
void ionm1_destroy(ionm1_decoder *d);
/* A new stream session: what is left of the old one is stale.  With the same boot_id the sample counter went on. */
void ionm1_begin(ionm1_decoder *d, uint32_t session, uint32_t boot_id);
/* Appends rows.  1: complete (full, limit reached, or a gap follows; without rows: the next sample lies at or past the
 * limit, `gap` says why).  0: more must arrive.  2: call again at once, the marks did not fit. */
int ionm1_read(ionm1_decoder *d, ionm1_out *out);

#endif
