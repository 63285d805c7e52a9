/* web_relaxed.c - convolutions by relaxed dot products of bytes. This is a separate module, because a browser that lacks
 * one of its instructions rejects the whole module. It works in the memory of the main module. `sqz_web.c` passes it every
 * panel once, when a model is opened, and then every convolution.
 *
 * The second factor of these instructions must be in 0..127; otherwise results differ between machines. An output's
 * weights are therefore stored as w - lowest and its input as x - 128, and the result is corrected by
 *     sum(x w) = sum((x - 128) (w - lowest)) + lowest sum(x - 128) + 128 sum(w).
 * The second term uses a sum per pixel; the third is part of the bias. A panel is left unchanged if the weights of one of
 * its outputs differ by more than 127. A sum of two products is at most 2 * 128 * 127 = 32512 in size: nothing saturates.
 *
 * Code here must not use static memory, which would overlap the engine's, nor more stack than the 1,024 bytes that linkers
 * leave free at the beginning (it uses none). */
#include "../kernels_wasm.h"
#include "web.h"

enum { RELAXED_PIXELS = 2 };

/* A packed panel: int8 [group][16][4] instead of int16 [group][2][16][2], followed by `lowest` of each output. */
SQZ_INLINE uint8_t *relaxed_lowest(const uint8_t *panel, int groups) { return (uint8_t *)panel + (size_t)groups * 64; }

/* Products 0 and 1 (half 0) or 2 and 3 of a group, for outputs 4n to 4n + 3. */
SQZ_INLINE v128_t relaxed_wide(const uint8_t *panel, int group, int half, int n) {
    return wasm_v128_load(panel + (size_t)group * 128 + 64 * half + 16 * n);
}

/* 1, 2 or 4: the number of consecutive groups of a run whose sums of pairs fit 16 bits, for outputs 4n to 4n + 3. */
static int relaxed_groups(const uint8_t *panel, int runs, int groups, int n, v128_t lowest) {
    const v128_t ones = wasm_i16x8_splat(1), twice = wasm_i32x4_add(lowest, lowest);
    const v128_t most = wasm_i32x4_splat(255); /* 255 * 128 < 2^15 */
    v128_t beyond[2] = {wasm_i32x4_splat(0), wasm_i32x4_splat(0)};
    for (int run = 0; run < runs; run++) {
        for (int half = 0; half < 2; half++) {
            for (int first = 0; first < groups; first += 4) {
                v128_t two = wasm_i32x4_splat(0), four = two;
                for (int group = first; group < sqz_min(first + 4, groups); group++) {
                    v128_t w = relaxed_wide(panel, run * groups + group, half, n);
                    w = wasm_i32x4_sub(wasm_i32x4_dot_i16x8(w, ones), twice);
                    four = wasm_i32x4_add(four, w);
                    two = group & 1 ? wasm_i32x4_add(two, w) : w;
                    beyond[0] = wasm_v128_or(beyond[0], wasm_i32x4_gt(two, most));
                }
                beyond[1] = wasm_v128_or(beyond[1], wasm_i32x4_gt(four, most));
            }
        }
    }
    return wasm_v128_any_true(beyond[0]) ? 1 : wasm_v128_any_true(beyond[1]) ? 2 : 4;
}

/* Bytes of outputs 4n to 4n + 3 of a group. */
SQZ_INLINE v128_t relaxed_bytes(const uint8_t *panel, int group, int n, v128_t lowest) {
    const v128_t both = wasm_i16x8_shuffle(lowest, lowest, 0, 0, 2, 2, 4, 4, 6, 6);
    const v128_t first = wasm_i16x8_sub(relaxed_wide(panel, group, 0, n), both);
    const v128_t second = wasm_i16x8_sub(relaxed_wide(panel, group, 1, n), both);
    return wasm_i8x16_narrow_i16x8(wasm_i16x8_shuffle(first, second, 0, 1, 8, 9, 2, 3, 10, 11),
                                   wasm_i16x8_shuffle(first, second, 4, 5, 12, 13, 6, 7, 14, 15));
}

