/* Marks wait here until a block takes them; snaps remember state changes that the framing has not reached yet.
 *
 * Marks are kept sorted by sample, so a block takes a prefix.  While streaming a full store is a trip: a pulse that
 * nobody will hear of must not be followed by another.  While not streaming the oldest goes and a mark says so.
 */
#include <string.h>

#include "ionm.h"
#include "wire.h"

static void insert(ionm_framing *f, const ionm_mark *mark)
{
    uint16_t at = f->marks;
    while (at > 0 && f->mark[at - 1].sample > mark->sample)
        at--;
    memmove(&f->mark[at + 1], &f->mark[at], (size_t)(f->marks - at) * sizeof f->mark[0]);
    f->mark[at] = *mark;
    f->marks++;
}

void ionm_mark_add(ionm_fw *fw, const ionm_mark *mark)
{
    ionm_framing *f = &fw->frame;
    if (f->marks < IONM_MARKS - 1) {
        insert(f, mark);
        return;
    }
    ionm_mark lost = {.sample = mark->sample, .kind = IONM_MARK_STIM_STATE};
    if (!f->streaming) {
        memmove(&f->mark[0], &f->mark[1], (size_t)(f->marks - 1) * sizeof f->mark[0]);
        f->marks--;
        lost.sample = f->mark[0].sample;
        lost.value = fw->stim.state | (uint32_t)IONM_MARKS_LOST << 8;
        f->mark[0] = lost;
        insert(f, mark);
    } else if (!f->marks_lost) {
        f->marks_lost = true; /* first: tripping makes marks of its own, which no longer fit */
        ionm_stim_trip(fw, IONM_MARKS_LOST, mark->sample);
        lost.value = IONM_TRIPPED | (uint32_t)IONM_MARKS_LOST << 8;
        insert(f, &lost);
    }
}

static void encode(const ionm_mark *m, uint8_t *p)
{
    put_u64(p, m->sample);
    p[8] = m->kind;
    p[9] = m->output;
    p[10] = m->slot;
    p[11] = m->flags;
    put_u16(p + 12, m->pulse);
    put_u16(p + 14, m->width_us);
    put_u32(p + 16, m->nonce);
    put_u32(p + 20, (uint32_t)m->set);
    put_u32(p + 24, (uint32_t)m->delivered);
    put_u32(p + 28, m->value);
}

/* Moves the marks of samples < `before`, at most `room`, into `out`. */
uint16_t ionm_marks_take(ionm_fw *fw, uint64_t before, uint16_t room, uint8_t *out)
{
    ionm_framing *f = &fw->frame;
    uint16_t n = 0;
    while (n < f->marks && n < room && f->mark[n].sample < before) {
        encode(&f->mark[n], out + IONM_MARK_BYTES * (size_t)n);
        n++;
    }
    if (n > 0) {
        f->marks = (uint16_t)(f->marks - n);
        memmove(&f->mark[0], &f->mark[n], f->marks * sizeof f->mark[0]);
        f->marks_lost = false;
    }
    return n;
}

/* State, trip, lines and mode as they are now, in force from `sample` on. */
void ionm_snap_add(ionm_fw *fw, uint64_t sample)
{
    ionm_framing *f = &fw->frame;
    const ionm_snap snap = {sample, fw->stim.state, fw->stim.trip, fw->aux, fw->impedance.active};
    if (f->snaps == IONM_SNAPS) {
        f->now = f->snap[0];
        memmove(&f->snap[0], &f->snap[1], (IONM_SNAPS - 1) * sizeof f->snap[0]);
        f->snaps--;
    }
    f->snap[f->snaps++] = snap;
}

/* `now` becomes what was in force at `sample`. */
void ionm_snaps_reach(ionm_fw *fw, uint64_t sample)
{
    ionm_framing *f = &fw->frame;
    uint8_t n = 0;
    while (n < f->snaps && f->snap[n].sample <= sample)
        n++;
    if (n == 0)
        return;
    f->now = f->snap[n - 1];
    f->snaps = (uint8_t)(f->snaps - n);
    memmove(&f->snap[0], &f->snap[n], f->snaps * sizeof f->snap[0]);
}

uint8_t ionm_reported_state(const ionm_fw *fw, uint8_t state) { return fw->lie_state ? (uint8_t)IONM_SAFE : state; }
