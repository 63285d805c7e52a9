/* kernels_avxvnni.c - x86 with AVX-VNNI: the dot product of AVX-512 VNNI on 256-bit registers.
 *
 * With SQZ_AVXVNNI_AS_AVX512VL the same code is built from AVX-512's encoding of the instruction, so that it can be
 * tested on processors that have only that. */
#include "kernels_x86.h"

#if defined(SQZ_X86)

#if defined(SQZ_AVXVNNI_AS_AVX512VL)
#define YMM_DOT _mm256_dpbusd_epi32
#define YMM_TARGET "avx2,avx512f,avx512vl,avx512vnni"
#define YMM_SUPPORTED sqz_has_avx512vnni
#else
#define YMM_DOT _mm256_dpbusd_avx_epi32
#define YMM_TARGET "avx2,avxvnni"
#define YMM_SUPPORTED sqz_has_avxvnni
#endif

#if defined(__GNUC__)
#define SQZ_AVXVNNI __attribute__((target(YMM_TARGET)))
#else
#define SQZ_AVXVNNI
#endif

enum { AVXVNNI_PIXELS = 6 };

SQZ_INLINE SQZ_AVXVNNI void avxvnni_block(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights, int panel,
                                          uint8_t *y, int32_t *raw, const int PIXELS) {
    const size_t step = job->x_pixel;
    __m256i acc[AVXVNNI_PIXELS][2];
    SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
        acc[m][0] = ymm_load(job->bias + panel * SQZ_LANES);
        acc[m][1] = ymm_load(job->bias + panel * SQZ_LANES + 8);
    }
    for (int run = 0; run < job->runs; run++, x += job->x_run) {
        const uint8_t *x0 = x, *x3 = x + 3 * step;
        for (int group = 0; group < job->groups; group++) {
            const __m256i low = ymm_load(weights), high = ymm_load(weights + 32);
            SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
                __m256i four = ymm_broadcast((m < 3 ? x0 : x3) + (size_t)(m % 3) * step);
                acc[m][0] = YMM_DOT(acc[m][0], four, low);
                acc[m][1] = YMM_DOT(acc[m][1], four, high);
            }
            x0 += 4, x3 += 4;
            weights += 64;
        }
    }
    ymm_finish(job, acc, panel, y, raw, PIXELS);
}

#define AVXVNNI_FUNCTION(PIXELS)                                                                                      \
    static SQZ_AVXVNNI void avxvnni_##PIXELS(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights,       \
                                             int panel, uint8_t *y, int32_t *raw) {                                   \
        avxvnni_block(job, x, weights, panel, y, raw, PIXELS);                                                        \
    }
AVXVNNI_FUNCTION(1)
AVXVNNI_FUNCTION(2)
AVXVNNI_FUNCTION(3)
AVXVNNI_FUNCTION(4)
AVXVNNI_FUNCTION(5)
AVXVNNI_FUNCTION(6)
static ymm_function *const avxvnni_blocks[AVXVNNI_PIXELS] = {avxvnni_1, avxvnni_2, avxvnni_3,
                                                             avxvnni_4, avxvnni_5, avxvnni_6};

static void avxvnni_conv(const sqz_conv_job *job) {
    for (int panel = 0; panel < job->panels; panel++) ymm_rows(job, panel, avxvnni_blocks, AVXVNNI_PIXELS);
}

static SQZ_AVXVNNI uint64_t avxvnni_peak(uint32_t rounds) {
    __m256i acc[8], sum = _mm256_setzero_si256();
    const __m256i x = _mm256_set1_epi8(3), w = _mm256_set1_epi8(-5);
    SQZ_UNROLL for (int i = 0; i < 8; i++) acc[i] = _mm256_set1_epi32(i);
    for (uint32_t round = 0; round < rounds; round++) {
        SQZ_UNROLL for (int i = 0; i < 8; i++) acc[i] = YMM_DOT(acc[i], x, w);
    }
    SQZ_UNROLL for (int i = 0; i < 8; i++) sum = _mm256_xor_si256(sum, acc[i]);
    /* The result is used, so that the compiler cannot remove the loop. */
    return (uint64_t)rounds * 8 * 32 + (_mm256_extract_epi32(sum, 0) == 0x7FEDCBA9);
}

const sqz_kernels sqz_avxvnni_kernels = {
    "avxvnni", SQZ_PACK_S8, 0, 0, avxvnni_conv, sqz_avx2_pool_row, sqz_avx2_add_row, avxvnni_peak, YMM_SUPPORTED,
};
#endif
