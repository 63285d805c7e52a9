/* kernels_avx2.c - x86 with AVX2, exact.
 *
 * A byte product pair is one instruction whose 16-bit sum saturates. Panels whose weights are small enough that no sum
 * of two (or, better, of two in each of 2 or 4 groups) can reach 2^15 use it; the others multiply 16-bit values. */
#include "kernels_x86.h"

#if defined(SQZ_X86)

enum { AVX2_PIXELS = 4, AVX2_WIDE_PIXELS = 3 };

/* Keeps the compiler from holding weights in registers from one pixel to the next: there are too few, and a spilled one
 * costs more than a load. */
#if defined(__GNUC__)
#define AVX2_RELOAD(pointer) __asm__("" : "+r"(pointer))
#else
#define AVX2_RELOAD(pointer) ((void)0)
#endif

/* The same groups of one or two pixels: what they share is loaded once. */
SQZ_INLINE SQZ_AVX2 void avx2_add_pairs(__m256i (*acc)[2], const uint8_t *x, size_t step, const uint8_t *weights,
                                        const int PIXELS, const int GROUPS) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i low[2], high[2];
    AVX2_RELOAD(weights);
    YMM_UNROLL for (int g = 0; g < GROUPS; g++) {
        const __m256i first = ymm_load(weights + 64 * g), second = ymm_load(weights + 64 * g + 32);
        YMM_UNROLL for (int m = 0; m < PIXELS; m++) {
            const __m256i four = ymm_broadcast(x + (size_t)m * step + 4 * g);
            const __m256i a = _mm256_maddubs_epi16(four, first), b = _mm256_maddubs_epi16(four, second);
            low[m] = g ? _mm256_add_epi16(low[m], a) : a;
            high[m] = g ? _mm256_add_epi16(high[m], b) : b;
        }
    }
    YMM_UNROLL for (int m = 0; m < PIXELS; m++) {
        acc[m][0] = _mm256_add_epi32(acc[m][0], _mm256_madd_epi16(low[m], ones));
        acc[m][1] = _mm256_add_epi32(acc[m][1], _mm256_madd_epi16(high[m], ones));
    }
}

/* Panels of byte pairs; GROUPS groups are added up in 16 bits before they are widened. */
SQZ_INLINE SQZ_AVX2 void avx2_pairs(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights, int panel,
                                    uint8_t *y, int32_t *raw, const int PIXELS, const int GROUPS) {
    const size_t step = job->x_pixel;
    __m256i acc[AVX2_PIXELS][2];
    YMM_UNROLL for (int m = 0; m < PIXELS; m++) {
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
    YMM_FINISH(job, acc, panel, y, raw, PIXELS, 1);
}

/* Panels of 16-bit weights: even and odd products apart, so that bytes widen by a mask and a shift. */
SQZ_INLINE SQZ_AVX2 void avx2_wide(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights, int panel,
                                   uint8_t *y, int32_t *raw, const int PIXELS, const int PANELS) {
    const size_t step = job->x_pixel, panel_bytes = job->panel_bytes;
    const __m256i low_bytes = _mm256_set1_epi16(255);
    __m256i acc[AVX2_WIDE_PIXELS][4];
    YMM_UNROLL for (int m = 0; m < PIXELS; m++) {
        YMM_UNROLL for (int n = 0; n < 2 * PANELS; n++) acc[m][n] = ymm_load(job->bias + panel * SQZ_LANES + 8 * n);
    }
    for (int run = 0; run < job->runs; run++, x += job->x_run) {
        const uint8_t *x0 = x;
        for (int group = 0; group < job->groups; group++) {
            YMM_UNROLL for (int m = 0; m < PIXELS; m++) {
                __m256i four = ymm_broadcast(x0 + (size_t)m * step);
                __m256i even = _mm256_and_si256(four, low_bytes), odd = _mm256_srli_epi16(four, 8);
                const uint8_t *start = weights;
                AVX2_RELOAD(start);
                YMM_UNROLL for (int n = 0; n < 2 * PANELS; n++) {
                    const uint8_t *w = start + (size_t)(n / 2) * panel_bytes + (n % 2) * 32;
                    acc[m][n] = _mm256_add_epi32(acc[m][n], _mm256_madd_epi16(even, ymm_load(w)));
                    acc[m][n] = _mm256_add_epi32(acc[m][n], _mm256_madd_epi16(odd, ymm_load(w + 64)));
                }
            }
            x0 += 4;
            weights += 128;
        }
    }
    YMM_FINISH(job, acc, panel, y, raw, PIXELS, PANELS);
}

#define AVX2_FUNCTION(NAME, BODY, PIXELS, COUNT)                                                                      \
    static SQZ_AVX2 void NAME##PIXELS(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights, int panel,   \
                                      uint8_t *y, int32_t *raw) {                                                     \
        BODY(job, x, weights, panel, y, raw, PIXELS, COUNT);                                                          \
    }
