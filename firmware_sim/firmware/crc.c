/* CRC-32, polynomial 0xEDB88320 reflected, slicing by 8: eight bytes a step from eight 1 KiB tables.
 *
 * The tables are filled once by ionm_crc_init (8 KiB of RAM; a part with a CRC unit replaces this file).
 * Always the same bytes on either byte order: words are put together by shifts.
 */
#include "crc.h"

#include "wire.h"

static uint32_t table[8][256];

void ionm_crc_init(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = (c >> 1) ^ ((c & 1u) ? 0xEDB88320u : 0u);
        table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 0xFFu];
}

uint32_t ionm_crc32(uint32_t crc, const uint8_t *p, size_t n)
{
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        const uint32_t a = get_u32(p) ^ crc, b = get_u32(p + 4);
        crc = table[7][a & 0xFFu] ^ table[6][(a >> 8) & 0xFFu] ^ table[5][(a >> 16) & 0xFFu] ^ table[4][a >> 24]
            ^ table[3][b & 0xFFu] ^ table[2][(b >> 8) & 0xFFu] ^ table[1][(b >> 16) & 0xFFu] ^ table[0][b >> 24];
    }
    for (; n > 0; n--, p++)
        crc = (crc >> 8) ^ table[0][(crc ^ *p) & 0xFFu];
    return ~crc;
}
