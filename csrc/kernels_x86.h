/* kernels_x86.h - what the kernel sets with 256-bit registers share: a panel is two registers of 8 outputs. */
#ifndef SQZ_KERNELS_X86_H
#define SQZ_KERNELS_X86_H

#include "sqz_internal.h"

#if defined(SQZ_X86)
#include <immintrin.h>

#if defined(__GNUC__)
#define SQZ_AVX2 __attribute__((target("avx2")))
#else
#define SQZ_AVX2
#endif

void sqz_avx2_pool_row(const uint8_t *const rows[3], int size, int out_size, size_t pixel, uint8_t *y);
void sqz_avx2_add_row(const sqz_add *add, const uint8_t *a, const uint8_t *b, size_t count, uint8_t *y);

SQZ_INLINE SQZ_AVX2 __m256i ymm_load(const void *at) { return _mm256_loadu_si256((const __m256i *)at); }

SQZ_INLINE SQZ_AVX2 __m256i ymm_broadcast(const uint8_t *x) {
    int32_t four;
    memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}

/* Sums of 8 outputs to int32 of at most 255; what is negative is left to the saturating packs. The float is held below
 * 256 first, because a conversion turns large values into the smallest integer. */
SQZ_INLINE SQZ_AVX2 __m256i ymm_requantize(__m256i acc, __m256 multiplier, __m256 high, __m256i zero) {
    __m256 scaled = _mm256_min_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(acc), multiplier), high);
    return _mm256_add_epi32(_mm256_cvtps_epi32(scaled), zero);
}

/* Stores one pixel's panel; `outputs` of its 16 bytes. */
SQZ_INLINE SQZ_AVX2 void ymm_store(uint8_t *y, __m256i low, __m256i high, int outputs) {
    __m128i first = _mm_packs_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    __m128i second = _mm_packs_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
    __m128i bytes = _mm_packus_epi16(first, second);
    if (outputs == SQZ_LANES) {
        _mm_storeu_si128((__m128i *)(void *)y, bytes);
    } else {
        uint8_t all[SQZ_LANES];
        _mm_storeu_si128((__m128i *)(void *)all, bytes);
        for (int o = 0; o < outputs; o++) y[o] = all[o];
    }
}

/* Ends a block: requantises `acc` [pixel][register of 8 outputs] to `y`, or stores it to `raw`. */
#define YMM_FINISH(job, acc, panel, y, raw, PIXELS, PANELS)                                                           \
    do {                                                                                                              \
        const __m256 high = _mm256_set1_ps((float)(255 - (job)->zero));                                               \
        const __m256i zero = _mm256_set1_epi32((job)->zero);                                                          \
        YMM_UNROLL for (int n = 0; n < (PANELS); n++) {                                                               \
            const float *at = (job)->multiplier + ((panel) + n) * SQZ_LANES;                                          \
            const __m256 first = _mm256_loadu_ps(at), second = _mm256_loadu_ps(at + 8);                               \
            const int outputs = (panel) + n + 1 == (job)->panels ? (job)->last_outputs : SQZ_LANES;                   \
            YMM_UNROLL for (int m = 0; m < (PIXELS); m++) {                                                           \
                if (y) {                                                                                              \
                    ymm_store((y) + (size_t)m * (job)->y_pixel + n * SQZ_LANES,                                       \
                              ymm_requantize((acc)[m][2 * n], first, high, zero),                                     \
                              ymm_requantize((acc)[m][2 * n + 1], second, high, zero), outputs);                      \
                } else {                                                                                              \
                    int32_t *to = (raw) + (m * (job)->panels + (panel) + n) * SQZ_LANES;                              \
                    _mm256_storeu_si256((__m256i *)(void *)to, (acc)[m][2 * n]);                                      \
                    _mm256_storeu_si256((__m256i *)(void *)(to + 8), (acc)[m][2 * n + 1]);                            \
                }                                                                                                     \
            }                                                                                                         \
        }                                                                                                             \
    } while (0)

#define YMM_UNROLL _Pragma("GCC unroll 8")

typedef void ymm_function(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights, int panel, uint8_t *y,
                          int32_t *raw);

/* Runs `blocks[pixels - 1]` over all pixels of all rows, for panels [panel, panel + PANELS). */
SQZ_INLINE void ymm_rows(const sqz_conv_job *job, int panel, ymm_function *const *blocks, int most) {
    const uint8_t *weights = job->weights + (size_t)panel * job->panel_bytes;
    const int count = (job->pixels + most - 1) / most;
    for (int row = 0; row < job->rows; row++) {
        for (int block = 0; block < count; block++) {
            int first = job->pixels * block / count, pixels = job->pixels * (block + 1) / count - first;
            const uint8_t *x = job->x + (size_t)row * job->x_row + (size_t)first * job->x_pixel;
            uint8_t *y = NULL;
            int32_t *raw = NULL;
            if (job->y) {
                y = job->y + (size_t)row * job->y_row + (size_t)first * job->y_pixel + panel * SQZ_LANES;
            } else {
                raw = job->raw + (size_t)(row * job->pixels + first) * (size_t)job->panels * SQZ_LANES;
            }
            blocks[pixels - 1](job, x, weights, panel, y, raw);
        }
    }
}

#endif
#endif