/* Packs a panel again and returns its kind; with SQZ_PANEL_WIDE, it and its bias are unchanged. */
WEB_EXPORT(relaxed_pack) int relaxed_pack(uint8_t *panel, int runs, int groups, int32_t *bias) {
    const int all = runs * groups;
    const v128_t ones = wasm_i16x8_splat(1);
    v128_t lowest[4], sum[4];
    int kind = 4;
    SQZ_UNROLL for (int n = 0; n < 4; n++) {
        v128_t low = wasm_i16x8_splat(0), high = low;
        sum[n] = low;
        for (int i = 0; i < 2 * all; i++) {
            const v128_t w = relaxed_wide(panel, i >> 1, i & 1, n);
            low = wasm_i16x8_min(low, w);
            high = wasm_i16x8_max(high, w);
            sum[n] = wasm_i32x4_add(sum[n], wasm_i32x4_dot_i16x8(w, ones));
        }
        low = wasm_i32x4_min(wasm_i32x4_shr(low, 16), wasm_i32x4_shr(wasm_i32x4_shl(low, 16), 16));
        high = wasm_i32x4_max(wasm_i32x4_shr(high, 16), wasm_i32x4_shr(wasm_i32x4_shl(high, 16), 16));
        if (wasm_v128_any_true(wasm_i32x4_gt(wasm_i32x4_sub(high, low), wasm_i32x4_splat(127)))) return SQZ_PANEL_WIDE;
        kind = sqz_min(kind, relaxed_groups(panel, runs, groups, n, low));
        lowest[n] = low;
    }
    for (int group = 0; group < all; group++) {
        v128_t bytes[4];
        SQZ_UNROLL for (int n = 0; n < 4; n++) bytes[n] = relaxed_bytes(panel, group, n, lowest[n]);
        SQZ_UNROLL for (int n = 0; n < 4; n++) wasm_v128_store(panel + (size_t)group * 64 + 16 * n, bytes[n]);
    }
    SQZ_UNROLL for (int n = 0; n < 4; n++) {
        wasm_v128_store(relaxed_lowest(panel, all) + 16 * n, lowest[n]);
        wasm_v128_store(bias + 4 * n, wasm_i32x4_add(wasm_v128_load(bias + 4 * n), wasm_i32x4_shl(sum[n], 7)));
    }
    return kind;
}

/* One row of input as x - 128, run after run, and its sum for every pixel. */
static void relaxed_read(const sqz_conv_job *job, const uint8_t *x, int8_t *to, int32_t *sums) {
    const size_t count = sqz_wide_run(job->pixels, job->x_pixel, job->groups);
    int8_t *const start = to;
    for (int run = 0; run < job->runs; run++, x += job->x_run, to += count) {
        size_t i = 0;
        for (; i + 16 <= count; i += 16) {
            wasm_v128_store(to + i, wasm_v128_xor(wasm_v128_load(x + i), wasm_i8x16_splat(-128)));
        }
        for (; i < count; i++) to[i] = (int8_t)(x[i] ^ 128);
    }
    for (int pixel = 0; pixel < job->pixels; pixel++) {
        const int8_t *at = start + (size_t)pixel * job->x_pixel;
        v128_t sum = wasm_i32x4_splat(0);
        int left = 0;
        for (int run = 0; run < job->runs; run++, at += count) {
            int i = 0;
            for (; i + 4 <= job->groups; i += 4) {
                const v128_t pairs = wasm_i16x8_extadd_pairwise_i8x16(wasm_v128_load(at + 4 * i));
                sum = wasm_i32x4_add(sum, wasm_i32x4_extadd_pairwise_i16x8(pairs));
            }
            for (i *= 4; i < 4 * job->groups; i++) left += at[i];
        }
        sums[pixel] = left + wasm_i32x4_extract_lane(sum, 0) + wasm_i32x4_extract_lane(sum, 1) +
                      wasm_i32x4_extract_lane(sum, 2) + wasm_i32x4_extract_lane(sum, 3);
    }
}

/* `GROUPS` groups of PIXELS pixels; 0 stands for one group, with the instruction that adds four products at once. */
SQZ_INLINE void relaxed_add(v128_t acc[RELAXED_PIXELS][4], const int8_t *x, size_t x_pixel, const uint8_t *weights,
                            const int PIXELS, const int GROUPS) {
    const v128_t ones = wasm_i16x8_splat(1);
    v128_t in[RELAXED_PIXELS][4];
    SQZ_UNROLL for (int g = 0; g < (GROUPS ? GROUPS : 1); g++) {
        SQZ_UNROLL for (int m = 0; m < PIXELS; m++) in[m][g] = wasm_v128_load32_splat(x + (size_t)m * x_pixel + 4 * g);
    }
    SQZ_UNROLL for (int n = 0; n < 4; n++) {
        v128_t sum[RELAXED_PIXELS];
        if (!GROUPS) {
            const v128_t w = wasm_v128_load(weights + 16 * n);
            SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
                acc[m][n] = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(in[m][0], w, acc[m][n]);
            }
            continue;
        }
        SQZ_UNROLL for (int g = 0; g < GROUPS; g++) {
            const v128_t w = wasm_v128_load(weights + 64 * g + 16 * n);
            SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
                const v128_t pairs = wasm_i16x8_relaxed_dot_i8x16_i7x16(in[m][g], w);
                sum[m] = g ? wasm_i16x8_add(sum[m], pairs) : pairs;
            }
        }
        SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
            acc[m][n] = wasm_i32x4_add(acc[m][n], wasm_i32x4_dot_i16x8(sum[m], ones));
        }
    }
}

