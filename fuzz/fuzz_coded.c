/* fuzz_coded.c - libFuzzer: any bytes as the streams of two convolutions whose weights stay coded, one decoded as a whole,
 * one panel by panel.
 *
 * The first six bytes are the shapes, the seventh says where the second stream begins. The trunk is exactly as large as
 * exported C makes it. */
#define SQZ_CODED 1
#define SQZ_SMALL 1
#define SQZ_SMALL_ONLY 1
#define SQZ_PORTABLE_ONLY 1
#include <stdlib.h>

#include "../csrc/sqz_pack.c"

#include "../csrc/sqz_coded.c"

static sqz_conv conv_of(const uint8_t *input) {
    sqz_conv conv = SQZ_ZEROS;
    conv.kernel = input[2] % 11 + 1;
    conv.in_channels = input[0] % 8 + 1;
    if (conv.kernel > 3) conv.in_channels = conv.in_channels % 3 + 1;
    conv.out_channels = input[1] % 40 + 1;
    conv.runs = input[2] & 128 ? 1 : conv.kernel; /* as conv1 is packed, or as others */
    conv.groups = conv.runs == 1 && conv.kernel > 1 ? conv.kernel * conv.kernel * 3 / 4 + 1
                                                    : conv.kernel * (int)sqz_pixel_bytes(conv.in_channels) / 4;
    conv.panels = (conv.out_channels + SQZ_LANES - 1) / SQZ_LANES;
    conv.last_outputs = conv.out_channels - (conv.panels - 1) * SQZ_LANES;
    conv.panel_bytes = (size_t)(conv.runs * conv.groups) * 4 * SQZ_LANES;
    if (conv.runs == 1 && conv.kernel > 1) conv.in_channels = 3;
    return conv;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    sqz_conv convs[2];
    sqz_source sources[2];
    sqz_input image = SQZ_ZEROS;
    sqz_model model = SQZ_ZEROS;
    sqz_worker worker = SQZ_ZEROS;
    size_t predictors = 0, split, bytes;
    uint8_t *trunk, *streams;
    if (size < 7 || size > 4096) return 0;
    for (int i = 0; i < 2; i++) {
        const size_t area = (size_t)((convs[i] = conv_of(input + 3 * i)).kernel * convs[i].kernel);
        const size_t products = (size_t)convs[i].in_channels * area;
        if (!(model.needs.kernels >> convs[i].kernel & 1)) predictors += area;
        model.needs.kernels |= 1u << convs[i].kernel;
        if (products > model.needs.products) model.needs.products = products;
    }
    split = (size - 7) * input[6] / 255;
    streams = (uint8_t *)malloc(size - 7 + 1);
    bytes = sqz_round_up(sizeof(coded_decoder), 8) + sizeof(decode_predictor) * predictors + 6 * model.needs.products;
    model.coded.panel_at = sqz_round_up(bytes, SQZ_ALIGN);
    sources[1].at = model.coded.panel_at; /* unused */
    sources[0].at = model.coded.panel_at + sqz_round_up(convs[1].panel_bytes, SQZ_ALIGN);
    trunk = (uint8_t *)malloc(sources[0].at + convs[0].panel_bytes * (size_t)convs[0].panels);
    if (!streams || !trunk) abort();
    memcpy(streams, input + 7, size - 7);
    for (int i = 0; i < 2; i++) {
        sources[i].stream = streams + (i ? split : 0);
        sources[i].bytes = i ? size - 7 - split : split;
        sources[i].step = -i;
    }
    model.convs = convs;
    model.n_convs = 2;
    model.coded.sources = sources;
    worker.model = &model;
    worker.trunk = trunk;
    worker.input = &image;
    sqz_coded_begin(&worker);
    sqz_coded_hold(&worker, 0);
    for (int panel = 0; panel < convs[1].panels && !image.status; panel++) {
        const int8_t *weights = (const int8_t *)sqz_coded_panel(&worker, &convs[1], panel);
        for (size_t i = 0; i < convs[1].panel_bytes; i++) {
            if (weights[i] == -128) abort();
        }
    }
    free(streams), free(trunk);
    return 0;
}
