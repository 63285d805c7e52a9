/* kernels_small.c - microcontrollers: plain C, Arm's DSP instructions (Cortex-M4, M7, M33) and Helium (M55, M85).
 *
 * All use one order of weights, SQZ_PACK_TWOS, so that constants in flash suit every chip. Except with Helium, the inputs
 * of four pixels are first placed side by side in 16 bits; every pair of outputs then reads them in order. Without a
 * floating-point unit, results are scaled in integers and are bit-identical. */
#include "sqz_internal.h"

#if !defined(SQZ_WASM)
/* What the compiler defines about the processor; SQZ_SMALL_PLAIN asks for plain C. */
#if !defined(SQZ_SMALL_PLAIN) && defined(__GNUC__) && defined(__ARM_ARCH_PROFILE) && !defined(__ARM_BIG_ENDIAN)
#if __ARM_ARCH_PROFILE == 'M' && __ARM_ARCH_ISA_THUMB == 2
#define SQZ_SMALL_THUMB 1
#if defined(__ARM_FEATURE_MVE)
#define SQZ_SMALL_HELIUM 1
#include <arm_mve.h>
#elif defined(__ARM_FEATURE_DSP)
#define SQZ_SMALL_DSP 1
#endif
#if defined(__ARM_FEATURE_DSP)
#include <arm_acle.h>
#if defined(__ARM_FP) && __ARM_FP & 4
#define SQZ_SMALL_VFP 1
#endif
#endif
#endif
#endif

/* Floats are emulated. */
#if (defined(__arm__) && !defined(__ARM_FP)) || (defined(__riscv) && !defined(__riscv_flen)) || defined(__AVR__)
#define SQZ_SMALL_INTEGER 1
#endif

/* --- scaling ------------------------------------------------------------------------------------------------------ */

#if defined(SQZ_SMALL_INTEGER)

/* A multiplier in parts: mantissa * 2^-shift, of which mantissa has 24 bits. */
typedef struct {
    uint32_t mantissa;
    int shift, fraction;      /* fraction: bits of fraction in the upper half of the product below */
    uint32_t middle, near, span; /* 1/2; distance to it within which a result is uncertain; the rest */
} small_factor;

static small_factor small_factor_of(float multiplier) {
    small_factor factor;
    uint32_t bits;
    memcpy(&bits, &multiplier, 4);
    factor.mantissa = (bits & 0x7FFFFF) | 0x800000;
    factor.shift = 150 - (int)(bits >> 23); /* 3 to 63: see SQZ_MIN_SCALE */
    factor.fraction = factor.shift - 17;
    factor.middle = factor.near = factor.span = 0;
    if (factor.fraction >= 4 && factor.fraction <= 30) {
        factor.middle = (uint32_t)1 << (factor.fraction - 1);
        factor.near = 2 + (factor.middle >> 14);
        factor.span = 2 * factor.middle - 2 * factor.near;
    }
    return factor;
}

/* value / 2^bits, to the nearest, halves to even. */
static uint64_t small_divide(uint64_t value, int bits) {
    const uint64_t quotient = value >> bits, rest = value - (quotient << bits), half = (uint64_t)1 << (bits - 1);
    return quotient + (rest > half || (rest == half && (quotient & 1)));
}

/* A positive integer below 2^62, rounded to a float. */
static uint64_t small_to_float(uint64_t value) {
    int extra = 0;
    while (value >> extra >= (uint64_t)1 << 24) extra++;
    return extra ? small_divide(value, extra) << extra : value;
}

/* The three specified roundings in turn: to float, of the product, to an integer; at most 512. */
static uint32_t small_scale_exactly(uint32_t magnitude, uint32_t mantissa, int shift) {
    const uint64_t rounded = small_divide(small_to_float(small_to_float(magnitude) * mantissa), shift);
    return rounded < 512 ? (uint32_t)rounded : 512;
}

/* The upper half of one product decides, unless it is so close to a tie that the specified roundings could change the
 * result: below 512, they move a value by at most 2^-15. */
