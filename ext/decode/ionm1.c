/* See ionm1.h. */
#include "ionm1.h"

#include "crc32.h"
#include "unpack.h"

#define MAGIC 0x4D4E4F49u
enum { TYPE_DATA = 1, TYPE_STATUS = 4, FORMAT_INT24 = 1, FLAG_OVERFLOW = 1 };

static inline uint16_t u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static inline uint32_t u32(const uint8_t *p) { return (uint32_t)u16(p) | (uint32_t)u16(p + 2) << 16; }
static inline uint64_t u64(const uint8_t *p) { return (uint64_t)u32(p) | (uint64_t)u32(p + 4) << 32; }

int ionm1_init(ionm1_decoder *d, ionm_ring *ring, uint32_t inputs, const float *lsb_uv) {
    if (inputs < 1 || inputs > IONM1_MAX_INPUTS) return -1;
    memset(d, 0, sizeof *d);
    ionm_crc32_init();
    d->ring = ring;
    d->inputs = inputs;
    memcpy(d->lsb_uv, lsb_uv, inputs * sizeof *lsb_uv);
    d->stash = malloc(IONM1_MAX_BLOCK + IONM_RING_SLACK);
    return d->stash ? 0 : -1;
}

void ionm1_destroy(ionm1_decoder *d) {
    free(d->stash);
    d->stash = NULL;
}

void ionm1_begin(ionm1_decoder *d, uint32_t session, uint32_t boot_id) {
    if (d->left) { /* rows of the old session that nobody read are lost, and so is the gap before them */
        d->next_sample = d->sample - d->lost;
        d->n.lost_samples -= d->lost;
        d->n.gaps -= d->lost != 0;
    }
    if (d->stashed && !d->stash_busy) d->n.bad_frames++;
    if (d->rec) ionm_ring_release(d->ring, d->rec);
    d->rec = NULL;
    d->at = NULL;
    d->pos = d->left = d->stashed = d->stash_due = d->pad_due = 0;
    d->stash_busy = d->garbage = 0;
    d->known = d->known && d->boot_id == boot_id;
    if (!d->known) d->n_pending = 0; /* their samples belong to a counter that is gone */
    d->running = 0;
    d->next_seq = 0;
    d->seen = 0;
    d->gap = 0;
    d->lost = 0;
    d->session = session;
    d->boot_id = boot_id;
    d->n.dropped_blocks = 0;
}

/* ---------------------------------------------------------------- marks */

static void keep_mark(ionm1_decoder *d, const uint8_t *p) {
    ionm1_mark m = {u64(p), p[8], p[9], p[10], p[11], u16(p + 12), u16(p + 14), u32(p + 16),
                    (int32_t)u32(p + 20), (int32_t)u32(p + 24), u32(p + 28)};
    d->n.marks++;
    if (d->n_pending == IONM1_PENDING) {
        d->n.marks_lost++;
        return;
    }
    uint32_t i = d->n_pending++;
    for (; i && d->pending[i - 1].sample > m.sample; i--) d->pending[i] = d->pending[i - 1];
    d->pending[i] = m;
}

/* Those before `end`: they belong to the rows given out, or to samples lost before them. */
static void give_marks(ionm1_decoder *d, ionm1_out *out, uint64_t end) {
    uint32_t n = 0;
    while (n < d->n_pending && d->pending[n].sample < end) n++;
    memcpy(out->marks, d->pending, n * sizeof *d->pending);
    memmove(d->pending, d->pending + n, (d->n_pending - n) * sizeof *d->pending);
    d->n_pending -= n;
    out->n_marks = n;
}

/* ---------------------------------------------------------------- framing */

static int good_header(const uint8_t *p) {
    return u32(p) == MAGIC && u16(p + 6) == IONM1_HEADER && u16(p + 32) <= IONM1_MAX_INPUTS &&
           u16(p + 34) <= IONM1_MAX_SAMPLES && u16(p + 44) <= IONM1_MAX_MARKS && ionm_crc32(0, p, 60) == u32(p + 60);
}

static uint32_t block_bytes(const uint8_t *p) {
    return IONM1_HEADER + 3u * u16(p + 32) * u16(p + 34) + IONM1_MARK * (uint32_t)u16(p + 44) + 4u;
}

static void bad_frame(ionm1_decoder *d) {
    if (!d->garbage) d->n.bad_frames++;
    d->garbage = 1;
}

/* 1: this sequence number is new (or too old to say).  Keeps the window of the last 64. */
static int new_seq(ionm1_decoder *d, uint32_t seq) {
    int32_t ahead = (int32_t)(seq - d->next_seq);
    if (ahead >= 0) {
        d->n.seq_holes += (uint32_t)ahead;
        d->seen = ahead >= 63 ? 1 : d->seen << (ahead + 1) | 1;
        d->next_seq = seq + 1;
        return 1;
    }
    uint32_t back = (uint32_t)(-ahead - 1);
    if (back >= 64) return 0;
    if (d->seen >> back & 1) return 0;
    d->seen |= 1ull << back;
    if (d->n.seq_holes) d->n.seq_holes--; /* it was counted as missing and comes late */
    return 1;
}

