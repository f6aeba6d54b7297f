// SPDX-License-Identifier: Apache-2.0
// kernels_check.c -- the kernels without an interpreter: one hash for every machine, and work to count.
//
//   kernels_check hash            one line per kernel: name and FNV-1a 64 of everything it wrote
//   kernels_check count NAME N    runs NAME n times on a W2 block (64 columns, 40 rows), for callgrind; prints the
//                                 channel-samples of one run
// Inputs come from a linear congruential generator and exact arithmetic, so that they are the same everywhere.  No nan is
// hashed: its bits are the processor's own.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "unpack.h"

static uint64_t seed = 1;
static uint32_t draw(void) { return (uint32_t)((seed = seed * 6364136223846793005ull + 1442695040888963407ull) >> 33); }
static float draw_uv(void) { return (float)((int32_t)(draw() % 2001) - 1000) * 0.0625f; }

static void *room(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!p) exit(3);
    memset(p, 0, bytes);
    return p;
}
#define ROOM(TYPE, N) ((TYPE *)room((N) * sizeof(TYPE)))

static float *signal_rows(size_t rows, size_t stride, size_t columns) {
    float *x = ROOM(float, rows * stride);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++) x[r * stride + c] = draw_uv() + 1000.0f;
    return x;
}

static uint64_t hash;
static void take(const void *p, size_t bytes) {
    const uint8_t *b = p;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ b[i]) * 1099511628211ull;
}
static void begin(void) { hash = 14695981039346656037ull, seed = 1; }
static void say(const char *name) { printf("%-16s %016llx\n", name, (unsigned long long)hash); }

// a stable section: poles at radius 0.9 to 0.99
static void sections(double *coef, int count) {
    for (int s = 0; s < count; s++) {
        const double r = 0.9 + 0.09 * s / count, k[5] = {0.25, s % 2 ? -0.5 : 0.5, 0.25, -1.8 * r, r * r};
        memcpy(coef + 5 * s, k, sizeof k);
    }
}

static void hash_unpack(void) {
    begin();
    for (uint32_t inputs = 1; inputs <= 64; inputs += inputs < 20 ? 1 : 11) {
        const uint32_t rows = 37, stride = (inputs + 15) / 16 * 16;
        uint8_t *raw = ROOM(uint8_t, 3 * rows * inputs + IONM_UNPACK_SLACK);
        for (size_t i = 0; i < 3u * rows * inputs + IONM_UNPACK_SLACK; i++) raw[i] = (uint8_t)draw();
        float *uv = ROOM(float, rows * stride), lsb[64] = {0};
        int32_t *counts = ROOM(int32_t, rows * stride), lo[64], hi[64];
        for (uint32_t c = 0; c < 64; c++) lsb[c] = c < inputs ? 0.0223517f + (float)c * 0.001f : 0, lo[c] = 0, hi[c] = 0;
        ionm_unpack24(raw, rows, inputs, stride, lsb, counts, uv, lo, hi);
        take(counts, rows * stride * 4);
        take(uv, rows * stride * 4);
        take(lo, sizeof lo);
        take(hi, sizeof hi);
        free(raw), free(uv), free(counts);
    }
    say("unpack");
}

static void hash_iir(void) {
    begin();
    for (int count = 0; count <= IIR_MAX_SECTIONS; count++)
        for (size_t stride = 16; stride <= 64; stride += 48) {
            double coef[5 * IIR_MAX_SECTIONS] = {0}, *state = ROOM(double, 2 * IIR_MAX_SECTIONS * stride);
            float *x = signal_rows(200, stride, stride - 3), *y = ROOM(float, 200 * stride);
            sections(coef, count);
            for (size_t at = 0, n = 1; at < 200; at += n, n = 3 * n < 200 - at ? 3 * n : 200 - at)
                iir_f32(x + at * stride, y + at * stride, n, stride, coef, count, state);
            take(y, 200 * stride * 4);
            take(state, (size_t)(2 * count) * stride * 8);
            free(x), free(y), free(state);
        }
    double coef[25], state[10] = {0}, x[300], y[300];
    sections(coef, 5);
    for (size_t i = 0; i < 300; i++) x[i] = draw_uv();
    iir_f64_signal(x, y, 300, 1, coef, 5, state);
    iir_f64_signal(y + 299, y + 299, 300, -1, coef, 5, state);
    take(y, sizeof y);
    say("iir");
}