SQZ_INLINE uint8_t small_scale(int32_t sum, const small_factor *factor, int zero) {
    const uint32_t sign = (uint32_t)(sum >> 31), magnitude = ((uint32_t)sum ^ sign) - sign;
    const uint32_t upper = (uint32_t)(((uint64_t)(magnitude << 7) * (factor->mantissa << 8)) >> 32) + factor->middle;
    uint32_t rounded = upper >> (factor->fraction & 31);
    const uint32_t rest = upper & (2 * factor->middle - 1);
    if (magnitude >> 24 || rest - factor->near >= factor->span) {
        rounded = small_scale_exactly(magnitude, factor->mantissa, factor->shift);
    }
    return (uint8_t)sqz_max(0, sqz_min(255, (int)((rounded ^ sign) - sign) + zero));
}

#else

typedef float small_factor;

SQZ_INLINE small_factor small_factor_of(float multiplier) { return multiplier; }

SQZ_INLINE uint8_t small_scale(int32_t sum, const small_factor *factor, int zero) {
#if defined(SQZ_SMALL_VFP)
    const float scaled = (float)sum * *factor;
    int32_t rounded; /* halves to even, saturated */
    __asm__("vcvtr.s32.f32 %0, %1" : "=t"(rounded) : "t"(scaled));
    return (uint8_t)__usat(__qadd(rounded, zero), 8);
#else
    const float scaled = (float)sum * *factor, low = (float)-zero, high = (float)(255 - zero);
    return (uint8_t)(sqz_round(scaled < low ? low : scaled > high ? high : scaled) + zero);
#endif
}

#endif

/* Stores two outputs of some pixels where `job` specifies, beginning with `output` of pixel `pixel`. */
SQZ_INLINE void small_finish(const sqz_conv_job *job, int row, int pixel, int output, const uint32_t sums[][2],
                             int pixels) {
    if (job->y) {
        uint8_t *y = job->y + (size_t)row * job->y_row + (size_t)pixel * job->y_pixel + output;
        const size_t step = job->y_pixel;
        const int is_single = output + 1 == (job->panels - 1) * SQZ_LANES + job->last_outputs, zero = job->zero;
        const small_factor first = small_factor_of(job->multiplier[output]);
        const small_factor second = small_factor_of(job->multiplier[output + 1]);
        for (int p = 0; p < pixels; p++, y += step) {
            y[0] = small_scale((int32_t)sums[p][0], &first, zero);
            if (!is_single) y[1] = small_scale((int32_t)sums[p][1], &second, zero);
        }
    } else {
        const size_t step = (size_t)job->panels * SQZ_LANES;
        int32_t *raw = job->raw + (size_t)(row * job->pixels + pixel) * step + output;
        for (int p = 0; p < pixels; p++, raw += step) memcpy(raw, sums[p], 8);
    }
}

/* Number of outputs to compute: all lanes of a panel if raw sums are requested. */
SQZ_INLINE int small_outputs(const sqz_conv_job *job) {
    return (job->panels - 1) * SQZ_LANES + (job->y ? job->last_outputs : SQZ_LANES);
}

SQZ_INLINE const uint8_t *small_weights(const sqz_conv_job *job, int output) {
    const size_t products = (size_t)(job->runs * job->groups) * 4;
    return job->weights + (size_t)(output / SQZ_LANES) * job->panel_bytes + products * (size_t)(output % SQZ_LANES);
}

#if defined(SQZ_SMALL_HELIUM)

/* --- Helium ------------------------------------------------------------------------------------------------------- */

/* Helium cannot multiply a signed byte by an unsigned one. So this multiplies by x - 128, and adds 128 times the sum of
 * the weights, which is the same for all pixels. */
