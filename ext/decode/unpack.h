/* SPDX-License-Identifier: Apache-2.0 */
/* int24 samples as a converter sends them -> counts and microvolts, with the extremes for rejection folded in. */
#ifndef IONM_UNPACK_H
#define IONM_UNPACK_H
#include <stdint.h>

enum { IONM_UNPACK_SLACK = 32 };

void ionm_unpack24(const uint8_t *p, uint32_t rows, uint32_t inputs, uint32_t stride, const float *lsb, int32_t *counts,
                   float *uv, int32_t *lo, int32_t *hi);
#endif