static void hash_sweep(void) {
    begin();
    for (size_t stride = 16; stride <= 64; stride += 16) {
        const size_t rows = 96;
        float *x = signal_rows(rows, stride, stride - 5), lo[64], hi[64], *tables = ROOM(float, 6 * stride);
        double *sum = ROOM(double, 2 * rows * stride), *squares = ROOM(double, rows * stride);
        int64_t count[128] = {0};
        uint8_t accept[64];
        for (int sweep = 0; sweep < 7; sweep++) {
            for (size_t c = 0; c < stride; c++) accept[c] = sweep < 3 || draw() % 4 != 0;
            sweep_add(x, rows, stride, accept, count, sum, sweep % 2 ? squares : NULL);
        }
        take(sum, 2 * rows * stride * 8);
        take(squares, rows * stride * 8);
        take(count, 2 * stride * 8);
        const float *eight[8];
        uint8_t all[8 * 64];
        memset(all, 1, sizeof all);
        for (size_t k = 0; k < 8; k++) eight[k] = x;
        memset(count, 0, sizeof count);
        sweep_add_many(eight, 7, rows, stride, all, count, sum, NULL);
        all[3 * stride + 1] = 0;
        sweep_add_many(eight, 8, rows, stride, all, count, sum, NULL);
        take(sum, 2 * rows * stride * 8);
        take(count, 2 * stride * 8);
        sweep_extremes(x, rows, stride, lo, hi);
        take(lo, stride * 4), take(hi, stride * 4);
        chunk_extremes(x, rows, stride, 40, 90, tables, tables + 3 * stride);
        window_extremes(x, rows, stride, 40, 90, tables, tables + 3 * stride, lo, hi);
        take(lo, stride * 4), take(hi, stride * 4);
        int32_t plus[64], minus[64];
        for (size_t c = 0; c < stride; c++) plus[c] = (int32_t)(draw() % (stride + 1)), minus[c] = (int32_t)(draw() % (stride + 1));
        float *y = ROOM(float, rows * stride), good[64] = {0};
        derive(x, y, rows, stride, stride, plus, minus);
        const int64_t spans[4] = {-3, 2, 50, 60};
        int seen = 0;
        hold(y, rows, stride, spans, 2, good, &seen);
        take(y, rows * stride * 4);
        free(x), free(y), free(sum), free(squares), free(tables);
    }
    say("sweep");
}

static void hash_emg(void) {
    begin();
    const size_t stride = 32, rows = 333;
    float *x = signal_rows(rows, stride, 30), threshold[32], partial[64] = {0}, previous[32] = {0}, peak[32] = {0};
    int32_t gap[32] = {0}, over[32] = {0}, bursts[32] = {0};
    double squares[32] = {0}, length[32] = {0};
    for (size_t c = 0; c < stride; c++) threshold[c] = c == 3 ? 1055.0f : 1061.0f;
    for (size_t at = 0; at < rows; at += 37)
        emg_features(x + at * stride, 37, stride, threshold, 5, at, partial, previous, gap, squares, length, peak, over, bursts);
    take(partial, sizeof partial), take(previous, sizeof previous), take(gap, sizeof gap), take(squares, sizeof squares);
    take(length, sizeof length), take(peak, sizeof peak), take(over, sizeof over), take(bursts, sizeof bursts);
    free(x);
    say("emg");
}

