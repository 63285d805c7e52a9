/* kernels_avx512vnni.c - x86 with AVX-512 VNNI.
 *
 * A block is up to 14 pixels by 2 panels of 16 outputs, 28 accumulators of the 32 registers. For each group of 4
 * products it loads 4 bytes of every pixel once, broadcast, and 64 bytes of every panel once. */
#include "sqz_internal.h"

#if defined(SQZ_X86)
#include <immintrin.h>

#if defined(__GNUC__)
#define VNNI512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#else
#define VNNI512
#endif

enum { VNNI512_PIXELS = 14 };

SQZ_INLINE VNNI512 __m512i vnni512_broadcast(const uint8_t *x) {
    int32_t four;
    memcpy(&four, x, 4);
    return _mm512_set1_epi32(four);
}

/* Sums to int32 of at most 255 - zero. The float is limited first, because the conversion turns too large values into the
 * smallest integer; negative values are clamped by the saturating packs. */
SQZ_INLINE VNNI512 __m512i vnni512_requantize(__m512i acc, __m512 multiplier, __m512 high) {
    return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), multiplier), high));
}

/* Four vectors of int32 to bytes: those of `a`, then of `b`, `c` and `d`. */
SQZ_INLINE VNNI512 __m512i vnni512_pack(__m512i a, __m512i b, __m512i c, __m512i d, __m512i zero) {
    /* Packs work within each quarter of a register, which leaves quarters of a, b, c, d, a, b, ... */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(a, b), zero);
    __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(c, d), zero);
    return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
}

/* PIXELS and PANELS are constants wherever this is inlined, so that `acc` stays in registers. */
SQZ_INLINE VNNI512 void vnni512_block(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights, int panel,
                                      uint8_t *y, int32_t *raw, const int PIXELS, const int PANELS) {
    const size_t step = job->x_pixel, panel_bytes = job->panel_bytes;
    const int groups = job->groups;
    __m512i acc[VNNI512_PIXELS][2];
    SQZ_UNROLL for (int n = 0; n < PANELS; n++) {
        __m512i bias = _mm512_loadu_si512(job->bias + (panel + n) * SQZ_LANES);
        SQZ_UNROLL for (int m = 0; m < PIXELS; m++) acc[m][n] = bias;
    }
    for (int run = 0; run < job->runs; run++, x += job->x_run) {
        /* One pointer for every third pixel: the others are reached by index registers. */
        const uint8_t *x0 = x, *x3 = x + 3 * step, *x6 = x + 6 * step, *x9 = x + 9 * step, *x12 = x + 12 * step;
        for (int group = 0; group < groups; group++) {
            const uint8_t *const bases[5] = {x0, x3, x6, x9, x12};
            __m512i w[2];
            SQZ_UNROLL for (int n = 0; n < PANELS; n++) w[n] = _mm512_loadu_si512(weights + (size_t)n * panel_bytes);
            SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
                __m512i four = vnni512_broadcast(bases[m / 3] + (size_t)(m % 3) * step);
                SQZ_UNROLL for (int n = 0; n < PANELS; n++) acc[m][n] = _mm512_dpbusd_epi32(acc[m][n], four, w[n]);
            }
            x0 += 4, x3 += 4, x6 += 4, x9 += 4, x12 += 4;
            weights += 64;
        }
    }
    if (!y) {
        SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
            SQZ_UNROLL for (int n = 0; n < PANELS; n++) {
                _mm512_storeu_si512(raw + (m * job->panels + panel + n) * SQZ_LANES, acc[m][n]);
            }
        }
        return;
    }
    const __m512 high = _mm512_set1_ps((float)(255 - job->zero));
    const __m512i zero = _mm512_set1_epi16((int16_t)job->zero);
    const int outputs = panel + PANELS == job->panels ? job->last_outputs : SQZ_LANES;
    const __m512 first = _mm512_loadu_ps(job->multiplier + panel * SQZ_LANES);
    if (PANELS == 2) {
        const __m512 second = _mm512_loadu_ps(job->multiplier + (panel + 1) * SQZ_LANES);
        const __mmask32 mask = 0xFFFFFFFFu >> (SQZ_LANES - outputs);
        SQZ_UNROLL for (int m = 0; m < PIXELS; m += 2) {
            const int next = m + 1 < PIXELS ? m + 1 : m;
            const __m512i bytes =
                vnni512_pack(vnni512_requantize(acc[m][0], first, high), vnni512_requantize(acc[m][1], second, high),
                             vnni512_requantize(acc[next][0], first, high),
                             vnni512_requantize(acc[next][1], second, high), zero);
            _mm256_mask_storeu_epi8(y + (size_t)m * job->y_pixel, mask, _mm512_castsi512_si256(bytes));
            if (next > m) {
                _mm256_mask_storeu_epi8(y + (size_t)next * job->y_pixel, mask, _mm512_extracti64x4_epi64(bytes, 1));
            }
        }
    } else {
        const __mmask16 mask = (__mmask16)(0xFFFFu >> (SQZ_LANES - outputs));
        SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
            const __m512i value = vnni512_requantize(acc[m][0], first, high);
            const __m512i bytes = vnni512_pack(value, value, value, value, zero);
            _mm_mask_storeu_epi8(y + (size_t)m * job->y_pixel, mask, _mm512_castsi512_si128(bytes));
        }
    }
}

