/* sqz_decode.c - weight streams: the model of docs/coding.md, whose names are kept here, over sqz_range.h.
 *
 * Any bytes decode to something or are refused. After the first error the walk goes on for at most a row, reading
 * zeros; nothing that it computes then is used.
 *
 * sqz_encode.c includes this file with SQZ_ENCODES defined: the same walk then writes what it would have read. */
#include "sqz_range.h"

enum {
    DECODE_RELAXED = 30,
    DECODE_MAX_ENERGY = 22,
    DECODE_MAX_KERNEL = 11,
    DECODE_EARLIER = 8,
    DECODE_TAPS = DECODE_EARLIER + 3,
    DECODE_MAX_ESTIMATE = (1 << 14) - 1,
    DECODE_MAX_STEP = 511,
    DECODE_COEFFICIENT = 1 << 21, /* where coefficients are clamped: 1.0 */
    DECODE_LEVELS = 37,
    DECODE_AGREEMENTS = 6,
    /* where the contexts of each decision begin */
    DECODE_ZERO = 0,
    DECODE_SIGN = DECODE_ZERO + DECODE_LEVELS * 8,
    DECODE_LENGTH = DECODE_SIGN + (DECODE_LEVELS / 6 + 1) * 8,
    DECODE_MANTISSA = DECODE_LENGTH + DECODE_LEVELS * DECODE_AGREEMENTS * 8,
    DECODE_BIAS_LENGTHS = DECODE_MANTISSA + DECODE_LEVELS * 64,
    DECODE_BIAS_TOPS = DECODE_BIAS_LENGTHS + 32,
    DECODE_DISTANCE_LENGTHS = DECODE_BIAS_TOPS + 96,
    DECODE_DISTANCE_TOPS = DECODE_DISTANCE_LENGTHS + 32,
    DECODE_CODEBOOK = DECODE_DISTANCE_TOPS + 96,
    DECODE_CONTEXTS = DECODE_CODEBOOK + 4
};

/* Coefficients of the mean and the size predictor at one kernel position. In a hostile file they outgrow 32 bits. */
typedef struct {
    int64_t mean[DECODE_TAPS], size[DECODE_TAPS];
} decode_predictor;

struct sqz_decoder {
    decode_context contexts[DECODE_CONTEXTS];
    uint16_t rates[256];
    decode_predictor *predictors[DECODE_MAX_KERNEL + 1]; /* by kernel size, one for each position */
    int32_t *references, *column_sizes, *column_means;   /* of the current convolution */
    size_t max_rows, max_products;
    int has_bmi2; /* asked once: under a hypervisor the question takes as long as some hundred weights */
};

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