static void hash_curves(void) {
    begin();
    double y[900];
    for (size_t i = 0; i < 900; i++) y[i] = draw() % 6 ? draw_uv() : (i ? y[i - 1] : 0.0);
    dsp_peak out[600];
    dsp_summit *all = ROOM(dsp_summit, peaks_scratch(880));
    for (int sign = -1; sign <= 1; sign += 2) {
        const size_t n = peaks_find(y, 10, 890, sign, 20, 870, 3.0, out, 600, all);
        take(out, n * sizeof *out);
    }
    say("peaks");
    begin();
    double r[90];
    autocovariance(y, 900, 90, r);
    take(r, sizeof r);
    say("autocovariance");
    begin();
    const size_t k = 5, m = 70, w = 7;
    double *shapes = ROOM(double, k * 180), *root = ROOM(double, m * m), *scratch = ROOM(double, shape_scratch(m));
    double *design = ROOM(double, m * w), *gain = ROOM(double, w * m), best[SHAPE_MOST], cover[SHAPE_MOST * SHAPE_MOST];
    const double firsts[3] = {20.25, 30.5, 40.125};
    for (size_t i = 0; i < k * 180; i++) shapes[i] = draw_uv() / 64.0;
    for (size_t i = 0; i < m * w; i++) design[i] = draw_uv();
    r[0] *= 1.5;  // positive, for certain
    shape_root(r, m, root);
    for (size_t i = 0; i < SHAPE_MOST; i++) best[i] = 0.0;
    const double index = (double)shape_search(shapes, k, 180, root, y, m, firsts, 3, 1.5, 2.0, best, scratch);
    shape_cover(root, design, m, w, k - 1, 2.0, cover, gain, scratch);
    take(&index, 8), take(root, m * m * 8), take(best, (k + 1) * 8), take(cover, w * w * 8), take(gain, w * m * 8);
    free(shapes), free(root), free(scratch), free(design), free(gain);
    say("shape");
    begin();
    double z[900] = {0};
    const double factor[3] = {0.5, 0.0, -1.5}, fraction = beta_fraction(2.5, 7.25, 0.125);
    blend(y, factor, 3, 300, z);
    take(z, sizeof z), take(&fraction, 8);
    say("blend");
    begin();
    for (size_t m = 2; m < 60; m += 19) {
        const size_t channels = 11, n = 150, lags = n - m + 1;
        float *x = ROOM(float, channels * n), *t = ROOM(float, channels * m), *r = ROOM(float, channels * lags);
        float *scratch = ROOM(float, match_scratch(m, lags));
        for (size_t i = 0; i < channels * n; i++) x[i] = draw_uv();
        for (size_t i = 0; i < channels * m; i++) t[i] = draw_uv() / 64.0f;
        for (size_t each = 0; each < 2; each++) {
            match_template(x, channels, n, t, each, m, r, scratch);
            take(r, channels * lags * 4);
        }
        free(x), free(t), free(r), free(scratch);
    }
    say("match");
    begin();
    for (size_t n = WELCH_SHORTEST; n <= WELCH_LONGEST; n *= 2) {
        const size_t stride = 32;
        float *x = signal_rows(2 * n, stride, 30), *twiddles = ROOM(float, 2 * n), *window = ROOM(float, n);
        float *power = ROOM(float, (n / 2 + 1) * stride), *scratch = ROOM(float, welch_scratch(n));
        welch_twiddles(n, twiddles);
        for (size_t i = 0; i < n; i++) window[i] = 0.5f - 0.5f * twiddles[2 * i];
        welch_segments(x, n, n / 2, 3, stride, window, twiddles, power, scratch);
        take(twiddles, 2 * n * 4);
        take(power, (n / 2 + 1) * stride * 4);
        free(x), free(twiddles), free(window), free(power), free(scratch);
    }
    say("welch");
}

// ---------------------------------------------------------------- work to count

enum { ROWS = 40, COLUMNS = 64, CURVE = 720, TEMPLATE = 400, SEGMENT = 1024 };

