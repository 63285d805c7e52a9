/* kernels_x86.h - shared by the kernel sets with 256-bit registers: a panel is two registers of 8 outputs. */
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

void sqz_avx2_pool_row(const uint8_t *x, int size, int out_size, size_t pixel, int is_first, uint8_t *y);
void sqz_avx2_add_row(const sqz_add *add, const uint8_t *other, size_t count, uint8_t *y);

SQZ_INLINE SQZ_AVX2 __m256i ymm_load(const void *at) { return _mm256_loadu_si256((const __m256i *)at); }

SQZ_INLINE SQZ_AVX2 __m256i ymm_broadcast(const uint8_t *x) {
    int32_t four;
    memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}

/* Sums of 8 outputs to int32 of at most 255 - zero. Unless IS_PLAIN promises that it is not needed, the float is limited
 * first, because the conversion turns too large values into the smallest integer. Negative values are clamped by the
 * saturating packs. */
SQZ_INLINE SQZ_AVX2 __m256i ymm_requantize(__m256i acc, __m256 multiplier, __m256 high, const int IS_PLAIN) {
    const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(acc), multiplier);
    return _mm256_cvtps_epi32(IS_PLAIN ? scaled : _mm256_min_ps(scaled, high));
}

SQZ_INLINE SQZ_AVX2 void ymm_store(uint8_t *y, __m128i bytes, int outputs) {
    if (outputs == SQZ_LANES) {
        _mm_storeu_si128((__m128i *)(void *)y, bytes);
    } else {
        uint8_t all[SQZ_LANES];
        _mm_storeu_si128((__m128i *)(void *)all, bytes);
        for (int o = 0; o < outputs; o++) y[o] = all[o];
    }
}

/* Requantises a block to `y`. */
SQZ_INLINE SQZ_AVX2 void ymm_store_block(const sqz_conv_job *job, __m256i (*acc)[2], int panel, uint8_t *y,
                                         const int PIXELS, const int IS_PLAIN) {
    const float *multiplier = job->multiplier + panel * SQZ_LANES;
    const __m256 first = _mm256_loadu_ps(multiplier), second = _mm256_loadu_ps(multiplier + 8);
    const __m256 high = _mm256_set1_ps((float)(255 - job->zero));
    const __m256i zero = _mm256_set1_epi16((int16_t)job->zero);
    /* Packs work within each half of a register, which leaves groups of four of both pixels alternately. */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const int outputs = panel + 1 == job->panels ? job->last_outputs : SQZ_LANES;
    SQZ_UNROLL for (int m = 0; m < PIXELS; m += 2) {
        const int next = m + 1 < PIXELS ? m + 1 : m;
        __m256i a = _mm256_packs_epi32(ymm_requantize(acc[m][0], first, high, IS_PLAIN),
                                       ymm_requantize(acc[m][1], second, high, IS_PLAIN));
        __m256i b = _mm256_packs_epi32(ymm_requantize(acc[next][0], first, high, IS_PLAIN),
                                       ymm_requantize(acc[next][1], second, high, IS_PLAIN));
        if (!IS_PLAIN) a = _mm256_adds_epi16(a, zero), b = _mm256_adds_epi16(b, zero);
        const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b), order);
        ymm_store(y + (size_t)m * job->y_pixel, _mm256_castsi256_si128(bytes), outputs);
        if (next > m) ymm_store(y + (size_t)next * job->y_pixel, _mm256_extracti128_si256(bytes, 1), outputs);
    }
}

/* Ends a block of one panel: requantises `acc`, [pixel][register of 8 outputs], to `y`, or stores it to `raw`. */
SQZ_INLINE SQZ_AVX2 void ymm_finish(const sqz_conv_job *job, __m256i (*acc)[2], int panel, uint8_t *y, int32_t *raw,
                                    const int PIXELS) {
    if (!y) {
        SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
            __m256i *to = (__m256i *)(void *)(raw + (m * job->panels + panel) * SQZ_LANES);
            _mm256_storeu_si256(to, acc[m][0]);
            _mm256_storeu_si256(to + 1, acc[m][1]);
        }
    } else if (job->is_plain) {
        ymm_store_block(job, acc, panel, y, PIXELS, 1);
    } else {
        ymm_store_block(job, acc, panel, y, PIXELS, 0);
    }
}

typedef void ymm_function(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights, int panel, uint8_t *y,
                          int32_t *raw);

/* Runs `blocks[pixels - 1]` over the pixels of one row, which start at `x`, for one panel. */
SQZ_INLINE void ymm_row(const sqz_conv_job *job, int row, int panel, const uint8_t *x, size_t x_pixel,
                        ymm_function *const *blocks, int most) {
    const uint8_t *weights = job->weights + (size_t)panel * job->panel_bytes;
    const int count = (job->pixels + most - 1) / most;
    for (int block = 0; block < count; block++) {
        int first = job->pixels * block / count, pixels = job->pixels * (block + 1) / count - first;
        uint8_t *y = NULL;
        int32_t *raw = NULL;
        if (job->y) {
            y = job->y + (size_t)row * job->y_row + (size_t)first * job->y_pixel + panel * SQZ_LANES;
        } else {
            raw = job->raw + (size_t)(row * job->pixels + first) * (size_t)job->panels * SQZ_LANES;
        }
        blocks[pixels - 1](job, x + (size_t)first * x_pixel, weights, panel, y, raw);
    }
}

SQZ_INLINE void ymm_rows(const sqz_conv_job *job, int panel, ymm_function *const *blocks, int most) {
    for (int row = 0; row < job->rows; row++) {
        ymm_row(job, row, panel, job->x + (size_t)row * job->x_row, job->x_pixel, blocks, most);
    }
}

#endif
#endif
