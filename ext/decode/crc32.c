/* CRC-32, two ways with one result: 16 tables (any machine) and carry-less multiplication (x86-64 with PCLMULQDQ).
 *
 * The vector path keeps four 128-bit remainders and folds each onto the next 64 bytes (multiplying by x^512 mod P),
 * then folds the four into one.  What is left is 16 bytes congruent to the whole message; the tables finish it, so no
 * Barrett reduction is needed.  The constants are computed at start from the polynomial, not copied.
 * Measured on a busy 2-core x86-64: tables 0.41 ns/byte, folding 0.11; 7.7 MB/s is 0.32 % and 0.09 % of a core.
 */
#include "crc32.h"
#include <string.h>

#define POLY 0xEDB88320u

static uint32_t table[16][256];

uint32_t ionm_crc32_portable(uint32_t crc, const uint8_t *p, size_t n) {
    crc = ~crc;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (; n >= 16; n -= 16, p += 16) {
        uint32_t a, b, c, d;
        memcpy(&a, p, 4);
        memcpy(&b, p + 4, 4);
        memcpy(&c, p + 8, 4);
        memcpy(&d, p + 12, 4);
        a ^= crc;
        crc = table[15][a & 255] ^ table[14][a >> 8 & 255] ^ table[13][a >> 16 & 255] ^ table[12][a >> 24] ^
              table[11][b & 255] ^ table[10][b >> 8 & 255] ^ table[9][b >> 16 & 255] ^ table[8][b >> 24] ^
              table[7][c & 255] ^ table[6][c >> 8 & 255] ^ table[5][c >> 16 & 255] ^ table[4][c >> 24] ^
              table[3][d & 255] ^ table[2][d >> 8 & 255] ^ table[1][d >> 16 & 255] ^ table[0][d >> 24];
    }
#endif
    for (; n; n--, p++) crc = crc >> 8 ^ table[0][(crc ^ *p) & 255];
    return ~crc;
}

#if defined(__x86_64__)
#include <immintrin.h>

static uint64_t fold_far[2], fold_near[2]; /* by 512 and by 128 bits: {for the low half, for the high half} */
static int have_clmul;

/* x^n mod P in the reflected order of this CRC: bit 31 is x^0. */
static uint32_t power_of_x(unsigned n) {
    uint32_t r = 0x80000000u;
    while (n--) r = r >> 1 ^ (r & 1 ? POLY : 0);
    return r;
}

__attribute__((target("pclmul,sse4.1"))) static inline __m128i fold(__m128i a, __m128i k, __m128i next) {
    return _mm_xor_si128(next, _mm_xor_si128(_mm_clmulepi64_si128(a, k, 0x00), _mm_clmulepi64_si128(a, k, 0x11)));
}

#define LOAD(at) _mm_loadu_si128((const __m128i *)(at))
__attribute__((target("pclmul,sse4.1"))) static uint32_t folded(uint32_t crc, const uint8_t *p, size_t n) {
    const __m128i far = LOAD(fold_far), near = LOAD(fold_near);
    __m128i a = _mm_xor_si128(LOAD(p), _mm_cvtsi32_si128((int)~crc)), b = LOAD(p + 16), c = LOAD(p + 32), d = LOAD(p + 48);
    for (p += 64, n -= 64; n >= 64; p += 64, n -= 64) {
        a = fold(a, far, LOAD(p));
        b = fold(b, far, LOAD(p + 16));
        c = fold(c, far, LOAD(p + 32));
        d = fold(d, far, LOAD(p + 48));
    }
    a = fold(fold(fold(a, near, b), near, c), near, d);
    for (; n >= 16; p += 16, n -= 16) a = fold(a, near, LOAD(p));
    uint8_t rest[16];
    _mm_storeu_si128((__m128i *)rest, a);
    return ionm_crc32_portable(ionm_crc32_portable(0xFFFFFFFFu, rest, 16), p, n); /* ~0: the start value is folded in */
}
#endif

void ionm_crc32_init(void) {
    for (unsigned i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c >> 1 ^ (c & 1 ? POLY : 0);
        table[0][i] = c;
    }
    for (unsigned i = 0; i < 256; i++)
        for (int t = 1; t < 16; t++) table[t][i] = table[t - 1][i] >> 8 ^ table[0][table[t - 1][i] & 255];
#if defined(__x86_64__)
    /* A reflected product of two 64-bit halves comes out one bit low, hence the shift; a fold by D bits moves the low
     * half (the earlier bytes) by D + 64 and the high half by D; 32 less because the constant has 33 bits of room. */
    fold_far[0] = (uint64_t)power_of_x(512 + 32) << 1;
    fold_far[1] = (uint64_t)power_of_x(512 - 32) << 1;
    fold_near[0] = (uint64_t)power_of_x(128 + 32) << 1;
    fold_near[1] = (uint64_t)power_of_x(128 - 32) << 1;
    __builtin_cpu_init();
    have_clmul = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
#endif
}

uint32_t ionm_crc32(uint32_t crc, const uint8_t *p, size_t n) {
#if defined(__x86_64__)
    if (have_clmul && n >= 64) return folded(crc, p, n);
#endif
    return ionm_crc32_portable(crc, p, n);
}

int ionm_crc32_vector(void) {
#if defined(__x86_64__)
    return have_clmul;
#else
    return 0;
#endif
}
