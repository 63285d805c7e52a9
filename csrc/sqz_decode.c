/* sqz_decode.c - the weight streams of docs/coding.md, with the names used there; sqz_weights.h decodes the weights
 * themselves.
 *
 * Any bytes either decode to something or are rejected. After the first error, decoding continues with zeros for at most
 * one row, and its results are not used.
 *
 * sqz_encode.c includes this file with SQZ_ENCODES defined: the same functions then write instead of reading. */
#include "sqz_weights.h"

/* --- numbers ------------------------------------------------------------------------------------------------------ */

static uint32_t decode_magnitude(decode_stream *stream, sqz_decoder *decoder, int lengths, int tops, uint32_t given) {
    decode_context *contexts = decoder->contexts + tops;
    uint32_t given_length = DECODE_GIVEN((uint32_t)decode_bits_of(given));
    uint32_t length = decode_tree(stream, decoder->rates, decoder->contexts + lengths, 5, given_length), value;
    int left = (int)length - 2;
    if (left < 0) return length;
    value = 2 | (uint32_t)decode_bit(stream, decoder->rates, &contexts[length], given >> left & 1);
    if (left > 0) {
        left--;
        value = value << 1 | (uint32_t)decode_bit(stream, decoder->rates, &contexts[32 * (value - 1) + length],
                                                  given >> left & 1);
    }
    return value << left | decode_raws(stream, left, given & ((1u << left) - 1));
}

/* --- a convolution ------------------------------------------------------------------------------------------------ */

#ifdef SQZ_ENCODES
static uint32_t decode_word(const float *value) {
    uint32_t word;
    memcpy(&word, value, 4);
    return word;
}
#endif

static void decode_multipliers(decode_stream *stream, const sqz_decoder *decoder, int count, float *multiplier) {
    decode_context contexts[64];
    int shift = (int)decode_raws(stream, 5, (uint32_t)DECODE_GIVEN(stream->shift));
    uint64_t least = decode_raws(stream, 31 - shift, DECODE_GIVEN(stream->least));
    int width = (int)decode_raws(stream, 5, (uint32_t)DECODE_GIVEN(stream->width)), tree = sqz_min(width, 6);
    for (int i = 0; i < 64; i++) contexts[i] = DECODE_NEW;
    for (int i = 0; i < count && !stream->status; i++) {
        uint32_t given = DECODE_GIVEN((decode_word(&multiplier[i]) >> shift) - (uint32_t)least);
        uint64_t high = decode_tree(stream, decoder->rates, contexts, tree, given >> (width - tree));
        uint64_t low = decode_raws(stream, width - tree, given & ((1u << (width - tree)) - 1));
        uint64_t pattern = (least + (high << (width - tree) | low)) << shift;
        uint32_t word = (uint32_t)pattern;
        if (pattern >> 31) decode_fail(stream, SQZ_BAD_TABLE);
        memcpy(&multiplier[i], &word, 4);
    }
}

static void decode_biases(decode_stream *stream, sqz_decoder *decoder, int count, int32_t *bias) {
    int shift = (int)decode_raws(stream, 5, (uint32_t)DECODE_GIVEN(stream->bias_shift));
    for (int i = 0; i < count && !stream->status; i++) {
        int is_negative = DECODE_GIVEN(bias[i] < 0);
        uint32_t given = DECODE_GIVEN((uint32_t)(bias[i] < 0 ? -bias[i] : bias[i]) >> shift);
        uint64_t value = decode_magnitude(stream, decoder, DECODE_BIAS_LENGTHS, DECODE_BIAS_TOPS, given);
        value <<= shift;
        if (value >> 31) {
            decode_fail(stream, SQZ_BAD_TABLE);
            value = 0;
        }
        bias[i] = (int32_t)value;
        if (value && decode_raws(stream, 1, (uint32_t)is_negative)) bias[i] = -bias[i];
    }
}

