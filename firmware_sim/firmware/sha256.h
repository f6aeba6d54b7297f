/* SHA-256 of one short text in memory (FIPS 180-4). */
#ifndef IONM_SHA256_H
#define IONM_SHA256_H
#include <stddef.h>
#include <stdint.h>

void ionm_sha256(const uint8_t *bytes, size_t length, uint8_t digest[32]);

#endif
