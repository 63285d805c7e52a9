/* web_pixels.c - from decoded RGBA rows to the network's input: "Preprocessing" in docs/format.md from step 4 on, exactly.
 *
 *     web_image_begin(width, height, resize_size, squash, bicubic) -> status; then, until all rows have arrived,
 *     write up to web_strip_rows() rows at web_strip(), web_image_rows(count)
 *     web_image_end() leaves the result at web_pixels()
 *
 * Each row is resized horizontally when it arrives, so that the whole photo is never in memory here; vertical resizing
 * follows when all rows have arrived. */
#include "web.h"

#include <wasm_simd128.h>

enum { PIXELS_STRIP_BYTES = 1 << 20, PIXELS_MAX = 100000000, PIXELS_BITS = 22 };

/* Resizes one axis from `size` to `out_size`, for the `count` outputs from `offset` on. */
typedef struct {
    int size, out_size, offset, count, taps;
    int32_t *first, *length, *weights; /* [count], [count], [count][taps] */
} pixels_axis;

static struct {
    pixels_axis across, down;
    int row, first_row, last_row; /* the next row to arrive; the rows that the result depends on */
    int strip_rows, alpha; /* whether a row was not opaque */
    uint8_t *strip;    /* RGBA */
    uint8_t *narrowed; /* RGB rows from first_row on, resized horizontally */
} pixels;

static double pixels_filter(double x, int bicubic) {
    if (x < 0) x = -x;
    if (!bicubic) return x < 1.0 ? 1.0 - x : 0.0;
    if (x < 1.0) return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1.0;
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 : 0.0;
}

static int pixels_axis_set(pixels_axis *axis, int size, int out_size, int count, int bicubic) {
    const double scale = (double)size / out_size, stretch = scale > 1.0 ? scale : 1.0;
    const double support = (bicubic ? 2.0 : 1.0) * stretch;
    const int spare = out_size - count, half = spare / 2;
    axis->size = size;
    axis->out_size = out_size;
    axis->count = count;
    axis->offset = half + (spare & 1 ? half & 1 : 0); /* halves to even */
    axis->taps = (int)(2 * support) + 3;
    if ((size_t)axis->taps * (size_t)count > SIZE_MAX / 8) return SQZ_NO_MEMORY;
    axis->first = web_alloc(sizeof(int32_t) * (size_t)count);
    axis->length = web_alloc(sizeof(int32_t) * (size_t)count);
    axis->weights = web_alloc(sizeof(int32_t) * (size_t)count * (size_t)axis->taps);
    double *shares = web_alloc(sizeof(double) * (size_t)axis->taps);
    if (!axis->first || !axis->length || !axis->weights || !shares) return SQZ_NO_MEMORY;
    for (int i = 0; i < count; i++) {
        const double centre = (axis->offset + i + 0.5) * scale;
        const int first = sqz_max(0, (int)(centre - support + 0.5));
        const int last = sqz_min(size, (int)(centre + support + 0.5));
        int32_t *weights = axis->weights + (size_t)i * (size_t)axis->taps;
        double total = 0.0;
        axis->first[i] = first;
        axis->length[i] = last - first;
        if (size == out_size) { /* unchanged */
            axis->first[i] = axis->offset + i;
            axis->length[i] = 1;
            weights[0] = 1 << PIXELS_BITS;
            continue;
        }
        for (int x = first; x < last; x++) {
            shares[x - first] = pixels_filter((x - centre + 0.5) * (1.0 / stretch), bicubic);
            total += shares[x - first];
        }
        for (int k = 0; k < last - first; k++) {
            const double share = shares[k] / total;
            weights[k] = (int32_t)(share * (1 << PIXELS_BITS) + (share < 0 ? -0.5 : 0.5));
        }
    }
    return SQZ_OK;
}

WEB_EXPORT(web_image_begin) int web_image_begin(int width, int height, int resize_size, int squash, int bicubic) {
    const int crop = web_input_size();
    int out_width = resize_size, out_height = resize_size, status, last;
    web_release();
    if (!crop || width < 1 || height < 1 || resize_size < crop) return SQZ_BAD_ARGUMENT;
    if ((int64_t)width * height > PIXELS_MAX) return SQZ_LIMIT_EXCEEDED;
    if (!squash) {
        const int short_side = sqz_min(width, height);
        const int64_t wide = (int64_t)resize_size * width / short_side, high = (int64_t)resize_size * height / short_side;
        if (wide > PIXELS_MAX || high > PIXELS_MAX || wide * high > PIXELS_MAX) return SQZ_LIMIT_EXCEEDED;
        out_width = (int)wide;
        out_height = (int)high;
    }
    if ((int64_t)out_width * height > PIXELS_MAX) return SQZ_LIMIT_EXCEEDED;
    status = pixels_axis_set(&pixels.across, width, out_width, crop, bicubic);
    if (!status) status = pixels_axis_set(&pixels.down, height, out_height, crop, bicubic);
    if (status) return status;
    last = crop - 1;
    pixels.row = pixels.alpha = 0;
    pixels.first_row = pixels.down.first[0];
    pixels.last_row = pixels.down.first[last] + pixels.down.length[last];
    pixels.strip_rows = sqz_max(1, PIXELS_STRIP_BYTES / (4 * width));
    pixels.strip = web_alloc(4 * (size_t)width * (size_t)pixels.strip_rows);
    pixels.narrowed = web_alloc(3 * (size_t)crop * (size_t)(pixels.last_row - pixels.first_row));
    return pixels.strip && pixels.narrowed ? SQZ_OK : SQZ_NO_MEMORY;
}

