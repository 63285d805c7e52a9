/* kernels_scalar.c - the portable kernel set, and the arithmetic that all sets must equal. */
#include "sqz_internal.h"

static void scalar_conv(const sqz_conv_job *job) {
    const float low = (float)-job->zero, high = (float)(255 - job->zero);
    for (int panel = 0; panel < job->panels; panel++) {
        const uint8_t *weights = job->weights + (size_t)panel * job->panel_bytes;
        const int32_t *bias = job->bias + panel * SQZ_LANES;
        const float *multiplier = job->multiplier + panel * SQZ_LANES;
        int outputs = panel == job->panels - 1 ? job->last_outputs : SQZ_LANES;
        for (int row = 0; row < job->rows; row++) {
            for (int pixel = 0; pixel < job->pixels; pixel++) {
                const uint8_t *x = job->x + (size_t)row * job->x_row + (size_t)pixel * job->x_pixel;
                const int8_t *w = (const int8_t *)weights;
                uint32_t acc[SQZ_LANES];
                for (int o = 0; o < SQZ_LANES; o++) acc[o] = (uint32_t)bias[o];
                for (int run = 0; run < job->runs; run++, x += job->x_run) {
                    for (int group = 0; group < job->groups; group++, w += 4 * SQZ_LANES) {
                        int x0 = x[4 * group], x1 = x[4 * group + 1], x2 = x[4 * group + 2], x3 = x[4 * group + 3];
                        for (int o = 0; o < SQZ_LANES; o++) {
                            acc[o] += (uint32_t)(x0 * w[4 * o] + x1 * w[4 * o + 1] + x2 * w[4 * o + 2] +
                                                 x3 * w[4 * o + 3]);
                        }
                    }
                }
                if (!job->y) {
                    memcpy(job->raw + ((size_t)(row * job->pixels + pixel) * (size_t)job->panels + (size_t)panel) *
                                          SQZ_LANES,
                           acc, sizeof acc);
                    continue;
                }
                uint8_t *y = job->y + (size_t)row * job->y_row + (size_t)pixel * job->y_pixel + panel * SQZ_LANES;
                for (int o = 0; o < outputs; o++) {
                    float scaled = (float)(int32_t)acc[o] * multiplier[o];
                    y[o] = (uint8_t)(sqz_round(scaled < low ? low : scaled > high ? high : scaled) + job->zero);
                }
            }
        }
    }
}

const sqz_kernels sqz_scalar_kernels = {"scalar", SQZ_PACK_S8, 0, scalar_conv, NULL};
