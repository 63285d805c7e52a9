/* kernels_wasm.c - WebAssembly SIMD: 16-bit products in pairs, with weights laid out as for AVX2's wide panels. */
#include "sqz_internal.h"

#if defined(SQZ_WASM)
#include "kernels_wasm.h"

enum { WASM_PIXELS = 2 };

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
    SQZ_UNROLL for (int m = 0; m < PIXELS; m++) {
        wasm_finish(job, acc[m], panel, y ? y + (size_t)m * job->y_pixel : NULL, raw + m * job->panels * SQZ_LANES);
    }
}

/* One row of input in 16 bits, run after run. */
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
            if (job->kinds[panel] != SQZ_PANEL_WIDE) continue; /* web/web_relaxed.c has computed it */
            for (int first = 0; first < job->pixels; first += WASM_PIXELS) {
                const uint16_t *wide = job->wide + (size_t)first * job->x_pixel;
                size_t at = (size_t)row * job->y_row + (size_t)first * job->y_pixel + (size_t)(panel * SQZ_LANES);
                uint8_t *y = job->y ? job->y + at : NULL;
                int32_t *raw = job->raw;
                if (!y) raw += ((row * job->pixels + first) * job->panels + panel) * SQZ_LANES;
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
