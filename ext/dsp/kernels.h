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
enum { SWEEP_CHUNK = 32 };
void derive(const float *x, float *y, size_t rows, size_t stride_in, size_t stride_out, const int32_t *plus,
            const int32_t *minus);
void hold(float *x, size_t rows, size_t stride, const int64_t *spans, size_t count, float *good, int *seen);
void sweep_extremes(const float *x, size_t rows, size_t stride, float *lo, float *hi);
void chunk_extremes(const float *ring, size_t capacity, size_t stride, size_t at, size_t rows, float *lo, float *hi);
void window_extremes(const float *ring, size_t capacity, size_t stride, size_t at, size_t rows, const float *chunk_lo,
                     const float *chunk_hi, float *lo, float *hi);
void sweep_add(const float *x, size_t rows, size_t stride, const uint8_t *accept, int64_t *count, double *sum,
               double *squares);

void sweep_add_many(const float *const *x, size_t many, size_t rows, size_t stride, const uint8_t *accept,
                    int64_t *count, double *sum, double *squares);

// noise.c
void autocovariance(const double *x, size_t n, size_t lags, double *out);
void gaussian_half(double sigma, size_t reach, double *out);
void smooth_symmetric(const double *wide, size_t n, const double *kernel, size_t reach, double *out);

// blend.c
void blend(const double *x, const double *factor, size_t rows, size_t n, double *out);

// beta.c
double beta_fraction(double a, double b, double x);

// shape.c
enum { SHAPE_MOST = 12 };  // coefficients of a fit
void   shape_at(const double *curves, size_t k, size_t length, double first, double step, size_t n, size_t stride,
                double *out);
void   shape_root(const double *row, size_t m, double *root);
size_t shape_scratch(size_t m);
size_t shape_search(const double *curves, size_t k, size_t length, const double *root, const double *y, size_t m,
                    const double *firsts, size_t shifts, double step, double prior, double *best, double *scratch);
void   shape_cover(const double *root, const double *design, size_t m, size_t w, size_t held, double prior, double *cover,
                   double *gain, double *scratch);

// mains.c
enum { MAINS_MOST = 20 };  // harmonics
size_t mains_scratch(size_t harmonics, size_t columns);
size_t mains_fit(const double *x, const uint8_t *use, size_t n, size_t stride, size_t columns, double w,
                 size_t harmonics, double *coef, double *left, double *scratch);
void   mains_subtract(float *sweep, size_t rows, size_t stride, size_t columns, double first, double w, size_t harmonics,
                      const double *coef, double *removed);

// emg.c
void emg_features(const float *x, size_t rows, size_t stride, const float *threshold, int32_t quiet, size_t phase,
                  float *partial, float *previous, int32_t *gap, double *squares, double *length, float *peak,
                  int32_t *over, int32_t *bursts);

// peaks.c
typedef struct {
    double position, value, prominence, curvature, index;
} dsp_peak;
typedef struct {
    double top, before;   // height; lowest value on its left
    size_t index, next;
    double after;         // lowest value on its right
} dsp_summit;
size_t peaks_scratch(size_t columns);
size_t peaks_find(const double *y, size_t lo, size_t hi, double sign, size_t first, size_t last, double least,
                  dsp_peak *out, size_t room, dsp_summit *all);
void peaks_rank(dsp_peak *peak, size_t n);

// match.c
size_t match_scratch(size_t m, size_t lags);
void   match_template(const float *x, size_t channels, size_t n, const float *templates, size_t each, size_t m,
                      float *out, float *scratch);

// welch.c
enum { WELCH_SHORTEST = 64, WELCH_LONGEST = 4096 };
int    welch_twiddles(size_t n, float *out);
size_t welch_scratch(size_t n);
void   welch_segments(const float *x, size_t n, size_t step, size_t count, size_t stride, const float *window,
                      const float *twiddles, float *power, float *scratch);
#endif
