// SPDX-License-Identifier: Apache-2.0
// blend.c -- rows of one block of curves added to another, each by its own factor.
//   x       in       double[rows][n]
//   factor  in       double[rows]     a row whose factor is 0 is not looked at, so it may hold nan
//   out     in, out  double[rows][n]
#include "lanes.h"
#include "kernels.h"

DSP_CLONES
void blend(const double *x, const double *factor, size_t rows, size_t n, double *out) {
    for (size_t r = 0; r < rows; r++, x += n, out += n) {
        const double f = factor[r];
        if (f == 0.0) continue;
        for (size_t i = 0; i < n; i++) out[i] += f * x[i];
    }
}
