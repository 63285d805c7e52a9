/* kernels_avx2.c - x86 with AVX2, exact.
 *
 * A byte product pair is one instruction whose 16-bit sum saturates. Panels whose weights are small enough that no sum
 * of two (or, better, of two in each of 2 or 4 groups) can reach 2^15 use it; the others multiply 16-bit values. */
#include "kernels_x86.h"

#if defined(SQZ_X86)

enum { AVX2_PIXELS = 4, AVX2_WIDE_PIXELS = 6 };

/* Keeps the compiler from holding weights in registers from one pixel to the next: there are too few, and a spilled one
 * costs more than a load. */
#if defined(__GNUC__)
#define AVX2_RELOAD(pointer) __asm__("" : "+r"(pointer))
#else
#define AVX2_RELOAD(pointer) ((void)0)
#endif

/* The same groups of one or two pixels: weights are loaded once for both. */
SQZ_INLINE SQZ_AVX2 void avx2_add_pairs(__m256i (*acc)[2], const uint8_t *x, size_t step, const uint8_t *weights,
                                        const int PIXELS, const int GROUPS) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i low[2], high[2];
    AVX2_RELOAD(weights);
    SQZ_UNROLL for (int g = 0; g < GROUPS; g++) {
        const __m256i first = ymm_load(weights + 64 * g), second = ymm_load(weights + 64 * g + 32);
        SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
            const __m256i four = ymm_broadcast(x + (size_t)m * step + 4 * g);
            const __m256i a = _mm256_maddubs_epi16(four, first), b = _mm256_maddubs_epi16(four, second);
            low[m] = g ? _mm256_add_epi16(low[m], a) : a;
            high[m] = g ? _mm256_add_epi16(high[m], b) : b;
        }
    }
    SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
        acc[m][0] = _mm256_add_epi32(acc[m][0], _mm256_madd_epi16(low[m], ones));
        acc[m][1] = _mm256_add_epi32(acc[m][1], _mm256_madd_epi16(high[m], ones));
    }
}

/* Panels of byte pairs; GROUPS groups are added up in 16 bits before they are widened. */
SQZ_INLINE SQZ_AVX2 void avx2_pairs(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights, int panel,
                                    uint8_t *y, int32_t *raw, const int PIXELS, const int GROUPS) {
    const size_t step = job->x_pixel;
    __m256i acc[AVX2_PIXELS][2];
    SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
        acc[m][0] = ymm_load(job->bias + panel * SQZ_LANES);
        acc[m][1] = ymm_load(job->bias + panel * SQZ_LANES + 8);
    }
    for (int run = 0; run < job->runs; run++, x += job->x_run) {
        const uint8_t *x0 = x, *x2 = x + 2 * step;
        int group = 0;
        for (; group + GROUPS <= job->groups; group += GROUPS) {
            avx2_add_pairs(acc, x0, step, weights, PIXELS < 2 ? PIXELS : 2, GROUPS);
            if (PIXELS > 2) avx2_add_pairs(acc + 2, x2, step, weights, PIXELS - 2, GROUPS);
            x0 += 4 * GROUPS, x2 += 4 * GROUPS;
            weights += 64 * GROUPS;
        }
        for (; GROUPS > 1 && group < job->groups; group++) {
            avx2_add_pairs(acc, x0, step, weights, PIXELS < 2 ? PIXELS : 2, 1);
            if (PIXELS > 2) avx2_add_pairs(acc + 2, x2, step, weights, PIXELS - 2, 1);
            x0 += 4, x2 += 4;
            weights += 64;
        }
    }
    ymm_finish(job, acc, panel, y, raw, PIXELS);
}

/* Rows of input in 16 bits, one after another. */
static SQZ_AVX2 void avx2_widen(const sqz_conv_job *job, const uint8_t *x, size_t stride, int rows) {
    const size_t count = sqz_wide_run(job->pixels, job->x_pixel, job->groups);
    uint16_t *to = job->wide;
    for (int row = 0; row < rows; row++, x += stride, to += count) {
        size_t i = 0;
        for (; i + 16 <= count; i += 16) {
            __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(x + i)));
            _mm256_storeu_si256((__m256i *)(void *)(to + i), wide);
        }
        for (; i < count; i++) to[i] = x[i];
    }
}

/* Panels of 16-bit weights, by pairs of products. */
SQZ_INLINE SQZ_AVX2 void avx2_wide(const sqz_conv_job *job, const uint8_t *wide, const uint8_t *weights, int panel,
                                   uint8_t *y, int32_t *raw, const int PIXELS) {
    const size_t step = 2 * job->x_pixel, run_bytes = 2 * sqz_wide_run(job->pixels, job->x_pixel, job->groups);
    __m256i acc[AVX2_WIDE_PIXELS][2];
    SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
        acc[m][0] = ymm_load(job->bias + panel * SQZ_LANES);
        acc[m][1] = ymm_load(job->bias + panel * SQZ_LANES + 8);
    }
    for (int run = 0; run < job->runs; run++, wide += run_bytes) {
        const uint8_t *x0 = wide, *x3 = wide + 3 * step;
        for (int pair = 0; pair < 2 * job->groups; pair++) {
            const __m256i low = ymm_load(weights), high = ymm_load(weights + 32);
            SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
                const __m256i two = ymm_broadcast((m < 3 ? x0 : x3) + (size_t)(m % 3) * step);
                acc[m][0] = _mm256_add_epi32(acc[m][0], _mm256_madd_epi16(two, low));
                acc[m][1] = _mm256_add_epi32(acc[m][1], _mm256_madd_epi16(two, high));
            }
            x0 += 4, x3 += 4;
            weights += 64;
        }
    }
    ymm_finish(job, acc, panel, y, raw, PIXELS);
}