/* One whole block with a good header.  1: it has rows to give (d->at, left, sample are set). */
static int take_block(ionm1_decoder *d, const uint8_t *p, uint32_t total, uint64_t done_ns) {
    if (p[4] != 1 || ionm_crc32(0, p, total - 4) != u32(p + total - 4)) {
        d->n.bad_frames++;
        return 0;
    }
    uint32_t type = p[5], inputs = u16(p + 32), n = u16(p + 34), n_marks = u16(p + 44);
    uint64_t first = u64(p + 16);
    if (u32(p + 48) != d->boot_id || (type == TYPE_DATA && u32(p + 12) != d->session)) {
        d->n.stale++;
        return 0;
    }
    if (type != TYPE_DATA && type != TYPE_STATUS) {
        d->n.unknown++;
        return 0;
    }
    if (type == TYPE_DATA && (inputs != d->inputs || p[36] != FORMAT_INT24 || first + n < first)) {
        d->n.bad_frames++;
        return 0;
    }
    const uint8_t *marks = p + IONM1_HEADER + 3u * inputs * n;
    if (type == TYPE_STATUS) {
        d->n.status_blocks++;
        for (uint32_t i = 0; i < n_marks; i++) keep_mark(d, marks + IONM1_MARK * i);
        d->stim_state = p[52];
        d->trip_reason = p[53];
        return 0;
    }
    if (!new_seq(d, u32(p + 8))) {
        d->n.duplicates++;
        return 0;
    }
    for (uint32_t i = 0; i < n_marks; i++) keep_mark(d, marks + IONM1_MARK * i);
    uint32_t skip = 0;
    if (d->known && first < d->next_sample) {
        if (first + n <= d->next_sample) {
            if (n) d->n.duplicates++; /* late: its samples were reported lost, and stay so */
            if (n) return 0;
        } else {
            skip = (uint32_t)(d->next_sample - first);
        }
    }
    d->n.blocks++;
    d->fifo_permille = u16(p + 38);
    if (d->fifo_permille > d->n.fifo_high) d->n.fifo_high = d->fifo_permille;
    d->n.dropped_blocks = u32(p + 40);
    d->aux = u16(p + 46);
    d->stim_state = p[52];
    d->trip_reason = p[53];
    if (p[37] & FLAG_OVERFLOW) d->gap |= IONM1_GAP_OVERFLOW;
    if (!n) return 0;
    if (!d->running) d->gap |= IONM1_GAP_SESSION;
    if (d->known && first > d->next_sample) {
        d->gap |= IONM1_GAP_LOST;
        d->lost += first - d->next_sample;
        d->n.lost_samples += first - d->next_sample;
        d->n.gaps++;
    }
    d->running = d->known = 1;
    d->at = p + IONM1_HEADER + 3u * inputs * skip;
    d->left = n - skip;
    d->sample = first + skip;
    d->next_sample = first + n;
    d->pair_sample = first;
    d->pair_device_ns = u64(p + 24);
    d->pair_host_ns = done_ns;
    return 1;
}

/* Puts bytes of this transfer behind what the last one left over.  1: the block is whole. */
static int fill_stash(ionm1_decoder *d, const uint8_t *p, uint32_t avail) {
    for (;;) {
        uint32_t due = d->stash_due ? d->stash_due : IONM1_HEADER;
        uint32_t take = due - d->stashed < avail ? due - d->stashed : avail;
        memcpy(d->stash + d->stashed, p, take);
        d->stashed += take;
        d->pos += take;
        p += take;
        avail -= take;
        if (d->stashed < due) return 0;
        if (d->stash_due) return 1;
        if (!good_header(d->stash)) {
            bad_frame(d);
            d->stashed = 0;
            return 0;
        }
        d->stash_due = block_bytes(d->stash);
    }
}

/* Where the next block may begin at or after p: a whole `IONM`, or a beginning of it at the very end. */
static uint32_t scan(const uint8_t *p, uint32_t n) {
    static const uint8_t magic[4] = {'I', 'O', 'N', 'M'};
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *q = memchr(p + i, 'I', n - i);
        if (!q) return n;
        i = (uint32_t)(q - p);
        if (!memcmp(q, magic, n - i < 4 ? n - i : 4)) return i;
    }
    return n;
}

