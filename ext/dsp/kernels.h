// SPDX-License-Identifier: Apache-2.0
// kernels.h -- every compiled kernel of ionmd.dsp; each is described where it is written.
#ifndef IONMD_DSP_KERNELS_H
#define IONMD_DSP_KERNELS_H
#include <stddef.h>
#include <stdint.h>

// iir.c
enum { IIR_MAX_SECTIONS = 16 };
int  iir_f32(const float *x, float *y, size_t rows, size_t stride, const double *coef, int sections, double *state);
int  iir_f64_signal(const double *x, double *y, size_t n, ptrdiff_t step, const double *coef, int sections,
                    double *state);

// sweep.c
void derive(const float *x, float *y, size_t rows, size_t stride_in, size_t stride_out, const int32_t *plus,
            const int32_t *minus);
void sweep_extremes(const float *x, size_t rows, size_t stride, float *lo, float *hi);
void sweep_add(const float *x, size_t rows, size_t stride, const uint8_t *accept, int64_t *count, double *sum,
               double *squares);

// noise.c
void autocovariance(const double *x, size_t n, size_t lags, double *out);

// emg.c
void emg_features(const float *x, size_t rows, size_t stride, const float *threshold, int32_t quiet, size_t phase,
                  float *partial, float *previous, int32_t *gap, double *squares, double *length, float *peak,
                  int32_t *over, int32_t *bursts);
#endif