SQZ_INLINE void relaxed_block(const sqz_conv_job *job, const int8_t *x, const int32_t *sums, int panel, uint8_t *y,
                              int32_t *raw, const int PIXELS, const int GROUPS) {
    const size_t run_products = sqz_wide_run(job->pixels, job->x_pixel, job->groups);
    const uint8_t *weights = job->weights + (size_t)panel * job->panel_bytes;
    const int step = GROUPS ? GROUPS : 1;
    v128_t acc[RELAXED_PIXELS][4];
    SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
        SQZ_UNROLL for (int n = 0; n < 4; n++) acc[m][n] = wasm_v128_load(job->bias + panel * SQZ_LANES + 4 * n);
    }
    for (int run = 0; run < job->runs; run++, x += run_products) {
        const int8_t *at = x;
        int left = job->groups;
        for (; left >= step; left -= step, at += 4 * step, weights += 64 * step) {
            relaxed_add(acc, at, job->x_pixel, weights, PIXELS, GROUPS);
        }
        if (step > 1) {
            for (; left; left--, at += 4, weights += 64) relaxed_add(acc, at, job->x_pixel, weights, PIXELS, 1);
        }
    }
    SQZ_UNROLL for (int n = 0; n < 4; n++) { /* `weights` is at the panel's end */
        const v128_t lowest = wasm_v128_load(weights + 16 * n);
        SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
            acc[m][n] = wasm_i32x4_add(acc[m][n], wasm_i32x4_mul(lowest, wasm_v128_load32_splat(sums + m)));
        }
    }
    SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
        wasm_finish(job, acc[m], panel, y ? y + (size_t)m * job->y_pixel : NULL, raw + m * job->panels * SQZ_LANES);
    }
}

SQZ_INLINE void relaxed_pixels(const sqz_conv_job *job, const int8_t *x, const int32_t *sums, int row, int panel,
                               const int GROUPS) {
    for (int first = 0; first < job->pixels; first += RELAXED_PIXELS, x += RELAXED_PIXELS * job->x_pixel) {
        uint8_t *y = NULL;
        int32_t *raw = NULL;
        if (job->y) {
            y = job->y + (size_t)row * job->y_row + (size_t)first * job->y_pixel + (size_t)(panel * SQZ_LANES);
        } else {
            raw = job->raw + ((row * job->pixels + first) * job->panels + panel) * SQZ_LANES;
        }
        if (first + RELAXED_PIXELS <= job->pixels) {
            relaxed_block(job, x, sums + first, panel, y, raw, RELAXED_PIXELS, GROUPS);
        } else {
            relaxed_block(job, x, sums + first, panel, y, raw, 1, GROUPS);
        }
    }
}

SQZ_INLINE int relaxed_dot(int8_t a, int8_t b) {
    const v128_t zero = wasm_i32x4_splat(0);
    return wasm_i32x4_extract_lane(wasm_i32x4_relaxed_dot_i8x16_i7x16_add(wasm_i8x16_splat(a), wasm_i8x16_splat(b), zero), 0);
}

/* On processors without an instruction that sums four products, this is slower than sums of pairs. These processors
 * saturate if the second factor is out of range; others do not. This test tells them apart. The results of convolutions
 * are the same either way. */
WEB_EXPORT(relaxed_has_dot) int relaxed_has_dot(void) {
    return relaxed_dot(127, 127) == 4 * 127 * 127 && relaxed_dot(127, -1) != 2 * 32767;
}

/* All panels that `relaxed_pack` has packed. */
WEB_EXPORT(relaxed_conv) void relaxed_conv(const sqz_conv_job *job, int has_dot) {
    int8_t *const x = (int8_t *)job->wide; /* it is half as long as 16 bits each */
    const size_t bytes = sqz_wide_run(job->pixels, job->x_pixel, job->groups) * (size_t)job->runs;
    int32_t *const sums = (int32_t *)(void *)(x + sqz_round_up(bytes, 4));
    for (int row = 0; row < job->rows; row++) {
        relaxed_read(job, job->x + (size_t)row * job->x_row, x, sums);
        for (int panel = 0; panel < job->panels; panel++) {
            const int kind = job->kinds[panel];
            if (kind == SQZ_PANEL_WIDE) continue;
            if (has_dot) {
                relaxed_pixels(job, x, sums, row, panel, 0);
            } else if (kind == SQZ_PANEL_PAIRS_OF_4) {
                relaxed_pixels(job, x, sums, row, panel, 4);
            } else if (kind == SQZ_PANEL_PAIRS_OF_2) {
                relaxed_pixels(job, x, sums, row, panel, 2);
            } else {
                relaxed_pixels(job, x, sums, row, panel, 1);
            }
        }
    }
}
