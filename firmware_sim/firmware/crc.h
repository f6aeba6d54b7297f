/* CRC-32 as zlib computes it.  `crc` is 0 at the start and the value so far when continued. */
#ifndef IONM_CRC_H
#define IONM_CRC_H
#include <stddef.h>
#include <stdint.h>

void ionm_crc_init(void);
uint32_t ionm_crc32(uint32_t crc, const uint8_t *bytes, size_t length);

#endif