#define AVX2_FUNCTION(NAME, PIXELS, ...)                                                                              \
    static SQZ_AVX2 void NAME##_##PIXELS(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights,           \
                                         int panel, uint8_t *y, int32_t *raw) {                                       \
        __VA_ARGS__;                                                                                                  \
    }
#define AVX2_PAIRS(NAME, PIXELS, GROUPS)                                                                              \
    AVX2_FUNCTION(NAME, PIXELS, avx2_pairs(job, x, weights, panel, y, raw, PIXELS, GROUPS))
#define AVX2_PAIRS_BLOCKS(NAME, GROUPS)                                                                               \
    AVX2_PAIRS(NAME, 1, GROUPS)                                                                                       \
    AVX2_PAIRS(NAME, 2, GROUPS)                                                                                       \
    AVX2_PAIRS(NAME, 3, GROUPS)                                                                                       \
    AVX2_PAIRS(NAME, 4, GROUPS)                                                                                       \
    static ymm_function *const NAME##_blocks[AVX2_PIXELS] = {NAME##_1, NAME##_2, NAME##_3, NAME##_4};
#define AVX2_WIDE(PIXELS) AVX2_FUNCTION(avx2_wide, PIXELS, avx2_wide(job, x, weights, panel, y, raw, PIXELS))

AVX2_PAIRS_BLOCKS(avx2_pairs1, 1)
AVX2_PAIRS_BLOCKS(avx2_pairs2, 2)
AVX2_PAIRS_BLOCKS(avx2_pairs4, 4)
AVX2_WIDE(1)
AVX2_WIDE(2)
AVX2_WIDE(3)
AVX2_WIDE(4)
AVX2_WIDE(5)
AVX2_WIDE(6)
static ymm_function *const avx2_wide_blocks[AVX2_WIDE_PIXELS] = {avx2_wide_1, avx2_wide_2, avx2_wide_3,
                                                                 avx2_wide_4, avx2_wide_5, avx2_wide_6};

/* Widens some rows, then runs all panels on them: weights stay in the cache from row to row. */
static void avx2_wide_panels(const sqz_conv_job *job) {
    const size_t row_bytes = 2 * sqz_wide_run(job->pixels, job->x_pixel, job->groups);
    /* Runs of neighbouring rows are the same memory when the convolution moves by one row. */
    const int is_shared = job->runs == 1 || job->x_run == job->x_row;
    const int most = is_shared ? job->wide_rows - job->runs + 1 : 1;
    for (int first = 0; first < job->rows; first += most) {
        const int rows = sqz_min(most, job->rows - first);
        avx2_widen(job, job->x + (size_t)first * job->x_row, job->runs == 1 ? job->x_row : job->x_run,
                   rows + job->runs - 1);
        for (int panel = 0; panel < job->panels; panel++) {
            if (job->kinds[panel] != SQZ_PANEL_WIDE) continue;
            for (int row = 0; row < rows; row++) {
                ymm_row(job, first + row, panel, (const uint8_t *)job->wide + (size_t)row * row_bytes, 2 * job->x_pixel,
                        avx2_wide_blocks, AVX2_WIDE_PIXELS);
            }
        }
    }
}

static void avx2_conv(const sqz_conv_job *job) {
    int has_wide = 0;
    for (int panel = 0; panel < job->panels; panel++) {
        switch (job->kinds[panel]) {
            case SQZ_PANEL_PAIRS: ymm_rows(job, panel, avx2_pairs1_blocks, AVX2_PIXELS); break;
            case SQZ_PANEL_PAIRS_OF_2: ymm_rows(job, panel, avx2_pairs2_blocks, AVX2_PIXELS); break;
            case SQZ_PANEL_PAIRS_OF_4: ymm_rows(job, panel, avx2_pairs4_blocks, AVX2_PIXELS); break;
            default: has_wide = 1;
        }
    }
    if (has_wide) avx2_wide_panels(job);
}

SQZ_AVX2 void sqz_avx2_pool_row(const uint8_t *x, int size, int out_size, size_t pixel, int is_first, uint8_t *y) {
    sqz_pool_row_body(x, size, out_size, pixel, is_first, y);
}

SQZ_AVX2 void sqz_avx2_add_row(const sqz_add *add, const uint8_t *other, size_t count, uint8_t *y) {
    sqz_add_row_body(add, other, count, y);
}

/* Uses byte pairs, the fastest exact product without VNNI. */
static SQZ_AVX2 uint64_t avx2_peak(uint32_t rounds) {
    __m256i acc[8], sum = _mm256_setzero_si256();
    const __m256i ones = _mm256_set1_epi16(1), w = _mm256_set1_epi8(-5);
    SQZ_UNROLL for (int i = 0; i < 8; i++) acc[i] = _mm256_set1_epi32(i);
    for (uint32_t round = 0; round < rounds; round++) {
        SQZ_UNROLL for (int i = 0; i < 8; i++) {
            acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(_mm256_maddubs_epi16(acc[i], w), ones));
        }
    }
    SQZ_UNROLL for (int i = 0; i < 8; i++) sum = _mm256_xor_si256(sum, acc[i]);
    /* The result is used, so that the compiler cannot remove the loop. */
    return (uint64_t)rounds * 8 * 32 + (_mm256_extract_epi32(sum, 0) == 0x7FEDCBA9);
}

const sqz_kernels sqz_avx2_kernels = {
    "avx2", SQZ_PACK_MIX, 0, 1, avx2_conv, sqz_avx2_pool_row, sqz_avx2_add_row, avx2_peak, sqz_has_avx2,
};
#endif