SQZ_INLINE void small_pair(const sqz_conv_job *job, int row, int pixel, int output, const uint32_t start[2],
                           const int PIXELS) {
    const uint8_t *x = job->x + (size_t)row * job->x_row + (size_t)pixel * job->x_pixel;
    const int8_t *w = (const int8_t *)small_weights(job, output);
    const uint8x16_t flip = vdupq_n_u8(0x80);
    int32_t acc[2][2];
    uint32_t sums[2][2];
    SQZ_UNROLL for (int p = 0; p < PIXELS; p++) acc[p][0] = (int32_t)start[0], acc[p][1] = (int32_t)start[1];
    for (int run = 0; run < job->runs; run++, x += job->x_run) {
        const uint8_t *at = x;
        int left = 4 * job->groups;
        for (; left >= 16; left -= 16, at += 16, w += 32) {
            const int8x16x2_t both = vld2q_s8(w);
            SQZ_UNROLL for (int p = 0; p < PIXELS; p++) {
                const int8x16_t four = vreinterpretq_s8_u8(veorq_u8(vldrbq_u8(at + (size_t)p * job->x_pixel), flip));
                acc[p][0] = vmladavaq_s8(acc[p][0], four, both.val[0]);
                acc[p][1] = vmladavaq_s8(acc[p][1], four, both.val[1]);
            }
        }
        if (left) {
            const mve_pred16_t lanes = vctp8q((uint32_t)left);
            const int8x16x2_t both = vld2q_s8(w);
            SQZ_UNROLL for (int p = 0; p < PIXELS; p++) {
                const uint8x16_t some = vldrbq_z_u8(at + (size_t)p * job->x_pixel, lanes);
                const int8x16_t four = vreinterpretq_s8_u8(veorq_u8(some, flip));
                acc[p][0] = vmladavaq_p_s8(acc[p][0], four, both.val[0], lanes);
                acc[p][1] = vmladavaq_p_s8(acc[p][1], four, both.val[1], lanes);
            }
            w += 2 * left;
        }
    }
    SQZ_UNROLL for (int p = 0; p < PIXELS; p++) sums[p][0] = (uint32_t)acc[p][0], sums[p][1] = (uint32_t)acc[p][1];
    small_finish(job, row, pixel, output, (const uint32_t(*)[2])sums, PIXELS);
}

static void small_start(const sqz_conv_job *job, int output, uint32_t start[2]) {
    const int8_t *w = (const int8_t *)small_weights(job, output);
    int32_t sums[2] = {0, 0};
    for (int left = 4 * job->runs * job->groups; left > 0; left -= 16, w += 32) {
        const mve_pred16_t lanes = vctp8q((uint32_t)left);
        const int8x16x2_t both = vld2q_s8(w);
        sums[0] = vaddvaq_p_s8(sums[0], both.val[0], lanes);
        sums[1] = vaddvaq_p_s8(sums[1], both.val[1], lanes);
    }
    for (int n = 0; n < 2; n++) start[n] = (uint32_t)job->bias[output + n] + 128u * (uint32_t)sums[n];
}

static void small_conv(const sqz_conv_job *given) {
    const sqz_conv_job job = *given; /* which results cannot overwrite */
    for (int output = 0; output < small_outputs(&job); output += 2) {
        uint32_t start[2];
        small_start(&job, output, start);
        for (int row = 0; row < job.rows; row++) {
            int pixel = 0;
            for (; pixel + 2 <= job.pixels; pixel += 2) small_pair(&job, row, pixel, output, start, 2);
            if (pixel < job.pixels) small_pair(&job, row, pixel, output, start, 1);
        }
    }
}

#else

#if defined(SQZ_SMALL_DSP)

/* Bytes 0 and 2 of a word in 16 bits each, or bytes 1 and 3: the rotation is part of the instruction. */
SQZ_INLINE uint32_t small_even(uint32_t four) { return four & 0x00FF00FF; }
SQZ_INLINE uint32_t small_odd(uint32_t four) { return four >> 8 & 0x00FF00FF; }
SQZ_INLINE int32_t small_even_signed(uint32_t four) {
    int32_t two;
    __asm__("sxtb16 %0, %1" : "=r"(two) : "r"(four));
    return two;
}
SQZ_INLINE int32_t small_odd_signed(uint32_t four) {
    int32_t two;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(two) : "r"(four));
    return two;
}