/* Next block that has rows.  0: the ring is empty. */
static int next_block(ionm1_decoder *d) {
    if (d->stash_busy) d->stash_busy = 0, d->stashed = d->stash_due = 0;
    for (;;) {
        if (!d->rec) {
            d->rec = ionm_ring_peek(d->ring);
            if (!d->rec) return 0;
            d->pos = 0;
            if (d->rec->flags & 1) d->n.cancelled++;
        }
        const uint8_t *p = (const uint8_t *)(d->rec + 1) + d->pos;
        uint32_t avail = d->rec->len - d->pos;
        if (!avail) {
            ionm_ring_release(d->ring, d->rec);
            d->rec = NULL;
            continue;
        }
        if (d->pad_due) {
            d->pad_due = *p ? 0 : d->pad_due - 1;
            if (!*p) {
                d->pos++;
                continue;
            }
        }
        if (d->stashed) {
            /* At the start of a transfer a good header means that the rest of the stashed block never comes. */
            if (d->pos == 0 && avail >= IONM1_HEADER && good_header(p)) {
                d->n.bad_frames++;
                d->stashed = d->stash_due = 0;
            } else {
                if (!fill_stash(d, p, avail)) continue;
                d->garbage = 0;
                d->pad_due = d->stash_due % 512 ? 0 : 4;
                if (take_block(d, d->stash, d->stash_due, d->rec->done_ns)) return d->stash_busy = 1;
                d->stashed = d->stash_due = 0;
                continue;
            }
        }
        if (avail >= IONM1_HEADER && good_header(p)) {
            uint32_t total = block_bytes(p);
            d->garbage = 0;
            if (total > avail) {
                memcpy(d->stash, p, avail);
                d->stashed = avail;
                d->stash_due = total;
                d->pos += avail;
                continue;
            }
            d->pos += total;
            d->pad_due = total % 512 ? 0 : 4;
            if (take_block(d, p, total, d->rec->done_ns)) return 1;
            continue;
        }
        uint32_t skip = scan(p, avail);
        if (skip == 0 && avail < IONM1_HEADER) { /* may be the beginning of a header */
            memcpy(d->stash, p, avail);
            d->stashed = avail;
            d->stash_due = 0;
            d->pos += avail;
            continue;
        }
        bad_frame(d);
        if (skip == 0) skip = 1 + scan(p + 1, avail - 1);
        d->pos += skip;
    }
}

/* ---------------------------------------------------------------- samples */

int ionm1_read(ionm1_decoder *d, ionm1_out *out) {
    _Alignas(64) int32_t lo[IONM1_MAX_INPUTS], hi[IONM1_MAX_INPUTS];
    _Alignas(64) float lsb[IONM1_MAX_INPUTS] = {0};
    const uint32_t rows_before = out->n;
    int complete = 0, again = 0;
    memcpy(lsb, d->lsb_uv, d->inputs * sizeof *lsb);
    for (uint32_t c = 0; c < IONM1_MAX_INPUTS; c++) lo[c] = INT32_MAX, hi[c] = INT32_MIN;
    out->gap = out->n_marks = 0;
    out->lost = 0;
    for (;;) {
        if (out->n >= out->capacity || (out->n && out->first + out->n >= out->limit)) {
            complete = 1;
            break;
        }
        if (!d->left) {
            if (out->n > rows_before && d->n_pending > IONM1_PENDING - IONM1_MAX_MARKS) { /* room for the next block's */
                again = 1;
                break;
            }
            if (!next_block(d)) break;
        }
        if (out->n && (d->gap || d->sample != out->first + out->n)) { /* a block never spans a gap */
            complete = 1;
            break;
        }
        if (!out->n) {
            out->first = d->sample;
            out->gap = d->gap;
            out->lost = d->lost;
            d->gap = 0;
            d->lost = 0;
        }
        if (d->sample >= out->limit) { /* no rows: the gap before this sample swallowed the limit */
            complete = 1;
            break;
        }
        uint64_t take = d->left;
        if (take > out->capacity - out->n) take = out->capacity - out->n;
        if (take > out->limit - d->sample) take = out->limit - d->sample;
        ionm_unpack24(d->at, (uint32_t)take, d->inputs, out->stride, lsb, out->counts + (size_t)out->n * out->stride,
               out->uv + (size_t)out->n * out->stride, lo, hi);
        out->n += (uint32_t)take;
        d->at += take * 3u * d->inputs;
        d->left -= (uint32_t)take;
        d->sample += take;
    }
    if (out->n || complete) give_marks(d, out, out->first + out->n);
    if (out->n == rows_before) return complete;
    d->n.samples += out->n - rows_before;
    for (uint32_t c = 0; c < out->stride; c++) {
        if (c >= d->inputs) {
            out->lo[c] = out->hi[c] = 0.0f;
            continue;
        }
        float low = (float)lo[c] * lsb[c], high = (float)hi[c] * lsb[c];
        out->lo[c] = rows_before && out->lo[c] < low ? out->lo[c] : low;
        out->hi[c] = rows_before && out->hi[c] > high ? out->hi[c] : high;
        if (lo[c] <= -0x800000 || hi[c] >= 0x7FFFFF) out->gap |= IONM1_GAP_CLIPPED;
    }
    return complete ? 1 : again ? 2 : 0;
}
