/* kernels_wasm.c - WebAssembly SIMD: 16-bit products in pairs, with weights laid out as for AVX2's wide panels. */
#include "sqz_internal.h"

#if defined(SQZ_WASM)
#include <wasm_simd128.h>

enum { WASM_PIXELS = 2 };

SQZ_INLINE v128_t wasm_requantize(v128_t acc, v128_t multiplier, v128_t low, v128_t high, v128_t zero) {
    v128_t scaled = wasm_f32x4_mul(wasm_f32x4_convert_i32x4(acc), multiplier);
    scaled = wasm_f32x4_nearest(wasm_f32x4_pmin(high, wasm_f32x4_pmax(low, scaled)));
    return wasm_i32x4_add(wasm_i32x4_trunc_sat_f32x4(scaled), zero);
}

SQZ_INLINE void wasm_block(const sqz_conv_job *job, const uint16_t *wide, const uint8_t *weights, int panel,
                           uint8_t *y, int32_t *raw, const int PIXELS) {
    const size_t run_products = sqz_wide_run(job->pixels, job->x_pixel, job->groups);
    v128_t acc[WASM_PIXELS][4];
    SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
        SQZ_UNROLL for (int n = 0; n < 4; n++) acc[m][n] = wasm_v128_load(job->bias + panel * SQZ_LANES + 4 * n);
    }
    for (int run = 0; run < job->runs; run++, wide += run_products) {
        const uint16_t *at = wide;
        for (int pair = 0; pair < 2 * job->groups; pair++, at += 2, weights += 64) {
            v128_t two[WASM_PIXELS];
            SQZ_UNROLL for (int m = 0; m < PIXELS; m++) two[m] = wasm_v128_load32_splat(at + (size_t)m * job->x_pixel);
            SQZ_UNROLL for (int n = 0; n < 4; n++) {
                v128_t w = wasm_v128_load(weights + 16 * n);
                SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
                    acc[m][n] = wasm_i32x4_add(acc[m][n], wasm_i32x4_dot_i16x8(two[m], w));
                }
            }
        }
    }
    if (!y) {
        SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
            SQZ_UNROLL for (int n = 0; n < 4; n++) {
                wasm_v128_store(raw + (m * job->panels + panel) * SQZ_LANES + 4 * n, acc[m][n]);
            }
        }
        return;
    }
    const v128_t low = wasm_f32x4_splat((float)-job->zero), high = wasm_f32x4_splat((float)(255 - job->zero));
    const v128_t zero = wasm_i32x4_splat(job->zero);
    const float *multiplier = job->multiplier + panel * SQZ_LANES;
    int outputs = panel + 1 == job->panels ? job->last_outputs : SQZ_LANES;
    SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
        v128_t part[4], bytes;
        uint8_t *to = y + (size_t)m * job->y_pixel;
        SQZ_UNROLL for (int n = 0; n < 4; n++) {
            part[n] = wasm_requantize(acc[m][n], wasm_v128_load(multiplier + 4 * n), low, high, zero);
        }
        bytes = wasm_u8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(part[0], part[1]),
                                        wasm_i16x8_narrow_i32x4(part[2], part[3]));
        if (outputs == SQZ_LANES) {
            wasm_v128_store(to, bytes);
        } else {
            uint8_t all[SQZ_LANES];
            wasm_v128_store(all, bytes);
            for (int o = 0; o < outputs; o++) to[o] = all[o];
        }
    }
}

/* One row of input in 16 bits, all runs behind each other. */
static void wasm_widen(const sqz_conv_job *job, const uint8_t *x) {
    const size_t count = sqz_wide_run(job->pixels, job->x_pixel, job->groups);
    uint16_t *to = job->wide;
    for (int run = 0; run < job->runs; run++, x += job->x_run, to += count) {
        size_t i = 0;
        for (; i + 8 <= count; i += 8) wasm_v128_store(to + i, wasm_u16x8_load8x8(x + i));
        for (; i < count; i++) to[i] = x[i];
    }
}

static void wasm_conv(const sqz_conv_job *job) {
    for (int row = 0; row < job->rows; row++) {
        wasm_widen(job, job->x + (size_t)row * job->x_row);
        for (int panel = 0; panel < job->panels; panel++) {
            const uint8_t *weights = job->weights + (size_t)panel * job->panel_bytes;
            for (int first = 0; first < job->pixels; first += WASM_PIXELS) {
                const uint16_t *wide = job->wide + (size_t)first * job->x_pixel;
                size_t at = (size_t)row * job->y_row + (size_t)first * job->y_pixel + (size_t)(panel * SQZ_LANES);
                uint8_t *y = job->y ? job->y + at : NULL;
                int32_t *raw = job->y ? NULL : job->raw + (row * job->pixels + first) * job->panels * SQZ_LANES;
                if (first + WASM_PIXELS <= job->pixels) {
                    wasm_block(job, wide, weights, panel, y, raw, WASM_PIXELS);
                } else {
                    wasm_block(job, wide, weights, panel, y, raw, 1);
                }
            }
        }
    }
}

const sqz_kernels sqz_wasm_kernels = {
    "wasm", SQZ_PACK_S16, 0, 1, wasm_conv, sqz_pool_row, sqz_add_row, NULL, NULL,
};
#endif