static void decode_references(decode_stream *stream, sqz_decoder *decoder, int rows) {
    int names_its_own = (int)decode_raws(stream, 1, (uint32_t)DECODE_GIVEN(stream->has_own_references));
#ifndef SQZ_ENCODES
    for (int row = 0; row < rows; row++) decoder->references[row] = row - 1;
#endif
    for (int row = 2; names_its_own && row < rows && !stream->status; row++) {
        uint32_t given = DECODE_GIVEN((uint32_t)(row - decoder->references[row]));
        uint32_t distance = decode_magnitude(stream, decoder, DECODE_DISTANCE_LENGTHS, DECODE_DISTANCE_TOPS, given);
        if (distance < 1 || distance > (uint32_t)row) {
            decode_fail(stream, SQZ_BAD_TABLE);
            return;
        }
        decoder->references[row] = row - (int32_t)distance;
    }
}

static int decode_shape_is_valid(const sqz_conv_shape *shape) {
    return shape->kernel >= 1 && shape->kernel <= DECODE_MAX_KERNEL && shape->in_channels >= 1 &&
           shape->in_channels <= SQZ_MAX_CHANNELS && shape->out_channels >= 1 && shape->out_channels <= 65535;
}

static size_t decode_products(const sqz_conv_shape *shape) {
    return (size_t)shape->in_channels * (size_t)(shape->kernel * shape->kernel);
}

/* Whether the decoder has enough memory for a convolution of this shape. */
static int decode_has_room(const sqz_decoder *decoder, const sqz_conv_shape *shape) {
    return decode_shape_is_valid(shape) && decoder->predictors[shape->kernel] &&
           (size_t)shape->out_channels <= decoder->max_rows && decode_products(shape) <= decoder->max_products;
}

static void decode_weights(decode_stream *stream, sqz_decoder *decoder, const sqz_conv_shape *shape, int8_t *weight) {
    const size_t products = decode_products(shape);
    decode_layer layer;
    decode_begin_rows(stream, decoder, (int)products, &layer);
    for (int row = 0; row < shape->out_channels && !stream->status; row++) {
        const int8_t *reference = row ? weight + (size_t)decoder->references[row] * products : NULL;
        decode_next_row(stream, decoder, shape->kernel, (int)products, &layer, row, reference,
                        weight + (size_t)row * products);
    }
}

/* A stream without its beginning and end; returns the number of values in the codebook, and the place of 0 among them.
 * Without biases and multipliers, the stream has only weights, and each row refers to the one before. */
static int decode_body(decode_stream *stream, sqz_decoder *decoder, const sqz_conv_shape *shape, int8_t *weight,
                       int32_t *bias, float *multiplier, int8_t *values, int *zero) {
    int n_values;
    if (multiplier) decode_multipliers(stream, decoder, shape->out_channels, multiplier);
    if (bias) decode_biases(stream, decoder, shape->out_channels, bias);
    n_values = decode_codebook(stream, decoder, values, zero);
    if (bias) decode_references(stream, decoder, shape->out_channels);
    decode_weights(stream, decoder, shape, weight);
    if (!stream->status) decode_finish(stream);
    return n_values;
}

#ifndef SQZ_ENCODES
/* Symbols are places in the table, counted from that of 0. */
static sqz_status decode_look_up(const int8_t *values, int count, int zero, int8_t *weight, size_t weights) {
    for (size_t i = 0; i < weights; i++) {
        int place = weight[i] + zero;
        if (place < 0 || place >= count) return SQZ_BAD_TABLE;
        weight[i] = values[place];
    }
    return SQZ_OK;
}

/* --- the decoder -------------------------------------------------------------------------------------------------- */

int sqz_decoder_need(sqz_decoder_needs *needs, const sqz_conv_shape *shape) {
    if (!decode_shape_is_valid(shape)) return 0;
    if ((size_t)shape->out_channels > needs->rows) needs->rows = (size_t)shape->out_channels;
    if (decode_products(shape) > needs->products) needs->products = decode_products(shape);
    needs->kernels |= 1u << shape->kernel;
    return 1;
}

