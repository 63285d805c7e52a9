/* kernels_small.c - microcontrollers: plain C, Arm's DSP instructions (Cortex-M4, M7, M33) and Helium (M55, M85).
 *
 * One order of weights serves them all, SQZ_PACK_TWOS, so that constants in flash suit every chip. But for Helium, the
 * products of four pixels are laid side by side in 16 bits first; every pair of outputs then reads them in order.
 * Without a floating-point unit results are scaled in integers, with the same bits. */
#include "sqz_internal.h"

#if !defined(SQZ_WASM)
#if defined(SQZ_SMALL_PLAIN) || defined(__ARM_BIG_ENDIAN)
#elif defined(__ARM_FEATURE_MVE)
#define SQZ_SMALL_HELIUM 1
#include <arm_mve.h>
#elif defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#define SQZ_SMALL_DSP 1
#include <arm_acle.h>
#endif

#if (defined(__arm__) && !defined(__ARM_FP)) || (defined(__riscv) && !defined(__riscv_flen)) || defined(__AVR__)
#define SQZ_SMALL_INTEGER 1
#endif

/* --- scaling ------------------------------------------------------------------------------------------------------ */

#if defined(SQZ_SMALL_INTEGER)

/* A multiplier in parts: mantissa * 2^-shift, of which mantissa has 24 bits. */
typedef struct {
    uint32_t mantissa;
    int shift, fraction;      /* the latter: bits of fraction in the upper half of the product below */
    uint32_t middle, near, span; /* 1/2; how near to it a result is not trusted; the rest */
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

/* What a float keeps of a positive integer below 2^62. */
static uint64_t small_to_float(uint64_t value) {
    int extra = 0;
    while (value >> extra >= (uint64_t)1 << 24) extra++;
    return extra ? small_divide(value, extra) << extra : value;
}

/* The three roundings of the rule one after another: to float, of the product, to an integer; at most 512. */
static uint32_t small_scale_exactly(uint32_t magnitude, uint32_t mantissa, int shift) {
    const uint64_t rounded = small_divide(small_to_float(small_to_float(magnitude) * mantissa), shift);
    return rounded < 512 ? (uint32_t)rounded : 512;
}

/* The upper half of one product decides, unless it lies so near to a tie that a rounding of the rule could make or
 * break it: below 512, those move a value by 2^-15 at most. */
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
    const float scaled = (float)sum * *factor, low = (float)-zero, high = (float)(255 - zero);
    return (uint8_t)(sqz_round(scaled < low ? low : scaled > high ? high : scaled) + zero);
}

#endif

/* Two outputs, from `output` on, of pixels from `pixel` on. */
SQZ_INLINE void small_finish(const sqz_conv_job *job, int row, int pixel, int output, uint32_t sums[][2],
                             const int PIXELS) {
    if (job->y) {
        uint8_t *y = job->y + (size_t)row * job->y_row + (size_t)pixel * job->y_pixel + output;
        const int is_single = output + 1 == (job->panels - 1) * SQZ_LANES + job->last_outputs;
        const small_factor first = small_factor_of(job->multiplier[output]);
        const small_factor second = small_factor_of(job->multiplier[output + 1]);
        for (int p = 0; p < PIXELS; p++, y += job->y_pixel) {
            y[0] = small_scale((int32_t)sums[p][0], &first, job->zero);
            if (!is_single) y[1] = small_scale((int32_t)sums[p][1], &second, job->zero);
        }
    } else {
        const size_t step = (size_t)job->panels * SQZ_LANES;
        int32_t *raw = job->raw + (size_t)(row * job->pixels + pixel) * step + output;
        for (int p = 0; p < PIXELS; p++, raw += step) memcpy(raw, sums[p], 8);
    }
}

/* Outputs to compute: all lanes of a panel where sums are asked for. */
static int small_outputs(const sqz_conv_job *job) {
    return (job->panels - 1) * SQZ_LANES + (job->y ? job->last_outputs : SQZ_LANES);
}

static const uint8_t *small_weights(const sqz_conv_job *job, int output) {
    const size_t products = (size_t)(job->runs * job->groups) * 4;
    return job->weights + (size_t)(output / SQZ_LANES) * job->panel_bytes + products * (size_t)(output % SQZ_LANES);
}

#if defined(SQZ_SMALL_HELIUM)

/* --- Helium ------------------------------------------------------------------------------------------------------- */

/* There is no product of a byte with a sign and one without: this multiplies x - 128, and adds 128 times the sum of the
 * weights, which is the same for all pixels. */
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
    small_finish(job, row, pixel, output, sums, PIXELS);
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

static void small_conv(const sqz_conv_job *job) {
    for (int output = 0; output < small_outputs(job); output += 2) {
        uint32_t start[2];
        small_start(job, output, start);
        for (int row = 0; row < job->rows; row++) {
            int pixel = 0;
            for (; pixel + 2 <= job->pixels; pixel += 2) small_pair(job, row, pixel, output, start, 2);
            if (pixel < job->pixels) small_pair(job, row, pixel, output, start, 1);
        }
    }
}

#else

/* --- windows ------------------------------------------------------------------------------------------------------ */

