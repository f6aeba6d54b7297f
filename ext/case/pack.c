/* pack.c -- see pack.h.  One pass per channel: the source of a 5 ms block fits the level 2 cache, so its strided
 * reads are cheap, and the writes are sequential. */
#include "pack.h"

enum { TOP = 8388607, BOTTOM = -8388608 };

static inline void put24(uint8_t *to, int32_t value)
{
    uint32_t bits = (uint32_t)value;
    to[0] = (uint8_t)bits;
    to[1] = (uint8_t)(bits >> 8);
    to[2] = (uint8_t)(bits >> 16);
}

size_t ionmd_pack24(const int32_t *counts, size_t stride, size_t rows, size_t inputs, uint8_t *record,
                    size_t samples_per_record, size_t at)
{
    size_t outside = 0;
    for (size_t c = 0; c < inputs; c++) {
        uint8_t *to = record + (c * samples_per_record + at) * 3;
        const int32_t *from = counts + c;
        for (size_t i = 0; i < rows; i++, to += 3, from += stride) {
            int32_t value = *from;
            if (value > TOP) {
                value = TOP;
                outside++;
            } else if (value < BOTTOM) {
                value = BOTTOM;
                outside++;
            }
            put24(to, value);
        }
    }
    return outside;
}

void ionmd_fill24(const int32_t *row, size_t rows, size_t inputs, uint8_t *record, size_t samples_per_record,
                  size_t at)
{
    for (size_t c = 0; c < inputs; c++) {
        uint8_t *to = record + (c * samples_per_record + at) * 3;
        int32_t value = row[c] > TOP ? TOP : row[c] < BOTTOM ? BOTTOM : row[c];
        for (size_t i = 0; i < rows; i++, to += 3)
            put24(to, value);
    }
}

void ionmd_unpack24(const uint8_t *record, size_t samples_per_record, size_t at, size_t rows, size_t inputs,
                    int32_t *counts, size_t stride)
{
    for (size_t c = 0; c < inputs; c++) {
        const uint8_t *from = record + (c * samples_per_record + at) * 3;
        int32_t *to = counts + c;
        for (size_t i = 0; i < rows; i++, from += 3, to += stride) {
            uint32_t bits = (uint32_t)from[0] << 8 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 24;
            *to = (int32_t)bits >> 8; /* arithmetic on every compiler we build with */
        }
    }
}
