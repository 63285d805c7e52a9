/* kernels_scalar.c - the portable kernel set; all others must give exactly its results. */
#include "sqz_internal.h"

#if !defined(SQZ_WASM) && !defined(SQZ_SMALL_ONLY) /* every WebAssembly engine that runs our page has SIMD */
enum { SCALAR_PIXELS = 4, SCALAR_OUTPUTS = 4 };

/* Sums of `pixels` pixels by 4 outputs. Unsigned, since partial sums may wrap even if the total does not. */
#if defined(__GNUC__) && !defined(__clang__)
__attribute__((optimize("no-tree-vectorize"))) /* GCC shuffles more than it multiplies */
#endif
static void scalar_sums(const sqz_conv_job *job, const uint8_t *x, const uint8_t *weights, int pixels,
                        uint32_t acc[SCALAR_PIXELS][SCALAR_OUTPUTS]) {
    for (int run = 0; run < job->runs; run++, x += job->x_run) {
        for (int group = 0; group < job->groups; group++, weights += 4 * SQZ_LANES) {
            const int8_t *w = (const int8_t *)weights;
            for (int m = 0; m < pixels; m++) {
                const uint8_t *four = x + (size_t)m * job->x_pixel + 4 * (size_t)group;
                const int x0 = four[0], x1 = four[1], x2 = four[2], x3 = four[3];
                acc[m][0] += (uint32_t)(x0 * w[0] + x1 * w[1] + x2 * w[2] + x3 * w[3]);
                acc[m][1] += (uint32_t)(x0 * w[4] + x1 * w[5] + x2 * w[6] + x3 * w[7]);
                acc[m][2] += (uint32_t)(x0 * w[8] + x1 * w[9] + x2 * w[10] + x3 * w[11]);
                acc[m][3] += (uint32_t)(x0 * w[12] + x1 * w[13] + x2 * w[14] + x3 * w[15]);
            }
        }
    }
}

static void scalar_block(const sqz_conv_job *job, int row, int first, int pixels, int output, int outputs) {
    const int panel = output / SQZ_LANES, lane = output % SQZ_LANES;
    const uint8_t *weights = job->weights + (size_t)panel * job->panel_bytes + (size_t)lane * 4;
    const uint8_t *x = job->x + (size_t)row * job->x_row + (size_t)first * job->x_pixel;
    const float low = (float)-job->zero, high = (float)(255 - job->zero);
    uint32_t acc[SCALAR_PIXELS][SCALAR_OUTPUTS];
    for (int m = 0; m < pixels; m++) memcpy(acc[m], job->bias + output, sizeof acc[m]);
    if (pixels == SCALAR_PIXELS) {
        scalar_sums(job, x, weights, SCALAR_PIXELS, acc);
    } else {
        scalar_sums(job, x, weights, pixels, acc);
    }
    for (int m = 0; m < pixels; m++) {
        if (!job->y) {
            size_t pixel = (size_t)(row * job->pixels + first + m);
            memcpy(job->raw + pixel * (size_t)job->panels * SQZ_LANES + output, acc[m], sizeof acc[m]);
            continue;
        }
        uint8_t *y = job->y + (size_t)row * job->y_row + (size_t)(first + m) * job->y_pixel + output;
        for (int n = 0; n < outputs; n++) {
            float scaled = (float)(int32_t)acc[m][n] * job->multiplier[output + n];
            y[n] = (uint8_t)(sqz_round(scaled < low ? low : scaled > high ? high : scaled) + job->zero);
        }
    }
}

static void scalar_conv(const sqz_conv_job *job) {
    const int all = job->panels * SQZ_LANES, valid = all - SQZ_LANES + job->last_outputs;
    for (int output = 0; output < (job->y ? valid : all); output += SCALAR_OUTPUTS) {
        for (int row = 0; row < job->rows; row++) {
            for (int first = 0; first < job->pixels; first += SCALAR_PIXELS) {
                int pixels = sqz_min(SCALAR_PIXELS, job->pixels - first);
                scalar_block(job, row, first, pixels, output, sqz_min(SCALAR_OUTPUTS, valid - output));
            }
        }
    }
}

const sqz_kernels sqz_scalar_kernels = {
    "scalar", SQZ_PACK_S8, 0, 0, scalar_conv, sqz_pool_row, sqz_add_row, NULL, NULL,
};
#endif