/* The products of some pixels in 16 bits: [product / 2][pixel][product % 2]. */
static void small_lay_windows(const sqz_conv_job *job, const uint8_t *x, int pixels) {
    for (int p = 0; p < pixels; p++) {
        uint16_t *to = job->wide + 2 * p;
        for (int run = 0; run < job->runs; run++) {
            const uint8_t *from = x + (size_t)p * job->x_pixel + (size_t)run * job->x_run;
            for (int group = 0; group < job->groups; group++, from += 4, to += 4 * pixels) {
#if defined(SQZ_SMALL_DSP)
                uint32_t four, even, odd;
                memcpy(&four, from, 4);
                even = __uxtb16(four);
                odd = __uxtb16(__ror(four, 8));
                *(uint32_t *)(void *)to = (even & 0xFFFF) | odd << 16;
                *(uint32_t *)(void *)(to + 2 * pixels) = even >> 16 | (odd & 0xFFFF0000);
#else
                to[0] = from[0];
                to[1] = from[1];
                to[2 * pixels] = from[2];
                to[2 * pixels + 1] = from[3];
#endif
            }
        }
    }
}

#if defined(SQZ_SMALL_DSP)

SQZ_INLINE void small_sums(const uint16_t *windows, const uint8_t *weights, const uint16_t *end, uint32_t sums[][2],
                           const int PIXELS) {
    const uint32_t *x = (const uint32_t *)(const void *)windows;
    const uint32_t *w = (const uint32_t *)(const void *)weights;
    do {
        SQZ_UNROLL for (int half = 0; half < 2; half++, x += PIXELS, w++) {
            const uint32_t first = __sxtb16(*w), second = __sxtb16(__ror(*w, 8));
            SQZ_UNROLL for (int p = 0; p < PIXELS; p++) {
                sums[p][0] = (uint32_t)__smlad(x[p], first, (int32_t)sums[p][0]);
                sums[p][1] = (uint32_t)__smlad(x[p], second, (int32_t)sums[p][1]);
            }
        }
    } while (x != (const uint32_t *)(const void *)end);
}

#else

/* Unsigned, since partial sums may wrap where the whole does not. */
SQZ_INLINE void small_sums(const uint16_t *x, const uint8_t *weights, const uint16_t *end, uint32_t sums[][2],
                           const int PIXELS) {
    const int8_t *w = (const int8_t *)weights;
    do {
        SQZ_UNROLL for (int k = 0; k < 4; k++) {
            const int first = w[2 * k], second = w[2 * k + 1];
            SQZ_UNROLL for (int p = 0; p < PIXELS; p++) {
                const int value = x[2 * PIXELS * (k / 2) + 2 * p + k % 2];
                sums[p][0] += (uint32_t)(value * first);
                sums[p][1] += (uint32_t)(value * second);
            }
        }
        x += 4 * PIXELS;
        w += 8;
    } while (x != end);
}

#endif

SQZ_INLINE void small_pixels(const sqz_conv_job *job, int row, int pixel, const int PIXELS) {
    const int outputs = small_outputs(job);
    const uint16_t *end = job->wide + (size_t)(job->runs * job->groups) * 4 * (size_t)PIXELS;
    small_lay_windows(job, job->x + (size_t)row * job->x_row + (size_t)pixel * job->x_pixel, PIXELS);
    for (int output = 0; output < outputs; output += 2) {
        uint32_t sums[SQZ_WINDOW_PIXELS][2];
        SQZ_UNROLL for (int p = 0; p < PIXELS; p++) memcpy(sums[p], job->bias + output, 8);
        small_sums(job->wide, small_weights(job, output), end, sums, PIXELS);
        small_finish(job, row, pixel, output, sums, PIXELS);
    }
}

static void small_pixels_1(const sqz_conv_job *job, int row, int pixel) { small_pixels(job, row, pixel, 1); }
static void small_pixels_2(const sqz_conv_job *job, int row, int pixel) { small_pixels(job, row, pixel, 2); }
static void small_pixels_3(const sqz_conv_job *job, int row, int pixel) { small_pixels(job, row, pixel, 3); }
static void small_pixels_4(const sqz_conv_job *job, int row, int pixel) { small_pixels(job, row, pixel, 4); }

static void small_conv(const sqz_conv_job *job) {
    static void (*const blocks[])(const sqz_conv_job *job, int row, int pixel) = {small_pixels_1, small_pixels_2,
                                                                                small_pixels_3, small_pixels_4};
    const int count = (job->pixels + SQZ_WINDOW_PIXELS - 1) / SQZ_WINDOW_PIXELS;
    for (int row = 0; row < job->rows; row++) {
        for (int block = 0; block < count; block++) {
            const int pixel = job->pixels * block / count, next = job->pixels * (block + 1) / count;
            blocks[next - pixel - 1](job, row, pixel);
        }
    }
}

#endif

const sqz_kernels sqz_small_kernels = {
    "small", SQZ_PACK_TWOS, 0, SQZ_WIDE_WINDOWS, small_conv, sqz_pool_row, sqz_add_row, NULL, NULL,
};
#endif
