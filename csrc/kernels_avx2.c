/* kernels_avx2.c - x86 with AVX2, exact.
 *
 * A byte product pair is one instruction whose 16-bit sum saturates. Panels whose weights are small enough that no sum
 * of two (or, better, of two in each of 2 or 4 groups) can reach 2^15 use it; the others multiply 16-bit values. */
#include "kernels_x86.h"

#if defined(SQZ_X86)

enum { AVX2_PIXELS = 6, AVX2_WIDE_PIXELS = 3 };

/* Panels of byte pairs; GROUPS groups are added up in 16 bits before they are widened. */
SQZ_INLINE SQZ_AVX2 void avx2_pairs(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights, int panel,
                                    uint8_t *y, int32_t *raw, const int PIXELS, const int GROUPS) {
    const size_t step = job->x_pixel;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i acc[AVX2_PIXELS][2];
    YMM_UNROLL for (int m = 0; m < PIXELS; m++) {
        acc[m][0] = ymm_load(job->bias + panel * SQZ_LANES);
        acc[m][1] = ymm_load(job->bias + panel * SQZ_LANES + 8);
    }
    for (int run = 0; run < job->runs; run++, x += job->x_run) {
        const uint8_t *x0 = x, *x3 = x + 3 * step;
        int group = 0;
        for (; group + GROUPS <= job->groups; group += GROUPS) {
            YMM_UNROLL for (int m = 0; m < PIXELS; m++) {
                const uint8_t *at = (m < 3 ? x0 : x3) + (size_t)(m % 3) * step;
                __m256i four = ymm_broadcast(at);
                __m256i low = _mm256_maddubs_epi16(four, ymm_load(weights));
                __m256i high = _mm256_maddubs_epi16(four, ymm_load(weights + 32));
                YMM_UNROLL for (int g = 1; g < GROUPS; g++) {
                    four = ymm_broadcast(at + 4 * g);
                    low = _mm256_add_epi16(low, _mm256_maddubs_epi16(four, ymm_load(weights + 64 * g)));
                    high = _mm256_add_epi16(high, _mm256_maddubs_epi16(four, ymm_load(weights + 64 * g + 32)));
                }
                acc[m][0] = _mm256_add_epi32(acc[m][0], _mm256_madd_epi16(low, ones));
                acc[m][1] = _mm256_add_epi32(acc[m][1], _mm256_madd_epi16(high, ones));
            }
            x0 += 4 * GROUPS, x3 += 4 * GROUPS;
            weights += 64 * GROUPS;
        }
        for (; GROUPS > 1 && group < job->groups; group++) {
            YMM_UNROLL for (int m = 0; m < PIXELS; m++) {
                __m256i four = ymm_broadcast((m < 3 ? x0 : x3) + (size_t)(m % 3) * step);
                __m256i low = _mm256_maddubs_epi16(four, ymm_load(weights));
                __m256i high = _mm256_maddubs_epi16(four, ymm_load(weights + 32));
                acc[m][0] = _mm256_add_epi32(acc[m][0], _mm256_madd_epi16(low, ones));
                acc[m][1] = _mm256_add_epi32(acc[m][1], _mm256_madd_epi16(high, ones));
            }
            x0 += 4, x3 += 4;
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
    __m256i acc[AVX2_PIXELS][4];
    YMM_UNROLL for (int m = 0; m < PIXELS; m++) {
        YMM_UNROLL for (int n = 0; n < 2 * PANELS; n++) acc[m][n] = ymm_load(job->bias + panel * SQZ_LANES + 8 * n);
    }
    for (int run = 0; run < job->runs; run++, x += job->x_run) {
        const uint8_t *x0 = x, *x3 = x + 3 * step;
        for (int group = 0; group < job->groups; group++) {
            YMM_UNROLL for (int m = 0; m < PIXELS; m++) {
                __m256i four = ymm_broadcast((m < 3 ? x0 : x3) + (size_t)(m % 3) * step);
                __m256i even = _mm256_and_si256(four, low_bytes), odd = _mm256_srli_epi16(four, 8);
                YMM_UNROLL for (int n = 0; n < 2 * PANELS; n++) {
                    const uint8_t *w = weights + (size_t)(n / 2) * panel_bytes + (n % 2) * 32;
                    acc[m][n] = _mm256_add_epi32(acc[m][n], _mm256_madd_epi16(even, ymm_load(w)));
                    acc[m][n] = _mm256_add_epi32(acc[m][n], _mm256_madd_epi16(odd, ymm_load(w + 64)));
                }
            }
            x0 += 4, x3 += 4;
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
#define AVX2_THREE(NAME, BODY, COUNT)                                                                                 \
    AVX2_FUNCTION(NAME, BODY, 1, COUNT) AVX2_FUNCTION(NAME, BODY, 2, COUNT) AVX2_FUNCTION(NAME, BODY, 3, COUNT)
#define AVX2_SIX(NAME, BODY, COUNT)                                                                                   \
    AVX2_THREE(NAME, BODY, COUNT)                                                                                     \
    AVX2_FUNCTION(NAME, BODY, 4, COUNT) AVX2_FUNCTION(NAME, BODY, 5, COUNT) AVX2_FUNCTION(NAME, BODY, 6, COUNT)       \
    static ymm_function *const NAME##blocks[AVX2_PIXELS] = {NAME##1, NAME##2, NAME##3, NAME##4, NAME##5, NAME##6};

AVX2_SIX(avx2_pairs1_, avx2_pairs, 1)
AVX2_SIX(avx2_pairs2_, avx2_pairs, 2)
AVX2_SIX(avx2_pairs4_, avx2_pairs, 4)
AVX2_SIX(avx2_wide1_, avx2_wide, 1)
AVX2_THREE(avx2_wide2_, avx2_wide, 2)
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
                    ymm_rows(job, panel, avx2_wide1_blocks, AVX2_PIXELS);
                }
        }
    }
}

const sqz_kernels sqz_avx2_kernels = {"avx2", SQZ_PACK_MIX, 0, avx2_conv, sqz_has_avx2};
#endif