/* Draws one row over white. */
static void pixels_flatten(uint8_t *at, int width) {
    for (int x = 0; x < width; x++, at += 4) {
        const uint32_t alpha = at[3];
        if (alpha == 255) continue;
        pixels.alpha = 1;
        for (int c = 0; c < 3; c++) {
            const uint32_t t = 128 * (at[c] * alpha + 255 * (255 - alpha)) + 16384;
            at[c] = alpha ? (uint8_t)(((t >> 8) + t) >> 15) : 255;
        }
    }
}

WEB_EXPORT(web_image_rows) int web_image_rows(int count) {
    const pixels_axis *across = &pixels.across;
    if (!pixels.strip || count < 0 || count > pixels.strip_rows) return SQZ_BAD_ARGUMENT;
    for (int i = 0; i < count; i++, pixels.row++) {
        uint8_t *row = pixels.strip + 4 * (size_t)i * (size_t)across->size, *to;
        if (pixels.row < pixels.first_row || pixels.row >= pixels.last_row) continue;
        pixels_flatten(row, across->size);
        to = pixels.narrowed + 3 * (size_t)(pixels.row - pixels.first_row) * (size_t)across->count;
        for (int out = 0; out < across->count; out++, to += 3) {
            const uint8_t *from = row + 4 * (size_t)across->first[out];
            const int32_t *weights = across->weights + (size_t)out * (size_t)across->taps;
            v128_t sum = wasm_i32x4_splat(1 << (PIXELS_BITS - 1));
            for (int k = 0; k < across->length[out]; k++, from += 4) {
                const v128_t pixel = wasm_u32x4_extend_low_u16x8(wasm_u16x8_extend_low_u8x16(wasm_v128_load32_zero(from)));
                sum = wasm_i32x4_add(sum, wasm_i32x4_mul(pixel, wasm_i32x4_splat(weights[k])));
            }
            sum = wasm_i32x4_shr(sum, PIXELS_BITS);
            sum = wasm_i32x4_min(wasm_i32x4_max(sum, wasm_i32x4_splat(0)), wasm_i32x4_splat(255));
            to[0] = (uint8_t)wasm_i32x4_extract_lane(sum, 0);
            to[1] = (uint8_t)wasm_i32x4_extract_lane(sum, 1);
            to[2] = (uint8_t)wasm_i32x4_extract_lane(sum, 2);
        }
    }
    return SQZ_OK;
}

WEB_EXPORT(web_image_end) int web_image_end(void) {
    const pixels_axis *down = &pixels.down;
    const int line = 3 * down->count; /* the crop is a square */
    int32_t *sums = web_alloc(sizeof(int32_t) * (size_t)line);
    uint8_t *to = web_pixels();
    if (!sums) return SQZ_NO_MEMORY;
    if (!pixels.narrowed || pixels.row < pixels.last_row) return SQZ_BAD_ARGUMENT;
    for (int out = 0; out < down->count; out++, to += line) {
        const int32_t *weights = down->weights + (size_t)out * (size_t)down->taps;
        const uint8_t *from = pixels.narrowed + (size_t)(down->first[out] - pixels.first_row) * (size_t)line;
        for (int i = 0; i < line; i++) sums[i] = 1 << (PIXELS_BITS - 1);
        for (int k = 0; k < down->length[out]; k++, from += line) {
            for (int i = 0; i < line; i++) sums[i] += from[i] * weights[k];
        }
        for (int i = 0; i < line; i++) to[i] = (uint8_t)sqz_min(sqz_max(sums[i] >> PIXELS_BITS, 0), 255);
    }
    return SQZ_OK;
}

WEB_EXPORT(web_strip) uint8_t *web_strip(void) { return pixels.strip; }
WEB_EXPORT(web_strip_rows) int web_strip_rows(void) { return pixels.strip_rows; }
WEB_EXPORT(web_image_alpha) int web_image_alpha(void) { return pixels.alpha; }