#endif

/* --- windows ------------------------------------------------------------------------------------------------------ */

/* The products of `count` pixels in 16 bits: [product / 2][pixel][product % 2]. If there are fewer pixels, the last
 * one is repeated. */
SQZ_INLINE void small_lay_windows(const sqz_conv_job *job, const uint8_t *x, int pixels, const int COUNT) {
    for (int p = 0; p < COUNT; p++) {
        const uint8_t *window = x + (size_t)sqz_min(p, pixels - 1) * job->x_pixel;
        uint16_t *to = job->wide + 2 * p;
        for (int run = 0; run < job->runs; run++, window += job->x_run) {
            const uint8_t *from = window;
            for (int group = 0; group < job->groups; group++, from += 4, to += 4 * COUNT) {
#if defined(SQZ_SMALL_DSP)
                uint32_t four, even, odd;
                memcpy(&four, from, 4);
                even = small_even(four);
                odd = small_odd(four);
                *(uint32_t *)(void *)to = (even & 0xFFFF) | odd << 16;
                *(uint32_t *)(void *)(to + 2 * COUNT) = even >> 16 | (odd & 0xFFFF0000);
#else
                to[0] = from[0];
                to[1] = from[1];
                to[2 * COUNT] = from[2];
                to[2 * COUNT + 1] = from[3];
#endif
            }
        }
    }
}

/* Adds the products from `x` to `end` with two outputs' weights. Unsigned, since partial sums may wrap even if the
 * total does not. */
SQZ_INLINE void small_sums(const uint16_t *x, const uint8_t *weights, const uint16_t *end, uint32_t sums[][2],
                           const int COUNT) {
    do {
#if defined(SQZ_SMALL_DSP)
        SQZ_UNROLL for (int half = 0; half < 2; half++, x += 2 * COUNT, weights += 4) {
            const uint32_t *two = (const uint32_t *)(const void *)x;
            const uint32_t four = *(const uint32_t *)(const void *)weights;
            const int32_t first = small_even_signed(four), second = small_odd_signed(four);
            SQZ_UNROLL for (int p = 0; p < COUNT; p++) {
                sums[p][0] = (uint32_t)__smlad((int32_t)two[p], first, (int32_t)sums[p][0]);
                sums[p][1] = (uint32_t)__smlad((int32_t)two[p], second, (int32_t)sums[p][1]);
            }
        }
#else
        const int8_t *w = (const int8_t *)weights;
        SQZ_UNROLL for (int p = 0; p < COUNT; p++, x += 2) {
            const int first = x[0], second = x[1];
            sums[p][0] += (uint32_t)(first * w[0]);
            sums[p][1] += (uint32_t)(first * w[1]);
            sums[p][0] += (uint32_t)(second * w[2]);
            sums[p][1] += (uint32_t)(second * w[3]);
        }
        weights += 4;
#endif
    } while (x != end);
}

#if defined(SQZ_SMALL_THUMB)

/* The same for four pixels. It uses all registers, which compilers do not achieve, and restores every one of them, so
 * that callers need no special care. */