static long count(const char *name, long runs) {
    float *x = signal_rows(ROWS, COLUMNS, COLUMNS), *y = ROOM(float, ROWS * COLUMNS), lo[COLUMNS], hi[COLUMNS];
    if (!strcmp(name, "unpack")) {
        uint8_t *raw = ROOM(uint8_t, 3 * ROWS * COLUMNS + IONM_UNPACK_SLACK);
        int32_t *counts = ROOM(int32_t, ROWS * COLUMNS), low[COLUMNS] = {0}, high[COLUMNS] = {0};
        while (runs--) ionm_unpack24(raw, ROWS, COLUMNS, COLUMNS, lo, counts, y, low, high);
        return ROWS * COLUMNS;
    }
    if (!strcmp(name, "iir")) {
        double coef[25], *state = ROOM(double, 10 * COLUMNS);
        sections(coef, 5);
        while (runs--) iir_f32(x, y, ROWS, COLUMNS, coef, 5, state);
        return ROWS * COLUMNS;
    }
    if (!strcmp(name, "extremes")) {
        while (runs--) sweep_extremes(x, ROWS, COLUMNS, lo, hi);
        return ROWS * COLUMNS;
    }
    if (!strcmp(name, "sweep_add")) {
        double *sum = ROOM(double, 2 * ROWS * COLUMNS);
        int64_t n[2 * COLUMNS] = {0};
        uint8_t accept[COLUMNS];
        memset(accept, 1, sizeof accept);
        while (runs--) sweep_add(x, ROWS, COLUMNS, accept, n, sum, NULL);
        return ROWS * COLUMNS;
    }
    if (!strcmp(name, "emg")) {
        float *threshold = ROOM(float, COLUMNS), *partial = ROOM(float, 2 * COLUMNS), *previous = ROOM(float, COLUMNS);
        int32_t *gap = ROOM(int32_t, COLUMNS), *over = ROOM(int32_t, COLUMNS), *bursts = ROOM(int32_t, COLUMNS);
        double *squares = ROOM(double, COLUMNS), *length = ROOM(double, COLUMNS);
        for (size_t c = 0; c < COLUMNS; c++) threshold[c] = 1e6f;   // quiet, as muscles are
        while (runs--)
            emg_features(x, ROWS, COLUMNS, threshold, 5, 0, partial, previous, gap, squares, length, lo, over, bursts);
        return ROWS * COLUMNS;
    }
    if (!strcmp(name, "peaks")) {
        double w[CURVE];
        dsp_peak out[64];
        dsp_summit *all = ROOM(dsp_summit, peaks_scratch(CURVE));
        for (size_t i = 0; i < CURVE; i++) w[i] = draw_uv() + (i > 300 && i < 420 ? -200.0 : 0.0);
        while (runs--) peaks_find(w, 0, CURVE, -1.0, 1, CURVE - 2, 150.0, out, 64, all);
        return CURVE;
    }
    if (!strcmp(name, "match")) {
        const size_t lags = CURVE - TEMPLATE + 1;
        float *c = signal_rows(8, CURVE, CURVE), *t = signal_rows(1, TEMPLATE, TEMPLATE), *r = ROOM(float, 8 * lags);
        float *scratch = ROOM(float, match_scratch(TEMPLATE, lags));
        while (runs--) match_template(c, 8, CURVE, t, 0, TEMPLATE, r, scratch);
        return (long)(8 * lags);
    }
    if (!strcmp(name, "welch")) {
        float *c = signal_rows(SEGMENT, 16, 16), *twiddles = ROOM(float, 2 * SEGMENT), *window = ROOM(float, SEGMENT);
        float *power = ROOM(float, (SEGMENT / 2 + 1) * 16), *scratch = ROOM(float, welch_scratch(SEGMENT));
        welch_twiddles(SEGMENT, twiddles);
        while (runs--) welch_segments(c, SEGMENT, 1, 1, 16, window, twiddles, power, scratch);
        return 16 * SEGMENT;
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "hash")) {
        hash_unpack();
        hash_iir();
        hash_sweep();
        hash_emg();
        hash_curves();
        return 0;
    }
    const long units = argc == 4 && !strcmp(argv[1], "count") ? count(argv[2], atol(argv[3])) : 0;
    if (!units) {
        fprintf(stderr, "usage: kernels_check hash | count unpack|iir|extremes|sweep_add|emg|peaks|match|welch N\n");
        return 2;
    }
    printf("%ld\n", units);
    return 0;
}
