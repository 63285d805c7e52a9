/* kernels_neon.c - 64-bit ARM: with the dot product instructions, and without.
 *
 * Both multiply x - 128, a signed byte, so that signed instructions can be used; the biases compensate. */
#include "sqz_internal.h"

#if defined(SQZ_ARM64)
#include <arm_neon.h>

#if defined(__GNUC__) && !defined(__ARM_FEATURE_DOTPROD)
#if defined(__clang__)
#define NEON_DOTPROD __attribute__((target("dotprod")))
#else
#define NEON_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#endif
#else
#define NEON_DOTPROD
#endif

enum { NEON_DOT_PIXELS = 5, NEON_PLAIN_PIXELS = 2 };

SQZ_INLINE int8x16_t neon_four(const uint8_t *x) {
    uint32_t four;
    memcpy(&four, x, 4);
    return vreinterpretq_s8_u32(vdupq_n_u32(four ^ 0x80808080u));
}

/* Four outputs of one pixel; the clamp is in float, where it cannot overflow. */
SQZ_INLINE int32x4_t neon_requantize(int32x4_t acc, float32x4_t multiplier, float32x4_t high, int32x4_t zero) {
    float32x4_t scaled = vminq_f32(vmulq_f32(vcvtq_f32_s32(acc), multiplier), high);
    return vaddq_s32(vcvtnq_s32_f32(scaled), zero);
}

SQZ_INLINE void neon_finish(const sqz_conv_job *job, int32x4_t acc[4], int panel, uint8_t *y, int32_t *raw) {
    if (!y) {
        for (int n = 0; n < 4; n++) vst1q_s32(raw + panel * SQZ_LANES + 4 * n, acc[n]);
        return;
    }
    const float32x4_t high = vdupq_n_f32((float)(255 - job->zero));
    const int32x4_t zero = vdupq_n_s32(job->zero);
    int outputs = panel + 1 == job->panels ? job->last_outputs : SQZ_LANES;
    for (int n = 0; n < 4; n++) {
        acc[n] = neon_requantize(acc[n], vld1q_f32(job->multiplier + panel * SQZ_LANES + 4 * n), high, zero);
    }
    int16x8_t first = vcombine_s16(vqmovn_s32(acc[0]), vqmovn_s32(acc[1]));
    int16x8_t second = vcombine_s16(vqmovn_s32(acc[2]), vqmovn_s32(acc[3]));
    uint8x16_t bytes = vcombine_u8(vqmovun_s16(first), vqmovun_s16(second));
    if (outputs == SQZ_LANES) {
        vst1q_u8(y, bytes);
    } else {
        uint8_t all[SQZ_LANES];
        vst1q_u8(all, bytes);
        for (int o = 0; o < outputs; o++) y[o] = all[o];
    }
}

#if defined(SQZ_DOTPROD)

/* --- dot product -------------------------------------------------------------------------------------------------- */

#define NEON_DOT_LANE(LANE)                                                                                           \
    do {                                                                                                              \
        int8x16_t w[4];                                                                                               \
        SQZ_UNROLL for (int n = 0; n < 4; n++) w[n] = vld1q_s8((const int8_t *)weights + 16 * n);                    \
        SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {                                                                \
            SQZ_UNROLL for (int n = 0; n < 4; n++) acc[m][n] = vdotq_laneq_s32(acc[m][n], w[n], four[m], LANE);      \
        }                                                                                                             \
        weights += 64;                                                                                                \
    } while (0)

SQZ_INLINE NEON_DOTPROD void neon_dot_block(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights,
                                            int panel, uint8_t *y, int32_t *raw, const int PIXELS) {
    int32x4_t acc[NEON_DOT_PIXELS][4];
    SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
        SQZ_UNROLL for (int n = 0; n < 4; n++) acc[m][n] = vld1q_s32(job->bias + panel * SQZ_LANES + 4 * n);
    }
    for (int run = 0; run < job->runs; run++, x += job->x_run) {
        int8x16_t four[NEON_DOT_PIXELS];
        int group = 0;
        for (; group + 4 <= job->groups; group += 4) {
            SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
                uint8x16_t bytes = vld1q_u8(x + (size_t)m * job->x_pixel + 4 * group);
                four[m] = vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(0x80)));
            }
            NEON_DOT_LANE(0);
            NEON_DOT_LANE(1);
            NEON_DOT_LANE(2);
            NEON_DOT_LANE(3);
        }
        for (; group < job->groups; group++) {
            SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
                four[m] = neon_four(x + (size_t)m * job->x_pixel + 4 * group);
            }
            NEON_DOT_LANE(0);
        }
    }
    SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
        neon_finish(job, acc[m], panel, y ? y + (size_t)m * job->y_pixel : NULL,
                    raw ? raw + m * job->panels * SQZ_LANES : NULL);
    }
}

#endif

/* --- without ------------------------------------------------------------------------------------------------------ */