#define SMALL_UNUSED __attribute__((unused))
static __attribute__((naked, noinline)) void small_four_sums(SMALL_UNUSED const uint16_t *x, /* r0 */
                                                             SMALL_UNUSED const uint8_t *weights, /* r1 */
                                                             SMALL_UNUSED const uint16_t *end, /* r2 */
                                                             SMALL_UNUSED uint32_t sums[][2]) /* r3 */ {
#if defined(SQZ_SMALL_DSP)
#define SMALL_HALF                                                                                                    \
    "ldr r2, [r1], #4\n"           /* weights of two outputs for two products */                                      \
    "ldrd r12, lr, [r0], #8\n"     /* inputs of two pixels */                                                          \
    "sxtb16 r3, r2, ror #8\n"                                                                                         \
    "sxtb16 r2, r2\n"                                                                                                 \
    "smlad r4, r12, r2, r4\n"                                                                                         \
    "smlad r5, r12, r3, r5\n"                                                                                         \
    "smlad r6, lr, r2, r6\n"                                                                                          \
    "smlad r7, lr, r3, r7\n"                                                                                          \
    "ldrd r12, lr, [r0], #8\n"                                                                                        \
    "smlad r8, r12, r2, r8\n"                                                                                         \
    "smlad r9, r12, r3, r9\n"                                                                                         \
    "smlad r10, lr, r2, r10\n"                                                                                        \
    "smlad r11, lr, r3, r11\n"
    __asm__("push {r0-r12, lr}\n"
            "ldm r3, {r4-r11}\n"
            "1:\n" SMALL_HALF SMALL_HALF
            "ldr r2, [sp, #8]\n"
            "cmp r0, r2\n"
            "bne 1b\n"
            "ldr r3, [sp, #12]\n"
            "stm r3, {r4-r11}\n"
            "pop {r0-r12, pc}\n");
#else
#define SMALL_PIXEL(AT, FIRST, SECOND)                                                                                \
    "ldrh r12, [r0, #" AT "]\n"                                                                                       \
    "mla " FIRST ", r12, r2, " FIRST "\n"                                                                             \
    "mla " SECOND ", r12, r3, " SECOND "\n"
#define SMALL_PRODUCT(W, V, A, B, C, D)                                                                               \
    "ldrsb r2, [r1, #" W "]\n"                                                                                        \
    "ldrsb r3, [r1, #" V "]\n" SMALL_PIXEL(A, "r4", "r5") SMALL_PIXEL(B, "r6", "r7") SMALL_PIXEL(C, "r8", "r9")       \
        SMALL_PIXEL(D, "r10", "r11")
    __asm__("push {r0-r12, lr}\n"
            "ldm r3, {r4-r11}\n"
            "mov lr, r2\n"
            "1:\n" SMALL_PRODUCT("0", "1", "0", "4", "8", "12") SMALL_PRODUCT("2", "3", "2", "6", "10", "14")
            SMALL_PRODUCT("4", "5", "16", "20", "24", "28") SMALL_PRODUCT("6", "7", "18", "22", "26", "30")
            "adds r0, #32\n"
            "adds r1, #8\n"
            "cmp r0, lr\n"
            "bne 1b\n"
            "ldr r3, [sp, #12]\n"
            "stm r3, {r4-r11}\n"
            "pop {r0-r12, pc}\n");
#endif
}

#else

static void small_four_sums(const uint16_t *x, const uint8_t *weights, const uint16_t *end, uint32_t sums[][2]) {
    uint32_t all[4][2];
    memcpy(all, sums, sizeof all);
    small_sums(x, weights, end, all, 4);
    memcpy(sums, all, sizeof all);
}

#endif

static void small_conv(const sqz_conv_job *given) {
    const sqz_conv_job job = *given; /* which results cannot overwrite */
    const int outputs = small_outputs(&job);
    int pixels;
    for (int row = 0; row < job.rows; row++) {
        for (int pixel = 0; pixel < job.pixels; pixel += pixels) {
            const uint8_t *x = job.x + (size_t)row * job.x_row + (size_t)pixel * job.x_pixel;
            const uint16_t *end = job.wide + (size_t)(job.runs * job.groups) * 4;
            pixels = sqz_min(job.pixels - pixel, SQZ_WINDOW_PIXELS);
            if (pixels == 1) {
                small_lay_windows(&job, x, 1, 1);
            } else {
                small_lay_windows(&job, x, pixels, SQZ_WINDOW_PIXELS);
                end += 3 * (size_t)(job.runs * job.groups) * 4;
            }
            for (int output = 0; output < outputs; output += 2) {
                const uint8_t *weights = small_weights(&job, output);
                uint32_t sums[SQZ_WINDOW_PIXELS][2];
                for (int p = 0; p < SQZ_WINDOW_PIXELS; p++) memcpy(sums[p], job.bias + output, 8);
                if (pixels == 1) {
                    small_sums(job.wide, weights, end, sums, 1);
                } else {
                    small_four_sums(job.wide, weights, end, sums);
                }
                small_finish(&job, row, pixel, output, (const uint32_t(*)[2])sums, pixels);
            }
        }
    }
}

