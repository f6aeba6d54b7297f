/* Samples and marks -> blocks (docs/wire/ionm1.md section 3), written straight into the FIFO.
 *
 * A block is begun by its first sample and reserved whole; if there is no room then, all of it is dropped: the newest
 * goes, its seq is used up, its marks wait for the next block.  The CRCs are computed once, when it closes.
 */
#include "crc.h"
#include "ionm.h"
#include "wire.h"

enum { MAGIC = 0x4D4E4F49, STATUS_MS = 100 };

uint32_t ionm_block_bytes(const ionm_fw *fw, uint32_t samples, uint32_t marks)
{
    const uint32_t bytes = IONM_HEADER_BYTES + samples * fw->config.inputs * 3u + marks * IONM_MARK_BYTES + 4u;
    return bytes + 4u; /* the pad that keeps a transfer short */
}

static uint8_t *reserve(ionm_fw *fw, uint32_t samples, uint16_t *room)
{
    const uint16_t tries[3] = {IONM_MARKS, fw->frame.marks, 0};
    for (int i = 0; i < 3; i++) {
        uint8_t *block = ionm_fifo_reserve(&fw->fifo, ionm_block_bytes(fw, samples, tries[i]));
        *room = tries[i];
        if (block)
            return block;
    }
    return NULL;
}

static void begin(ionm_fw *fw)
{
    ionm_framing *f = &fw->frame;
    f->block = reserve(fw, fw->config.block_samples, &f->room);
    f->open = true;
    f->dropping = f->block == NULL;
    f->saturated = false;
    f->first = fw->acq_sample;
    f->n = 0;
}

static void finish(ionm_fw *fw, uint8_t *p, uint8_t type, uint64_t first, uint16_t n, uint16_t room)
{
    ionm_framing *f = &fw->frame;
    const uint32_t samples_bytes = (uint32_t)n * fw->config.inputs * 3u;
    uint32_t at = IONM_HEADER_BYTES + samples_bytes;
    ionm_snaps_reach(fw, n > 0 ? first + n - 1 : first);
    const uint16_t marks = ionm_marks_take(fw, first + n, room, p + at);
    const uint32_t rate = fw->config.rate_hz;
    at += marks * (uint32_t)IONM_MARK_BYTES;

    put_u32(p, MAGIC);
    p[4] = 1;
    p[5] = type;
    put_u16(p + 6, IONM_HEADER_BYTES);
    put_u32(p + 8, f->seq++);
    put_u32(p + 12, f->session);
    put_u64(p + 16, first);
    put_u64(p + 24, first / rate * 1000000000u + first % rate * 1000000000u / rate);
    put_u16(p + 32, fw->config.inputs);
    put_u16(p + 34, n);
    p[36] = 1;
    p[37] = (uint8_t)((f->overflowed ? IONM_FLAG_OVERFLOW : 0) | (n > 0 && f->saturated ? IONM_FLAG_SATURATED : 0)
        | (f->now.impedance ? IONM_FLAG_IMPEDANCE : 0));
    put_u16(p + 38, ionm_fifo_permille(&fw->fifo));
    put_u32(p + 40, f->dropped);
    put_u16(p + 44, marks);
    put_u16(p + 46, f->now.aux);
    put_u32(p + 48, fw->boot_id);
    p[52] = ionm_reported_state(fw, f->now.state);
    p[53] = f->now.trip;
    put_u16(p + 54, 0);
    put_u32(p + 56, fw->config.crc);
    put_u32(p + 60, ionm_crc32(0, p, 60));
    put_u32(p + at, ionm_crc32(0, p, at));
    at += 4;
    if (at % 512 == 0) {
        put_u32(p + at, 0);
        at += 4;
    }
    f->overflowed = false;
    ionm_fifo_commit(&fw->fifo, p, at);
}

static void close_block(ionm_fw *fw)
{
    ionm_framing *f = &fw->frame;
    f->open = false;
    if (!f->dropping) {
        finish(fw, f->block, IONM_BLOCK_DATA, f->first, f->n, f->room);
        return;
    }
    f->dropping = false;
    f->overflowed = true;
    f->dropped++;
    f->seq++;
}