/* Two groups of byte products fit 16 bits: 2 * 128 * 127 < 2^15. Pairs of products are added only at the end. */
SQZ_INLINE void neon_plain_block(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights, int panel,
                                 uint8_t *y, int32_t *raw, const int PIXELS) {
    int32x4_t acc[NEON_PLAIN_PIXELS][8];
    SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
        SQZ_UNROLL for (int n = 0; n < 8; n++) acc[m][n] = vdupq_n_s32(0);
    }
    for (int run = 0; run < job->runs; run++, x += job->x_run) {
        for (int group = 0; group < job->groups; group += 2) {
            int is_pair = group + 1 < job->groups;
            SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
                const uint8_t *at = x + (size_t)m * job->x_pixel + 4 * group;
                int8x16_t a = neon_four(at), b = is_pair ? neon_four(at + 4) : vdupq_n_s8(0);
                const int8_t *wa = (const int8_t *)weights, *wb = is_pair ? wa + 64 : wa;
                SQZ_UNROLL for (int n = 0; n < 4; n++) {
                    int8x16_t first = vld1q_s8(wa + 16 * n), second = vld1q_s8(wb + 16 * n);
                    int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(first));
                    int16x8_t high = vmull_high_s8(a, first);
                    low = vmlal_s8(low, vget_low_s8(b), vget_low_s8(second));
                    high = vmlal_high_s8(high, b, second);
                    acc[m][2 * n] = vpadalq_s16(acc[m][2 * n], low);
                    acc[m][2 * n + 1] = vpadalq_s16(acc[m][2 * n + 1], high);
                }
            }
            weights += is_pair ? 128 : 64;
        }
    }
    SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
        int32x4_t sums[4];
        SQZ_UNROLL for (int n = 0; n < 4; n++) {
            int32x4_t bias = vld1q_s32(job->bias + panel * SQZ_LANES + 4 * n);
            sums[n] = vaddq_s32(vpaddq_s32(acc[m][2 * n], acc[m][2 * n + 1]), bias);
        }
        neon_finish(job, sums, panel, y ? y + (size_t)m * job->y_pixel : NULL,
                    raw ? raw + m * job->panels * SQZ_LANES : NULL);
    }
}

/* --- blocks ------------------------------------------------------------------------------------------------------- */

typedef void neon_function(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights, int panel, uint8_t *y,
                           int32_t *raw);

#define NEON_FUNCTION(NAME, TARGET, BODY, PIXELS)                                                                     \
    static TARGET void NAME##PIXELS(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights, int panel,     \
                                    uint8_t *y, int32_t *raw) {                                                       \
        BODY(job, x, weights, panel, y, raw, PIXELS);                                                                 \
    }
NEON_FUNCTION(neon_plain_, , neon_plain_block, 1)
NEON_FUNCTION(neon_plain_, , neon_plain_block, 2)

static neon_function *const neon_plain_blocks[NEON_PLAIN_PIXELS] = {neon_plain_1, neon_plain_2};

static void neon_rows(const sqz_conv_job *job, neon_function *const *blocks, int most) {
    const int count = (job->pixels + most - 1) / most;
    for (int panel = 0; panel < job->panels; panel++) {
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
                blocks[pixels - 1](job, x, job->weights + (size_t)panel * job->panel_bytes, panel, y, raw);
            }
        }
    }
}

static void neon_conv(const sqz_conv_job *job) { neon_rows(job, neon_plain_blocks, NEON_PLAIN_PIXELS); }

const sqz_kernels sqz_neon_kernels = {
    "neon", SQZ_PACK_S8, 128, 0, neon_conv, sqz_pool_row, sqz_add_row, NULL, NULL,
};

#if defined(SQZ_DOTPROD)
NEON_FUNCTION(neon_dot_, NEON_DOTPROD, neon_dot_block, 1)
NEON_FUNCTION(neon_dot_, NEON_DOTPROD, neon_dot_block, 2)
NEON_FUNCTION(neon_dot_, NEON_DOTPROD, neon_dot_block, 3)
NEON_FUNCTION(neon_dot_, NEON_DOTPROD, neon_dot_block, 4)
NEON_FUNCTION(neon_dot_, NEON_DOTPROD, neon_dot_block, 5)

static neon_function *const neon_dot_blocks[NEON_DOT_PIXELS] = {neon_dot_1, neon_dot_2, neon_dot_3, neon_dot_4,
                                                                neon_dot_5};

static void neon_dotprod_conv(const sqz_conv_job *job) { neon_rows(job, neon_dot_blocks, NEON_DOT_PIXELS); }

const sqz_kernels sqz_neon_dotprod_kernels = {
    "neon_dotprod", SQZ_PACK_S8, 128, 0, neon_dotprod_conv, sqz_pool_row, sqz_add_row, NULL, sqz_has_dotprod,
};
#endif
#endif
