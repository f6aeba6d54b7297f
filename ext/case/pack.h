/* pack.h -- counts <-> BDF data records.
 *
 * counts   int32[rows, stride]     `[sample, input]`, the layout of a Block; columns 0..inputs are used
 * record   one BDF data record:    channel-major; channel c holds samples_per_record 24-bit little-endian
 *                                  two's-complement values from byte c * samples_per_record * 3
 * at       sample inside the record of counts' row 0; at + rows <= samples_per_record
 * Shapes are checked in _pack.pyx; nothing here allocates.
 */
#ifndef IONMD_CASE_PACK_H
#define IONMD_CASE_PACK_H

#include <stddef.h>
#include <stdint.h>

/* Returns how many values did not fit into 24 bits; those are written as the nearest end stop. */
size_t ionmd_pack24(const int32_t *counts, size_t stride, size_t rows, size_t inputs, uint8_t *record,
                    size_t samples_per_record, size_t at);

/* Repeats row[0..inputs] `rows` times: the padding of gaps and of a last, incomplete record. */
void ionmd_fill24(const int32_t *row, size_t rows, size_t inputs, uint8_t *record, size_t samples_per_record,
                  size_t at);

/* The inverse of pack: `rows` samples of the record from `at` on, into counts rows 0..rows. */
void ionmd_unpack24(const uint8_t *record, size_t samples_per_record, size_t at, size_t rows, size_t inputs,
                    int32_t *counts, size_t stride);

#endif