/* Only into an empty FIFO: old status is no status. */
static void status_if_due(ionm_fw *fw)
{
    ionm_framing *f = &fw->frame;
    if (fw->acq_sample < f->next_status)
        return;
    f->next_status = fw->acq_sample + ionm_samples_ms(fw, STATUS_MS);
    if (!fw->pipe_open || fw->fifo.records > 0)
        return;
    uint16_t room;
    uint8_t *block = reserve(fw, 0, &room);
    if (block)
        finish(fw, block, IONM_BLOCK_STATUS, fw->acq_sample, 0, room);
}

void ionm_stream_start(ionm_fw *fw, uint32_t session)
{
    ionm_framing *f = &fw->frame;
    ionm_fifo_clear(&fw->fifo);
    fw->fifo.high_permille = 0;
    uint16_t old = 0;
    while (old < f->marks && f->mark[old].sample < fw->acq_sample)
        old++;
    for (uint16_t i = old; i < f->marks; i++)
        f->mark[i - old] = f->mark[i];
    f->marks = (uint16_t)(f->marks - old);
    f->marks_lost = f->overflowed = f->open = f->dropping = false;
    f->session = session;
    f->seq = f->dropped = 0;
    f->streaming = true;
}

/* What was begun is never sent. */
void ionm_stream_stop(ionm_fw *fw)
{
    ionm_framing *f = &fw->frame;
    f->streaming = f->open = f->dropping = false;
    f->next_status = fw->acq_sample + ionm_samples_ms(fw, STATUS_MS);
}

void ionm_acq_sample(ionm_fw *fw, const int32_t *counts)
{
    ionm_framing *f = &fw->frame;
    if (!f->streaming) {
        fw->acq_sample++;
        status_if_due(fw);
        return;
    }
    if (!f->open)
        begin(fw);
    if (!f->dropping) {
        const uint16_t inputs = fw->config.inputs;
        uint8_t *p = f->block + IONM_HEADER_BYTES + (uint32_t)f->n * inputs * 3u;
        unsigned at_end_stop = 0;
        for (uint16_t i = 0; i < inputs; i++, p += 3) {
            int32_t v = counts[i];
            v = v > IONM_COUNT_MAX ? IONM_COUNT_MAX : v;
            v = v < IONM_COUNT_MIN ? IONM_COUNT_MIN : v;
            at_end_stop |= (unsigned)(v == IONM_COUNT_MAX) | (unsigned)(v == IONM_COUNT_MIN);
            const uint32_t u = (uint32_t)v;
            p[0] = (uint8_t)u;
            p[1] = (uint8_t)(u >> 8);
            p[2] = (uint8_t)(u >> 16);
        }
        f->saturated |= at_end_stop != 0;
    }
    f->n++;
    fw->acq_sample++;
    if (f->n == fw->config.block_samples)
        close_block(fw);
}

/* The converter missed samples, or nothing is plugged in: the counter goes on.  A begun block ends short. */
void ionm_acq_lost(ionm_fw *fw, uint64_t samples)
{
    ionm_framing *f = &fw->frame;
    if (samples == 0)
        return;
    if (f->open)
        close_block(fw);
    const uint64_t end = fw->acq_sample + samples;
    while (!f->streaming && f->next_status <= end) {
        if (f->next_status > fw->acq_sample)
            fw->acq_sample = f->next_status;
        status_if_due(fw);
    }
    fw->acq_sample = end;
}

/* Would `samples` more samples be taken without a block being dropped? */
bool ionm_has_room(const ionm_fw *fw, uint64_t samples)
{
    const ionm_framing *f = &fw->frame;
    const uint64_t block = ionm_block_bytes(fw, fw->config.block_samples, 0) + 12u;
    const uint64_t blocks = samples / fw->config.block_samples + 2u; /* the open one, and a partial one */
    const uint64_t marks = (f->marks + 64u) * (uint64_t)IONM_MARK_BYTES;
    const uint64_t need = blocks * block + marks + block + IONM_MARKS * (uint64_t)IONM_MARK_BYTES;
    return fw->fifo.used + need <= fw->fifo.size;
}