typedef void vnni512_function(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights, int panel, uint8_t *y,
                              int32_t *raw);

#define VNNI512_BLOCK(PIXELS, PANELS)                                                                                 \
    static VNNI512 void vnni512_block_##PIXELS##x##PANELS(const sqz_conv_job *job, const uint8_t *x,                  \
                                                          const uint8_t *weights, int panel, uint8_t *y,              \
                                                          int32_t *raw) {                                             \
        vnni512_block(job, x, weights, panel, y, raw, PIXELS, PANELS);                                                \
    }
#define VNNI512_BLOCKS(PIXELS) VNNI512_BLOCK(PIXELS, 1) VNNI512_BLOCK(PIXELS, 2)
VNNI512_BLOCKS(1)
VNNI512_BLOCKS(2)
VNNI512_BLOCKS(3)
VNNI512_BLOCKS(4)
VNNI512_BLOCKS(5)
VNNI512_BLOCKS(6)
VNNI512_BLOCKS(7)
VNNI512_BLOCKS(8)
VNNI512_BLOCKS(9)
VNNI512_BLOCKS(10)
VNNI512_BLOCKS(11)
VNNI512_BLOCKS(12)
VNNI512_BLOCKS(13)
VNNI512_BLOCKS(14)

#define VNNI512_ENTRY(PIXELS) {vnni512_block_##PIXELS##x1, vnni512_block_##PIXELS##x2}
static vnni512_function *const vnni512_blocks[VNNI512_PIXELS][2] = {
    VNNI512_ENTRY(1),  VNNI512_ENTRY(2),  VNNI512_ENTRY(3),  VNNI512_ENTRY(4), VNNI512_ENTRY(5),
    VNNI512_ENTRY(6),  VNNI512_ENTRY(7),  VNNI512_ENTRY(8),  VNNI512_ENTRY(9), VNNI512_ENTRY(10),
    VNNI512_ENTRY(11), VNNI512_ENTRY(12), VNNI512_ENTRY(13), VNNI512_ENTRY(14),
};

static void vnni512_conv(const sqz_conv_job *job) {
    /* Blocks of nearly equal size: a row of 27 pixels is 14 + 13. */
    const int blocks = (job->pixels + VNNI512_PIXELS - 1) / VNNI512_PIXELS;
    for (int panel = 0; panel < job->panels; panel += 2) {
        const int panels = sqz_min(2, job->panels - panel);
        const uint8_t *weights = job->weights + (size_t)panel * job->panel_bytes;
        for (int row = 0; row < job->rows; row++) {
            for (int block = 0; block < blocks; block++) {
                int first = job->pixels * block / blocks, pixels = job->pixels * (block + 1) / blocks - first;
                const uint8_t *x = job->x + (size_t)row * job->x_row + (size_t)first * job->x_pixel;
                uint8_t *y = NULL;
                int32_t *raw = NULL;
                if (job->y) {
                    y = job->y + (size_t)row * job->y_row + (size_t)first * job->y_pixel + panel * SQZ_LANES;
                } else {
                    raw = job->raw + (size_t)(row * job->pixels + first) * (size_t)job->panels * SQZ_LANES;
                }
                vnni512_blocks[pixels - 1][panels - 1](job, x, weights, panel, y, raw);
            }
        }
    }
}

static VNNI512 void vnni512_pool_row(const uint8_t *x, int size, int out_size, size_t pixel, int is_first, uint8_t *y) {
    sqz_pool_row_body(x, size, out_size, pixel, is_first, y);
}

static VNNI512 void vnni512_add_row(const sqz_add *add, const uint8_t *other, size_t count, uint8_t *y) {
    sqz_add_row_body(add, other, count, y);
}

static VNNI512 uint64_t vnni512_peak(uint32_t rounds) {
    __m512i acc[16], sum = _mm512_setzero_si512();
    const __m512i x = _mm512_set1_epi8(3), w = _mm512_set1_epi8(-5);
    SQZ_UNROLL for (int i = 0; i < 16; i++) acc[i] = _mm512_set1_epi32(i);
    for (uint32_t round = 0; round < rounds; round++) {
        SQZ_UNROLL for (int i = 0; i < 16; i++) acc[i] = _mm512_dpbusd_epi32(acc[i], x, w);
    }
    SQZ_UNROLL for (int i = 0; i < 16; i++) sum = _mm512_xor_si512(sum, acc[i]);
    /* The result is used, so that the compiler cannot remove the loop. */
    return (uint64_t)rounds * 16 * 64 + (_mm512_reduce_or_epi32(sum) == 0x7FEDCBA9);
}

const sqz_kernels sqz_avx512vnni_kernels = {
    "avx512vnni", SQZ_PACK_S8, 0, 0, vnni512_conv, vnni512_pool_row, vnni512_add_row, vnni512_peak, sqz_has_avx512vnni,
};
#endif
