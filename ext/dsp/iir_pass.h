// SPDX-License-Identifier: Apache-2.0
// iir_pass.h -- the passes of iir.c for vectors of one width; included once per width.
//   LANES, VEC, HALF   columns in a vector, its type of doubles, the type of as many floats
//   OF(p)              LANES floats as doubles;   NAMED(x)  the name of x for this width;   ATTRIBUTE  of the entry
// One pass over MANY sections and GROUPS vectors; `first` reads x, `last` writes y, else the scratch; `even`: b2 is b0 in
// each section, so that their product with the input is made once.  rows >= MANY.
DSP_INLINE void NAMED(run)(const int many, const int groups, const int first, const int last, const int even,
                           const float *x, float *y, double *scratch, size_t rows, size_t stride, const VEC *k,
                           double *state) {
    VEC z1[MOST][2], z2[MOST][2], v[MOST + 1][2];   // v[s]: what section s takes next
#define EACH_GROUP DSP_UNROLL for (int g = 0; g < groups; g++)
#define LOAD(N) EACH_GROUP v[0][g] = first ? OF(x + (N) * stride + g * LANES) \
                                           : *(const VEC *)(scratch + ((N) * groups + g) * LANES)
#define SECTION(S) EACH_GROUP { const VEC in = v[S][g], zero = k[5 * (S)] * in, out = zero + z1[S][g]; \
        z1[S][g] = (k[5 * (S) + 1] * in - k[5 * (S) + 3] * out) + z2[S][g]; \
        z2[S][g] = (even ? zero : (VEC)(k[5 * (S) + 2] * in)) - k[5 * (S) + 4] * out; v[(S) + 1][g] = out; }
#define STORE(N) EACH_GROUP { \
        if (last) *(HALF *)(y + (N) * stride + g * LANES) = __builtin_convertvector(v[many][g], HALF); \
        else *(VEC *)(scratch + ((N) * groups + g) * LANES) = v[many][g]; }
    DSP_UNROLL for (int s = 0; s < many; s++) EACH_GROUP {
        z1[s][g] = *(const VEC *)(state + (size_t)(2 * s) * stride + g * LANES);
        z2[s][g] = *(const VEC *)(state + (size_t)(2 * s + 1) * stride + g * LANES);
    }
    const size_t delay = (size_t)many - 1;
    DSP_UNROLL for (int n = 0; n < many - 1; n++) {           // the pipe fills
        DSP_UNROLL for (int s = many - 1; s > 0; s--) if (s <= n) SECTION(s)
        LOAD((size_t)n);
        SECTION(0)
    }
    for (size_t n = delay; n < rows; n++) {
        DSP_UNROLL for (int s = many - 1; s > 0; s--) SECTION(s)
        if (many > 1) STORE(n - delay)
        LOAD(n);
        SECTION(0)
        if (many == 1) STORE(n)
    }
    DSP_UNROLL for (int n = 0; n < many - 1; n++) {           // and runs empty
        DSP_UNROLL for (int s = many - 1; s > 0; s--) if (s > n) SECTION(s)
        STORE(rows - delay + (size_t)n)
    }
    DSP_UNROLL for (int s = 0; s < many; s++) EACH_GROUP {
        *(VEC *)(state + (size_t)(2 * s) * stride + g * LANES) = z1[s][g];
        *(VEC *)(state + (size_t)(2 * s + 1) * stride + g * LANES) = z2[s][g];
    }
#undef EACH_GROUP
#undef LOAD
#undef SECTION
#undef STORE
}

// Fewer rows than sections in a pass: one row after the other, state in memory.
DSP_INLINE void NAMED(few)(const float *x, float *y, size_t rows, size_t stride, const VEC *k, int sections, double *state) {
    for (size_t n = 0; n < rows; n++)
        for (size_t c = 0; c < stride; c += LANES) {
            VEC v = OF(x + n * stride + c);
            for (int s = 0; s < sections; s++) {
                VEC *z1 = (VEC *)(state + (size_t)(2 * s) * stride + c), *z2 = (VEC *)((double *)z1 + stride);
                const VEC out = k[5 * s] * v + *z1;
                *z1 = (k[5 * s + 1] * v - k[5 * s + 3] * out) + *z2;
                *z2 = k[5 * s + 2] * v - k[5 * s + 4] * out;
                v = out;
            }
            *(HALF *)(y + n * stride + c) = __builtin_convertvector(v, HALF);
        }
}

ATTRIBUTE static void NAMED(cascade)(const float *x, float *y, size_t rows, size_t stride, const double *coef, int sections,
                                     double *state) {
    _Alignas(64) double scratch[TILE * LANES];
    _Alignas(64) VEC k[5 * IIR_MAX_SECTIONS];
    if (sections == 0) return;
    for (int i = 0; i < 5 * sections; i++) k[i] = coef[i] + (VEC){0};
    int even = 1;   // true of every filter but those of odd order
    for (int s = 0; s < sections; s++) even &= coef[5 * s] == coef[5 * s + 2];
    const int passes = (sections + MOST - 1) / MOST;
    for (size_t r0 = 0; r0 < rows; r0 += TILE) {
        const size_t n = rows - r0 < TILE ? rows - r0 : TILE;
        const float *xt = x + r0 * stride;
        float *yt = y + r0 * stride;
        if (n < MOST) {
            NAMED(few)(xt, yt, n, stride, k, sections, state);
            continue;
        }
        for (size_t c = 0; c < stride && sections <= 3; c += 2 * LANES) {
#define RUN(M, E) NAMED(run)(M, 2, 1, 1, E, xt + c, yt + c, scratch, n, stride, k, state + c)
            if (sections == 1) RUN(1, 0);
            else if (sections == 2 && even) RUN(2, 1);
            else if (sections == 2) RUN(2, 0);
            else if (even) RUN(3, 1);
            else RUN(3, 0);
#undef RUN
        }
        for (size_t c = 0; c < stride && sections > 3; c += LANES)
            for (int p = 0, s = 0; p < passes; p++) {   // shared out evenly: 7 is 4 + 3
                const int many = sections / passes + (p < sections % passes), first = p == 0, last = p == passes - 1;
                const VEC *kp = k + 5 * s;
                double *z = state + (size_t)(2 * s) * stride + c;
#define RUN(M, F, L, E) NAMED(run)(M, 1, F, L, E, xt + c, yt + c, scratch, n, stride, kp, z)
#define ANY(M, E) do { if (first && last) RUN(M, 1, 1, E); else if (first) RUN(M, 1, 0, E); \
                       else if (last) RUN(M, 0, 1, E); else RUN(M, 0, 0, E); } while (0)
                if (many == 5 && even) ANY(5, 1);
                else if (many == 5) ANY(5, 0);
                else if (many == 4 && even) ANY(4, 1);
                else if (many == 4) ANY(4, 0);
                else ANY(3, 0);
#undef ANY
#undef RUN
                s += many;
            }
    }
}
#undef LANES
#undef VEC
#undef HALF
#undef OF
#undef NAMED
#undef ATTRIBUTE