#endif

/* --- pools and additions ------------------------------------------------------------------------------------------ */

#if defined(SQZ_SMALL_HELIUM) || defined(SQZ_SMALL_DSP)

/* As `sqz_pool_row_body`, 16 or 4 channels at a time. */
static void small_pool_row(const uint8_t *x, int size, int out_size, size_t pixel, int is_first, uint8_t *y) {
    for (int out = 0; out < out_size; out++, x += 2 * pixel, y += pixel) {
        const uint8_t *middle = x + pixel, *right = 2 * out + 2 < size ? middle + pixel : middle;
#if defined(SQZ_SMALL_HELIUM)
        for (size_t i = 0; i < pixel; i += 16) {
            const mve_pred16_t lanes = vctp8q((uint32_t)(pixel - i));
            uint8x16_t most = vmaxq_u8(vldrbq_z_u8(x + i, lanes), vldrbq_z_u8(middle + i, lanes));
            most = vmaxq_u8(most, vldrbq_z_u8(right + i, lanes));
            if (!is_first) most = vmaxq_u8(most, vldrbq_z_u8(y + i, lanes));
            vstrbq_p_u8(y + i, most, lanes);
        }
#else
        for (size_t i = 0; i < pixel; i += 4) {
            uint32_t most, other;
            memcpy(&most, x + i, 4);
            memcpy(&other, middle + i, 4);
            most = __uadd8(most, __uqsub8(other, most)); /* the maximum: adds the excess of the other value */
            memcpy(&other, right + i, 4);
            most = __uadd8(most, __uqsub8(other, most));
            memcpy(&other, y + i, 4);
            if (!is_first) most = __uadd8(most, __uqsub8(other, most));
            memcpy(y + i, &most, 4);
        }
#endif
    }
}

#else
#define small_pool_row sqz_pool_row
#endif

#if defined(SQZ_SMALL_INTEGER)

/* Both terms in fixed point with 16 bits of fraction decide, unless the sum is so close to a tie that the roundings of
 * floats matter. */
static void small_add_row(const sqz_add *add, const uint8_t *other, size_t count, uint8_t *y) {
    /* A term is at most 255 times a factor that is less than 1 too small, and rounds to a float of 12.13 bits at worst. */
    enum { ONE = 1 << 16, NEAR = 600 };
    const int is_narrow = add->factor[0] < 16.0f && add->factor[1] < 16.0f;
    const int32_t factor_a = is_narrow ? (int32_t)(add->factor[0] * ONE) : 0;
    const int32_t factor_b = is_narrow ? (int32_t)(add->factor[1] * ONE) : 0;
    for (size_t i = 0; i < count; i++) {
        const int32_t sum = (y[i] - add->zero[0]) * factor_a + (other[i] - add->zero[1]) * factor_b + ONE / 2;
        const uint32_t rest = (uint32_t)sum & (ONE - 1);
        if (is_narrow && rest - NEAR < ONE - 2 * NEAR) {
            const int rounded = (int)((uint32_t)sum >> 16 | (sum < 0 ? 0xFFFF0000 : 0)) + add->sum_zero;
            y[i] = (uint8_t)sqz_max(0, sqz_min(255, rounded));
        } else {
            sqz_add_row(add, other + i, 1, y + i);
        }
    }
}

#else
#define small_add_row sqz_add_row
#endif

const sqz_kernels sqz_small_kernels = {
    "small", SQZ_PACK_TWOS, 0, SQZ_WIDE_WINDOWS, small_conv, small_pool_row, small_add_row, NULL, NULL,
};
#endif