/* Thirds of an octave: floor(3 * log2(estimate / 4 + 1)). */
SQZ_INLINE int decode_level(int64_t estimate) {
    uint64_t v = (uint64_t)estimate + 4;
    return decode_bits_of(v * v * v) - 7;
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
    for (int i = 0; i < 64; i++) contexts[i].p = 1 << 15, contexts[i].n = 0;
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

/* Reads the layer's table of values, if it has one; returns how many there are, and where 0 is. */
static int decode_codebook(decode_stream *stream, sqz_decoder *decoder, int8_t values[255], int *zero) {
    int count = 0, history = 0;
    *zero = 0;
    if (!decode_raws(stream, 1, DECODE_GIVEN(stream->present != NULL))) return 0;
    for (int value = -127; value < 128; value++) {
        int is_present =
            value == 0 || decode_bit(stream, decoder->rates, &decoder->contexts[DECODE_CODEBOOK + history],
                                     DECODE_GIVEN(stream->present[value + 127]));
        if (value == 0) *zero = count;
        if (is_present) values[count++] = (int8_t)value;
        history = (history << 1 & 2) | is_present;
    }
    return count;
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

/* A magnitude from 1 to 127: its bit length in unary, then the bits below the leading one. */
SQZ_INLINE int decode_size(decode_stream *stream, sqz_decoder *decoder, int level, int agreement, int given) {
    decode_context *lengths = &decoder->contexts[DECODE_LENGTH + (level * DECODE_AGREEMENTS + agreement) * 8];
    decode_context *mantissa = &decoder->contexts[DECODE_MANTISSA + level * 64];
    int length = 1, value = 1, left;
    while (length < 7 && decode_bit(stream, decoder->rates, &lengths[length], given >> length != 0)) length++;
    for (left = length - 1; left > 0 && value < 8; left--) {
        value = value << 1 | decode_noise(stream, decoder->rates, &mantissa[length * 8 + value], given >> (left - 1) & 1);
    }
    if (left > 0) value = value << left | (int)decode_raw(stream, left, (uint32_t)given & ((1u << left) - 1));
    return value;
}

/* One decision after another on one weight; returns its symbol. */
SQZ_INLINE int decode_symbol(decode_stream *stream, sqz_decoder *decoder, int64_t mean, int64_t size, int layer,
                             int given) {
    int64_t estimate = size >> 18, certainty_64;
    int level, certainty, is_expected_negative = mean < 0, surprise, agreement, symbol;
    if (estimate > DECODE_MAX_ESTIMATE) estimate = DECODE_MAX_ESTIMATE;
    if (estimate < layer >> 5) estimate = layer >> 5;
    level = decode_level(estimate);
    certainty_64 = (mean < 0 ? -mean : mean) >> 18;
    if (certainty_64 > DECODE_MAX_ESTIMATE) certainty_64 = DECODE_MAX_ESTIMATE;
    certainty = decode_level(certainty_64) - level + 11;
    certainty = certainty < 0 ? 0 : sqz_min(certainty >> 1, 7);
    if (!decode_bit(stream, decoder->rates, &decoder->contexts[DECODE_ZERO + level * 8 + certainty], given != 0)) return 0;
    surprise = decode_noise(stream, decoder->rates, &decoder->contexts[DECODE_SIGN + level / 6 * 8 + certainty],
                            (given < 0) != is_expected_negative);
    agreement = surprise ? (certainty > 3 ? 5 : 0) : sqz_max(certainty - 3, 0);
    symbol = decode_size(stream, decoder, level, agreement, given < 0 ? -given : given);
    return surprise != is_expected_negative ? -symbol : symbol;
}

SQZ_INLINE int64_t decode_step(int64_t error, int shift) {
    int64_t step = (error + ((int64_t)1 << (shift - 1))) >> shift;
    const int64_t most = DECODE_MAX_STEP;
    return step > most ? most : step < -most ? -most : step;
}

/* What all weights of a layer share. */
typedef struct {
    int energy, column_shift;
    int layer, average; /* running averages of magnitudes */
} decode_layer;

/* One weight, by EARLIER of those before it in the row: a constant where there are copies for each. */
SQZ_INLINE void decode_weight(decode_stream *stream, sqz_decoder *decoder, decode_predictor *predictor,
                              decode_layer *layer, int index, const int8_t *reference, int8_t *row,
                              const int EARLIER) {
    int32_t near[DECODE_TAPS], sizes[DECODE_TAPS], *column_size = &decoder->column_sizes[index];
    int32_t *column_mean = &decoder->column_means[index];
    int64_t mean = 0, size = 0, step;
    int symbol, x, magnitude, row_shift = index < 3 ? 3 : index < 31 ? decode_bits_of((uint64_t)index + 1) : 6;
    for (int i = 0; i < EARLIER; i++) near[i] = 16 * row[index - EARLIER + i];
    near[EARLIER] = reference ? 16 * reference[index] : 0;
    for (int i = 0; i <= EARLIER; i++) sizes[i] = near[i] < 0 ? -near[i] : near[i];
    near[EARLIER + 1] = *column_mean >> 4;
    sizes[EARLIER + 1] = *column_size >> 4;
    sizes[EARLIER + 2] = layer->average >> 4;
    for (int i = 0; i < EARLIER + 2; i++) mean += predictor->mean[i] * near[i];
    for (int i = 0; i < EARLIER + 3; i++) size += predictor->size[i] * sizes[i];
    symbol = decode_symbol(stream, decoder, mean, size, layer->layer, DECODE_GIVEN(row[index]));
    row[index] = (int8_t)symbol;
    x = 16 * symbol;
    magnitude = x < 0 ? -x : x;
    step = decode_step((int64_t)x * DECODE_COEFFICIENT - mean, layer->energy + 9);
    for (int i = 0; i < EARLIER + 2; i++) predictor->mean[i] += step * near[i];
    step = decode_step((int64_t)magnitude * DECODE_COEFFICIENT - size, layer->energy + 10);
    for (int i = 0; i < EARLIER + 3; i++) predictor->size[i] += step * sizes[i];
    *column_size += (16 * magnitude - *column_size) >> layer->column_shift;
    *column_mean += (16 * x - *column_mean) >> layer->column_shift;
    layer->average += (16 * magnitude - layer->average) >> row_shift;
    layer->layer += (16 * magnitude - layer->layer) >> 7;
}

static void decode_clamp(int64_t *coefficients) {
    for (int i = 0; i < DECODE_TAPS; i++) {
        if (coefficients[i] > DECODE_COEFFICIENT) coefficients[i] = DECODE_COEFFICIENT;
        if (coefficients[i] < -DECODE_COEFFICIENT) coefficients[i] = -DECODE_COEFFICIENT;
    }
}

/* A layer. Unless IS_SMALL, there is a copy of `decode_weight` for each number of neighbours, which saves a tenth. */
SQZ_INLINE void decode_layer_of(decode_stream *stream, sqz_decoder *decoder, const sqz_conv_shape *shape, int energy,
                                int8_t *weight, const int IS_SMALL) {
    const int area = shape->kernel * shape->kernel, products = shape->in_channels * area;
    decode_predictor *predictors = decoder->predictors[shape->kernel];
    decode_layer layer = {energy, 0, ((energy & 1 ? 218 : 154) << (energy >> 1)) >> 4, 0};
    decode_stream local = *stream; /* in registers */
    for (int i = 0; i < products; i++) decoder->column_sizes[i] = layer.layer, decoder->column_means[i] = 0;
    for (int row = 0; row < shape->out_channels && !local.status; row++) {
        int8_t *to = weight + (size_t)row * (size_t)products;
        const int8_t *reference = row ? weight + (size_t)decoder->references[row] * (size_t)products : NULL;
        int column_bits = decode_bits_of((uint64_t)row + 1);
        for (int p = 0; p < area; p++) decode_clamp(predictors[p].mean), decode_clamp(predictors[p].size);
        layer.column_shift = column_bits < 2 ? 2 : sqz_min(column_bits, 5);
        layer.average = layer.layer;
        for (int index = 0; IS_SMALL && index < products; index++) {
            int p = index % area;
            decode_weight(&local, decoder, &predictors[p], &layer, index, reference, to, sqz_min(p, DECODE_EARLIER));
        }
        if (!IS_SMALL && area == 1) { /* coefficients in registers as well */
            decode_predictor one = predictors[0];
            for (int index = 0; index < products; index++) {
                decode_weight(&local, decoder, &one, &layer, index, reference, to, 0);
            }
            predictors[0] = one;
        }
        for (int index = 0; !IS_SMALL && area > 1 && index < products; index += area) {
#define DECODE_WEIGHT(P, EARLIER) \
    decode_weight(&local, decoder, &predictors[P], &layer, index + (P), reference, to, EARLIER)
            DECODE_WEIGHT(0, 0);
            DECODE_WEIGHT(1, 1);
            DECODE_WEIGHT(2, 2);
            DECODE_WEIGHT(3, 3);
            if (area == 4) continue;
            DECODE_WEIGHT(4, 4);
            DECODE_WEIGHT(5, 5);
            DECODE_WEIGHT(6, 6);
            DECODE_WEIGHT(7, 7);
            for (int p = 8; p < area; p++) DECODE_WEIGHT(p, 8);
        }
    }
    *stream = local;
}

#if defined(SQZ_X86) && defined(__GNUC__)
/* Shifts by a register and counts of zeros in one instruction each save another tenth. */
__attribute__((target("bmi,bmi2,lzcnt"))) static void decode_weights_bmi2(decode_stream *stream, sqz_decoder *decoder,
                                                                          const sqz_conv_shape *shape, int energy,
                                                                          int8_t *weight) {
    decode_layer_of(stream, decoder, shape, energy, weight, 0);
}
#endif

static void decode_weights(decode_stream *stream, sqz_decoder *decoder, const sqz_conv_shape *shape, int energy,
                           int8_t *weight) {
#if defined(SQZ_X86) && defined(__GNUC__)
    if (decoder->has_bmi2) {
        decode_weights_bmi2(stream, decoder, shape, energy, weight);
        return;
    }
    decode_layer_of(stream, decoder, shape, energy, weight, 1);
#elif defined(SQZ_SMALL)
    decode_layer_of(stream, decoder, shape, energy, weight, 1);
#else
    decode_layer_of(stream, decoder, shape, energy, weight, 0);
#endif
}

static int decode_shape_is_valid(const sqz_conv_shape *shape) {
    return shape->kernel >= 1 && shape->kernel <= DECODE_MAX_KERNEL && shape->in_channels >= 1 &&
           shape->in_channels <= SQZ_MAX_CHANNELS && shape->out_channels >= 1 && shape->out_channels <= 65535;
}

static size_t decode_products(const sqz_conv_shape *shape) {
    return (size_t)shape->in_channels * (size_t)(shape->kernel * shape->kernel);
}

/* Whether a coder was made for such a convolution. */
static int decode_has_room(const sqz_decoder *decoder, const sqz_conv_shape *shape) {
    return decode_shape_is_valid(shape) && decoder->predictors[shape->kernel] &&
           (size_t)shape->out_channels <= decoder->max_rows && decode_products(shape) <= decoder->max_products;
}

static void decode_relax(sqz_decoder *decoder) {
    for (int i = 0; i < DECODE_CONTEXTS; i++) {
        if (decoder->contexts[i].n > DECODE_RELAXED) decoder->contexts[i].n = DECODE_RELAXED;
    }
}

/* A stream but its beginning and end; returns how many values the codebook has, and where 0 is among them. */
static int decode_body(decode_stream *stream, sqz_decoder *decoder, const sqz_conv_shape *shape, int8_t *weight,
                       int32_t *bias, float *multiplier, int8_t *values, int *zero) {
    int n_values, energy;
    decode_multipliers(stream, decoder, shape->out_channels, multiplier);
    decode_biases(stream, decoder, shape->out_channels, bias);
    n_values = decode_codebook(stream, decoder, values, zero);
    decode_references(stream, decoder, shape->out_channels);
    energy = (int)decode_raws(stream, 5, (uint32_t)DECODE_GIVEN(stream->energy));
    if (energy > DECODE_MAX_ENERGY) decode_fail(stream, SQZ_BAD_TABLE);
    if (!stream->status) decode_weights(stream, decoder, shape, energy, weight);
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

/* Bytes of a decoder with what follows it in memory, which is laid out unless `decoder` is NULL. */
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
        decoder->column_sizes = decoder->references + needs->rows;
        decoder->column_means = decoder->column_sizes + needs->products;
    }
    return bytes + 4 * (needs->rows + 2 * needs->products);
}

size_t sqz_decoder_bytes_for(const sqz_decoder_needs *needs) { return decode_layout(needs, NULL) + SQZ_ALIGN; }

sqz_decoder *sqz_decoder_begin(const sqz_decoder_needs *needs, void *memory) {
    uint8_t *base = (uint8_t *)memory + (SQZ_ALIGN - (uintptr_t)memory % SQZ_ALIGN) % SQZ_ALIGN;
    sqz_decoder *decoder = (sqz_decoder *)(void *)base;
    decode_layout(needs, decoder);
    for (int i = 0; i < DECODE_CONTEXTS; i++) decoder->contexts[i].p = 1 << 15, decoder->contexts[i].n = 0;
#if defined(SQZ_X86)
    decoder->has_bmi2 = sqz_has_bmi2();
#endif
    for (int n = 0; n < 256; n++) decoder->rates[n] = (uint16_t)(655360 / (10 * n + 18));
    for (int kernel = 1; kernel <= DECODE_MAX_KERNEL; kernel++) {
        for (int p = 0; decoder->predictors[kernel] && p < kernel * kernel; p++) {
            decode_predictor *predictor = &decoder->predictors[kernel][p];
            memset(predictor, 0, sizeof *predictor);
            predictor->size[sqz_min(p, DECODE_EARLIER) + 1] = 1 << 20;
            predictor->size[sqz_min(p, DECODE_EARLIER) + 2] = 1 << 19;
        }
    }
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
