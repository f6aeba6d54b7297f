// SPDX-License-Identifier: Apache-2.0
// lanes.h -- what all kernels share: vector types, run-time dispatch, flushing of subnormals.
//
// Layout everywhere: sample-major x[row][column]; `stride` columns per row, a multiple of 16, so that no kernel
// needs a tail.  Columns never mix, so a vector is 8 columns (float) or 4 (double) whatever the machine's width:
// that is why every instruction set gives the same bits (with -ffp-contract=off; docs/performance.md).
// Sizes and dtypes are checked where buffers are bound (_kernels.pyx); indices below rely on those checks.
#ifndef IONMD_DSP_LANES_H
#define IONMD_DSP_LANES_H
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif
#pragma GCC diagnostic ignored "-Wpsabi"   // vectors are passed to inlined functions only

// ifunc dispatch exists on x86-64 glibc; elsewhere, and in the one-ISA builds of check/, one version is built.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(DSP_ONE_ISA)
#define DSP_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "arch=x86-64-v2", "default")))
#else
#define DSP_CLONES
#endif
// A second version for 512-bit vectors, where a kernel gains by them: DSP_WIDE is its attribute, dsp_wide() says when.
#if defined(DSP_ONE_ISA) && defined(__AVX512F__)
#define DSP_WIDE
#elif defined(__x86_64__) && defined(__GLIBC__) && !defined(DSP_ONE_ISA)
#define DSP_WIDE __attribute__((target("arch=x86-64-v4")))
#endif
#define DSP_INLINE static inline __attribute__((always_inline))
#if defined(__SANITIZE_ADDRESS__)   // unrolled and instrumented, a build takes ten minutes
#define DSP_UNROLL
#else
#define DSP_UNROLL _Pragma("GCC unroll 16")
#endif

typedef float   f8  __attribute__((vector_size(32), aligned(4), may_alias));
typedef float   f4  __attribute__((vector_size(16), aligned(4), may_alias));
typedef double  d4  __attribute__((vector_size(32), aligned(8), may_alias));
typedef double  d8  __attribute__((vector_size(64), aligned(8), may_alias));
typedef int32_t i8  __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t i4  __attribute__((vector_size(16), aligned(4), may_alias));
typedef float   f16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t i16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint8_t b64 __attribute__((vector_size(64), aligned(1), may_alias));
typedef int64_t l4  __attribute__((vector_size(32), aligned(8), may_alias));
typedef int64_t l8  __attribute__((vector_size(64), aligned(8), may_alias));
typedef uint8_t b16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint8_t b32 __attribute__((vector_size(32), aligned(1), may_alias));

// a < b ? a : b in each lane; written lane by lane because gcc makes one min/max instruction of it (C has no vector ?:)
DSP_INLINE f8 f8_min(f8 a, f8 b) { f8 r; DSP_UNROLL for (int i = 0; i < 8; i++) r[i] = a[i] < b[i] ? a[i] : b[i]; return r; }
DSP_INLINE f8 f8_max(f8 a, f8 b) { f8 r; DSP_UNROLL for (int i = 0; i < 8; i++) r[i] = a[i] > b[i] ? a[i] : b[i]; return r; }
// the same by compare and select: f8_max comes out scalar where gcc does not see the lanes as one vector (emg.c)
DSP_INLINE f8 f8_top(f8 a, f8 b) { const i8 m = a > b; return (f8)(((i8)a & m) | ((i8)b & ~m)); }
DSP_INLINE f8 f8_abs(f8 a) { return (f8)((i8)a & 0x7fffffff); }
DSP_INLINE i8 i8_min(i8 a, i8 b) { i8 r; DSP_UNROLL for (int i = 0; i < 8; i++) r[i] = a[i] < b[i] ? a[i] : b[i]; return r; }
DSP_INLINE i8 i8_max(i8 a, i8 b) { i8 r; DSP_UNROLL for (int i = 0; i < 8; i++) r[i] = a[i] > b[i] ? a[i] : b[i]; return r; }
DSP_INLINE d4 d4_all(double a) { return (d4){a, a, a, a}; }
// four floats as doubles; spelt out because gcc 12 makes three instructions of __builtin_convertvector here, one of this
DSP_INLINE d4 d4_of(const float *p) { return (d4){p[0], p[1], p[2], p[3]}; }
DSP_INLINE d8 d8_of(const float *p) { return (d8){p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]}; }
DSP_INLINE d4 d4_low(f8 a) { return (d4){a[0], a[1], a[2], a[3]}; }
DSP_INLINE d4 d4_high(f8 a) { return (d4){a[4], a[5], a[6], a[7]}; }

#ifdef DSP_WIDE
DSP_INLINE int dsp_wide(void) {
#ifdef DSP_ONE_ISA
    return 1;
#else
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
}
#endif

// Subnormals to zero in this thread (in and out); returns what to restore.  A filter ringing down into digital
// silence would otherwise reach them, and some processors are 100 times slower there.
DSP_INLINE uint64_t dsp_flush_on(void) {
#if defined(__x86_64__)
    unsigned old = _mm_getcsr();
    _mm_setcsr(old | 0x8040u);
    return old;
#elif defined(__aarch64__)
    uint64_t old, now;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    now = old | (1ull << 24);
    __asm__ volatile("msr fpcr, %0" : : "r"(now));
    return old;
#else
    return 0;
#endif
}

DSP_INLINE void dsp_flush_restore(uint64_t old) {
#if defined(__x86_64__)
    _mm_setcsr((unsigned)old);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(old));
#else
    (void)old;
#endif
}
#endif
