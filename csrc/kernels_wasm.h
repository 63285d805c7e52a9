/* kernels_wasm.h - rounding and storing of sums, for both WebAssembly kernels. */
#ifndef KERNELS_WASM_H
#define KERNELS_WASM_H

#include "sqz_internal.h"

#include <wasm_simd128.h>

/* Rounds half to even as `sqz_round` does, and adds `zero`: the number is in the lowest bits of a float of this size. */
SQZ_INLINE v128_t wasm_requantize(v128_t acc, v128_t multiplier, v128_t low, v128_t high, v128_t zero) {
    v128_t scaled = wasm_f32x4_mul(wasm_f32x4_convert_i32x4(acc), multiplier);
    scaled = wasm_f32x4_add(wasm_f32x4_pmin(high, wasm_f32x4_pmax(low, scaled)), wasm_f32x4_splat(12582912.0f));
    return wasm_i32x4_add(scaled, zero);
}

/* Stores one pixel's 16 sums of a panel, requantised to bytes at y, or unchanged at raw. */
SQZ_INLINE void wasm_finish(const sqz_conv_job *job, const v128_t acc[4], int panel, uint8_t *y, int32_t *raw) {
    const float *multiplier = job->multiplier + panel * SQZ_LANES;
    v128_t part[4], bytes;
    if (!y) {
        SQZ_UNROLL for (int n = 0; n < 4; n++) wasm_v128_store(raw + 4 * n, acc[n]);
        return;
    }
    const v128_t low = wasm_f32x4_splat((float)-job->zero), high = wasm_f32x4_splat((float)(255 - job->zero));
    const v128_t zero = wasm_i32x4_splat(job->zero - 0x4B400000); /* the bits of 12582912.0f */
    SQZ_UNROLL for (int n = 0; n < 4; n++) {
        part[n] = wasm_requantize(acc[n], wasm_v128_load(multiplier + 4 * n), low, high, zero);
    }
    bytes = wasm_u8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(part[0], part[1]),
                                    wasm_i16x8_narrow_i32x4(part[2], part[3]));
    if (panel + 1 < job->panels || job->last_outputs == SQZ_LANES) {
        wasm_v128_store(y, bytes);
        return;
    }
    for (int o = 0; o < job->last_outputs; o++) {
        y[o] = (uint8_t)wasm_i8x16_extract_lane(bytes, 0);
        bytes = wasm_i8x16_shuffle(bytes, bytes, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0);
    }
}
#endif
