/* CRC-32 of zlib: polynomial 0xEDB88320, initial and final XOR 0xFFFFFFFF; `crc` 0 starts, a result continues. */
#ifndef IONM_CRC32_H
#define IONM_CRC32_H
#include <stddef.h>
#include <stdint.h>

void ionm_crc32_init(void);
uint32_t ionm_crc32(uint32_t crc, const uint8_t *p, size_t n);
uint32_t ionm_crc32_portable(uint32_t crc, const uint8_t *p, size_t n); /* the same without vector instructions */
int ionm_crc32_vector(void);                                            /* 1: the vector path is in use */
#endif