#define AVX2_FUNCTIONS(NAME, BODY, COUNT)                                                                             \
    AVX2_FUNCTION(NAME, BODY, 1, COUNT) AVX2_FUNCTION(NAME, BODY, 2, COUNT) AVX2_FUNCTION(NAME, BODY, 3, COUNT)
#define AVX2_PAIRS_FUNCTIONS(NAME, COUNT)                                                                             \
    AVX2_FUNCTIONS(NAME, avx2_pairs, COUNT)                                                                           \
    AVX2_FUNCTION(NAME, avx2_pairs, 4, COUNT)                                                                         \
    static ymm_function *const NAME##blocks[AVX2_PIXELS] = {NAME##1, NAME##2, NAME##3, NAME##4};

AVX2_PAIRS_FUNCTIONS(avx2_pairs1_, 1)
AVX2_PAIRS_FUNCTIONS(avx2_pairs2_, 2)
AVX2_PAIRS_FUNCTIONS(avx2_pairs4_, 4)
AVX2_FUNCTIONS(avx2_wide1_, avx2_wide, 1)
AVX2_FUNCTIONS(avx2_wide2_, avx2_wide, 2)
static ymm_function *const avx2_wide1_blocks[AVX2_WIDE_PIXELS] = {avx2_wide1_1, avx2_wide1_2, avx2_wide1_3};
static ymm_function *const avx2_wide2_blocks[AVX2_WIDE_PIXELS] = {avx2_wide2_1, avx2_wide2_2, avx2_wide2_3};

static void avx2_conv(const sqz_conv_job *job) {
    for (int panel = 0; panel < job->panels; panel++) {
        switch (job->kinds[panel]) {
            case SQZ_PANEL_PAIRS: ymm_rows(job, panel, avx2_pairs1_blocks, AVX2_PIXELS); break;
            case SQZ_PANEL_PAIRS_OF_2: ymm_rows(job, panel, avx2_pairs2_blocks, AVX2_PIXELS); break;
            case SQZ_PANEL_PAIRS_OF_4: ymm_rows(job, panel, avx2_pairs4_blocks, AVX2_PIXELS); break;
            default:
                if (panel + 1 < job->panels && job->kinds[panel + 1] == SQZ_PANEL_WIDE) {
                    ymm_rows(job, panel++, avx2_wide2_blocks, AVX2_WIDE_PIXELS);
                } else {
                    ymm_rows(job, panel, avx2_wide1_blocks, AVX2_WIDE_PIXELS);
                }
        }
    }
}

SQZ_AVX2 void sqz_avx2_pool_row(const uint8_t *const rows[3], int size, int out_size, size_t pixel, uint8_t *y) {
    sqz_pool_row_body(rows, size, out_size, pixel, y);
}

SQZ_AVX2 void sqz_avx2_add_row(const sqz_add *add, const uint8_t *a, const uint8_t *b, size_t count, uint8_t *y) {
    sqz_add_row_body(add, a, b, count, y);
}

const sqz_kernels sqz_avx2_kernels = {"avx2", SQZ_PACK_MIX, 0, avx2_conv, sqz_avx2_pool_row, sqz_avx2_add_row, sqz_has_avx2};
#endif
