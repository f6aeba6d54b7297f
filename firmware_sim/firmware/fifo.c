/* The FIFO: a ring of records {u32 length, bytes}, each in one piece, because one block is one bulk transfer (DMA).
 *
 * A record that does not fit before the end of the memory starts at 0 again; WRAP says so to the reader.
 * One reservation at a time; what is not committed never existed.
 */
#include <string.h>

#include "ionm.h"
#include "wire.h"

static const uint32_t WRAP = 0xFFFFFFFFu;

static uint32_t record_bytes(uint32_t bytes) { return (4u + bytes + 7u) & ~7u; }

void ionm_fifo_clear(ionm_fifo *f)
{
    f->head = f->tail = f->used = f->records = 0;
}

/* Room for a block of at most `bytes`, or NULL. */
uint8_t *ionm_fifo_reserve(ionm_fifo *f, uint32_t bytes)
{
    const uint32_t need = record_bytes(bytes);
    if (f->records == 0)
        ionm_fifo_clear(f);
    const bool wrapped = f->used > 0 && f->head <= f->tail;
    if (wrapped)
        return f->tail - f->head >= need ? f->memory + f->head + 4 : NULL;
    if (f->size - f->head >= need)
        return f->memory + f->head + 4;
    if (f->records == 0 || f->tail < need)
        return NULL;
    if (f->size - f->head >= 4)
        put_u32(f->memory + f->head, WRAP);
    f->used += f->size - f->head;
    f->head = 0;
    return f->memory + 4;
}

void ionm_fifo_commit(ionm_fifo *f, uint8_t *block, uint32_t bytes)
{
    put_u32(block - 4, bytes);
    f->head = (uint32_t)(block - 4 - f->memory) + record_bytes(bytes);
    f->used += record_bytes(bytes);
    f->records++;
    const uint32_t permille = ionm_fifo_permille(f);
    if (permille > f->high_permille)
        f->high_permille = permille;
}

uint16_t ionm_fifo_permille(const ionm_fifo *f) { return (uint16_t)((uint64_t)f->used * 1000u / f->size); }

static uint32_t first_record(const ionm_fifo *f)
{
    const bool at_end = f->size - f->tail < 4 || get_u32(f->memory + f->tail) == WRAP;
    return at_end ? 0 : f->tail;
}

uint32_t ionm_next_block(const ionm_fw *fw, const uint8_t **block)
{
    const ionm_fifo *f = &fw->fifo;
    if (f->records == 0)
        return 0;
    const uint8_t *record = f->memory + first_record(f);
    *block = record + 4;
    return get_u32(record);
}

void ionm_block_sent(ionm_fw *fw)
{
    ionm_fifo *f = &fw->fifo;
    if (f->records == 0)
        return;
    const uint32_t at = first_record(f);
    if (at != f->tail)
        f->used -= f->size - f->tail;
    const uint32_t bytes = record_bytes(get_u32(f->memory + at));
    f->used -= bytes;
    f->tail = at + bytes;
    f->records--;
}