static sqz_decoder_needs decode_needs(const sqz_conv_shape *shapes, size_t count, int *are_valid) {
    sqz_decoder_needs needs = {0, 0, 0};
    *are_valid = shapes != NULL;
    for (size_t i = 0; *are_valid && i < count; i++) *are_valid = sqz_decoder_need(&needs, &shapes[i]);
    return needs;
}

/* Bytes of a decoder and of the arrays behind it, whose addresses are set unless `decoder` is NULL. */
static size_t decode_layout(const sqz_decoder_needs *needs, sqz_decoder *decoder) {
    size_t bytes = sqz_round_up(sizeof *decoder, SQZ_ALIGN);
    for (size_t kernel = 0; kernel <= DECODE_MAX_KERNEL; kernel++) {
        int is_needed = needs->kernels >> kernel & 1;
        if (decoder) decoder->predictors[kernel] = is_needed ? (decode_predictor *)(void *)((uint8_t *)decoder + bytes) : NULL;
        if (is_needed) bytes += sqz_round_up(sizeof(decode_predictor) * kernel * kernel, SQZ_ALIGN);
    }
    if (decoder) {
        decoder->max_rows = needs->rows;
        decoder->max_products = needs->products;
        decoder->references = (int32_t *)(void *)((uint8_t *)decoder + bytes);
        decoder->columns = (decode_column *)(void *)(decoder->references + needs->rows);
    }
    return bytes + sizeof(int32_t) * needs->rows + sizeof(decode_column) * needs->products;
}

size_t sqz_decoder_bytes_for(const sqz_decoder_needs *needs) { return decode_layout(needs, NULL) + SQZ_ALIGN; }

sqz_decoder *sqz_decoder_begin(const sqz_decoder_needs *needs, void *memory) {
    uint8_t *base = (uint8_t *)memory + (SQZ_ALIGN - (uintptr_t)memory % SQZ_ALIGN) % SQZ_ALIGN;
    sqz_decoder *decoder = (sqz_decoder *)(void *)base;
    decode_layout(needs, decoder);
#if defined(SQZ_X86)
    decoder->has_avx2 = sqz_has_bmi2() && sqz_has_avx2();
#endif
    decode_reset(decoder);
    return decoder;
}

size_t sqz_decoder_bytes(const sqz_conv_shape *shapes, size_t count) {
    int are_valid;
    const sqz_decoder_needs needs = decode_needs(shapes, count, &are_valid);
    return are_valid ? sqz_decoder_bytes_for(&needs) : 0;
}

sqz_status sqz_decoder_create(const sqz_conv_shape *shapes, size_t count, void *memory, size_t bytes,
                              sqz_decoder **result) {
    int are_valid;
    const sqz_decoder_needs needs = decode_needs(shapes, count, &are_valid);
    if (!are_valid || !memory || !result) return SQZ_BAD_ARGUMENT;
    if (bytes < sqz_decoder_bytes_for(&needs)) return SQZ_NO_MEMORY;
    *result = sqz_decoder_begin(&needs, memory);
    return SQZ_OK;
}

sqz_status sqz_decode_conv(sqz_decoder *decoder, const void *data, size_t size, const sqz_conv_shape *shape,
                           int8_t *weight, int32_t *bias, float *multiplier) {
    decode_stream stream;
    int8_t values[255];
    int n_values, zero;
    if (!decoder || (!data && size) || !shape || !weight || !bias || !multiplier) return SQZ_BAD_ARGUMENT;
    if (!decode_has_room(decoder, shape)) return SQZ_BAD_ARGUMENT;
    decode_relax(decoder);
    decode_start(&stream, (const uint8_t *)data, size);
    n_values = decode_body(&stream, decoder, shape, weight, bias, multiplier, values, &zero);
    if (stream.status || !n_values) return stream.status;
    return decode_look_up(values, n_values, zero, weight, (size_t)shape->out_channels * decode_products(shape));
}
#endif
