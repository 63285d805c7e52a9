/* fuzz_stream.c - libFuzzer: any bytes as the weight streams of two convolutions, one after the other.
 *
 * The first six bytes are the shapes, the seventh says where the second stream begins. */
#include <stdlib.h>
#include <string.h>

#include "../csrc/squeezenet.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    sqz_conv_shape shapes[2];
    sqz_decoder *decoder;
    size_t bytes, split;
    void *memory;
    sqz_status status = SQZ_OK;
    if (size < 7 || size > 4096) return 0;
    for (int i = 0; i < 2; i++) {
        shapes[i].in_channels = input[3 * i] % 8 + 1;
        shapes[i].out_channels = input[3 * i + 1] % 8 + 1;
        shapes[i].kernel = input[3 * i + 2] % 11 + 1;
        if (shapes[i].kernel > 3) shapes[i].in_channels = shapes[i].in_channels % 3 + 1;
    }
    split = (size - 7) * input[6] / 255;
    bytes = sqz_decoder_bytes(shapes, 2);
    memory = malloc(bytes);
    if (!bytes || bytes > 1 << 20 || !memory || sqz_decoder_create(shapes, 2, memory, bytes, &decoder)) abort();
    for (int i = 0; i < 2 && !status; i++) {
        size_t rows = (size_t)shapes[i].out_channels, length = i ? size - 7 - split : split;
        size_t weights = rows * (size_t)(shapes[i].in_channels * shapes[i].kernel * shapes[i].kernel);
        uint8_t *stream = malloc(length ? length : 1);
        int8_t *weight = malloc(weights);
        int32_t *bias = malloc(4 * rows);
        float *multiplier = malloc(4 * rows);
        if (!stream || !weight || !bias || !multiplier) abort();
        if (length) memcpy(stream, input + 7 + (i ? split : 0), length);
        status = sqz_decode_conv(decoder, stream, length, &shapes[i], weight, bias, multiplier);
        for (size_t k = 0; !status && k < weights; k++) {
            if (weight[k] == -128) abort();
        }
        free(stream), free(weight), free(bias), free(multiplier);
    }
    free(memory);
    return 0;
}
