/* sqz_decode.c - the range decoder and the weight model of docs/format.md; any bytes decode to something or are refused.
 */
#include "sqz_internal.h"

enum {
    DECODE_HALF = 1 << 15,
    DECODE_FAST = 4,
    DECODE_SLOW = 7,
    DECODE_MISSING = 4, /* zero bytes that may be read behind a stream's end */
    DECODE_FRACTION_BITS = 8,
    DECODE_LEVELS = 12,
    DECODE_CLASSES = 8
};

/* Probability that a bit is 1, in units of 2^-16, adapted at two speeds and averaged in use. */
typedef struct {
    uint16_t fast, slow;
} decode_context;

typedef struct {
    const uint8_t *data;
    size_t size, position;
    uint32_t range, code;
    sqz_status status; /* the first thing that went wrong */
} decode_state;

static void decode_contexts(decode_context *contexts, int count) {
    for (int i = 0; i < count; i++) contexts[i].fast = contexts[i].slow = DECODE_HALF;
}

SQZ_INLINE void decode_renormalise(decode_state *state) {
    while (state->range < 1u << 24) {
        uint32_t byte = 0;
        if (state->position < state->size) {
            byte = state->data[state->position];
        } else if (state->position >= state->size + DECODE_MISSING && !state->status) {
            state->status = SQZ_TRUNCATED;
        }
        state->position++;
        state->code = state->code << 8 | byte;
        state->range <<= 8;
    }
}

static void decode_begin(decode_state *state, const uint8_t *data, size_t size) {
    state->data = data;
    state->size = size;
    state->position = 0;
    state->status = SQZ_OK;
    state->code = 0;
    for (; state->position < 4; state->position++) {
        state->code = state->code << 8 | (state->position < size ? data[state->position] : 0);
    }
    state->range = 0xFFFFFFFF;
    if (state->code == state->range) state->status = SQZ_BAD_TABLE; /* no encoder's */
}

SQZ_INLINE int decode_bit(decode_state *state, decode_context *context) {
    uint32_t fast = context->fast, slow = context->slow;
    uint32_t bound = (state->range >> 15) * ((fast + slow) >> 2);
    int bit = state->code < bound;
    if (bit) {
        state->range = bound;
        context->fast = (uint16_t)(fast + ((65536 - fast) >> DECODE_FAST));
        context->slow = (uint16_t)(slow + ((65536 - slow) >> DECODE_SLOW));
    } else {
        state->code -= bound;
        state->range -= bound;
        context->fast = (uint16_t)(fast - (fast >> DECODE_FAST));
        context->slow = (uint16_t)(slow - (slow >> DECODE_SLOW));
    }
    decode_renormalise(state);
    return bit;
}

SQZ_INLINE uint32_t decode_raw(decode_state *state, int bits) {
    uint32_t value;
    state->range >>= bits;
    value = state->code / state->range;
    if (value >> bits) { /* no encoder's */
        if (!state->status) state->status = SQZ_BAD_TABLE;
        state->code = 0;
        return 0;
    }
    state->code -= value * state->range;
    decode_renormalise(state);
    return value;
}

static int decode_tree(decode_state *state, decode_context *contexts, int bits) {
    int node = 1;
    for (int i = 0; i < bits; i++) node = node << 1 | decode_bit(state, &contexts[node]);
    return node - (1 << bits);
}

/* The magnitude whose bit length is known: its leading one, two bits with contexts, then raw bits. */
SQZ_INLINE uint32_t decode_below_leading_one(decode_state *state, decode_context *contexts, int length) {
    uint32_t value = 1;
    int remaining = length - 1;
    if (remaining) {
        remaining--;
        value = 2 | (uint32_t)decode_bit(state, &contexts[length]);
    }
    if (remaining) {
        remaining--;
        value = value << 1 | (uint32_t)decode_bit(state, &contexts[32 * (1 + (value & 1)) + (uint32_t)length]);
    }
    while (remaining) {
        int step = sqz_min(remaining, 8);
        remaining -= step;
        value = value << step | decode_raw(state, step);
    }
    return value;
}

static void decode_multipliers(decode_state *state, int count, float *multiplier) {
    decode_context is_same, exponents[256], fractions[256];
    uint32_t word = 0;
    decode_contexts(&is_same, 1);
    decode_contexts(exponents, 256);
    decode_contexts(fractions, 256);
    for (int i = 0; i < count && !state->status; i++) {
        if (!decode_bit(state, &is_same)) {
            int exponent = decode_tree(state, exponents, 8);
            int fraction = decode_tree(state, fractions, DECODE_FRACTION_BITS);
            word = (uint32_t)(exponent << DECODE_FRACTION_BITS | fraction) << (23 - DECODE_FRACTION_BITS);
        }
        memcpy(&multiplier[i], &word, 4);
    }
}

static void decode_biases(decode_state *state, int count, int32_t *bias) {
    decode_context lengths[32], top_bits[96];
    decode_contexts(lengths, 32);
    decode_contexts(top_bits, 96);
    for (int i = 0; i < count && !state->status; i++) {
        int length = decode_tree(state, lengths, 5);
        bias[i] = 0;
        if (length) {
            int is_negative = (int)decode_raw(state, 1);
            int32_t magnitude = (int32_t)decode_below_leading_one(state, top_bits, length);
            bias[i] = is_negative ? -magnitude : magnitude;
        }
    }
}

/* Reads the layer's table of values, if it has one; returns how many, and where 0 is. */
static int decode_codebook(decode_state *state, int8_t values[256], int *zero) {
    int size = (int)decode_raw(state, 8);
    *zero = -1;
    for (int i = 0; i < size; i++) {
        int value = (int)decode_raw(state, 8) - 128;
        values[i] = (int8_t)value;
        if (i && value <= values[i - 1] && !state->status) state->status = SQZ_BAD_TABLE;
        if (value == 0) *zero = i;
    }
    if (size && *zero < 0 && !state->status) state->status = SQZ_BAD_TABLE;
    return size;
}

static void decode_weights(decode_state *state, const sqz_conv_shape *shape, const int8_t *codebook, int n_codes,
                           int zero, int8_t *weight) {
    static const uint8_t bounds[DECODE_LEVELS - 1] = {1, 4, 8, 13, 19, 26, 36, 50, 72, 110, 180};
    decode_context is_nonzero[DECODE_LEVELS], lengths[DECODE_LEVELS * DECODE_CLASSES], top_bits[96];
    uint8_t level_of[512], columns[SQZ_MAX_CHANNELS * 9];
    int products = shape->in_channels * shape->kernel * shape->kernel, row = 0;
    for (int i = 0, level = 0; i < 512; i++) {
        while (level < DECODE_LEVELS - 1 && i >= bounds[level]) level++;
        level_of[i] = (uint8_t)level;
    }
    decode_contexts(is_nonzero, DECODE_LEVELS);
    decode_contexts(lengths, DECODE_LEVELS * DECODE_CLASSES);
    decode_contexts(top_bits, 96);
    memset(columns, 0, (size_t)products);
    for (int o = 0; o < shape->out_channels && !state->status; o++) {
        for (int i = 0; i < products; i++) {
            int column = columns[i], level = level_of[row + column], symbol = 0;
            if (decode_bit(state, &is_nonzero[level])) {
                int is_negative = (int)decode_raw(state, 1), length = 1, energy;
                decode_context *of_level = &lengths[level * DECODE_CLASSES];
                while (length < DECODE_CLASSES && decode_bit(state, &of_level[length])) length++;
                symbol = length > 1 ? (int)decode_below_leading_one(state, top_bits, length) : 1;
                energy = sqz_min(symbol, 15) << 4;
                columns[i] = (uint8_t)(column + ((energy - column) >> 2));
                row += (energy - row) >> 3;
                if (is_negative) symbol = -symbol;
            } else {
                columns[i] = (uint8_t)(column - ((column + 3) >> 2));
                row -= (row + 7) >> 3;
            }
            if (n_codes) {
                symbol += zero;
                if (symbol < 0 || symbol >= n_codes) {
                    if (!state->status) state->status = SQZ_BAD_TABLE;
                    symbol = zero;
                }
                symbol = codebook[symbol];
            }
            if (symbol > 127 || symbol < -127) {
                if (!state->status) state->status = SQZ_BAD_TABLE;
                symbol = 0;
            }
            *weight++ = (int8_t)symbol;
        }
    }
}

size_t sqz_decode_scratch_bytes(const sqz_spec *spec) {
    (void)spec;
    return 0;
}

sqz_status sqz_decode_conv(const void *stream, size_t size, const sqz_conv_shape *shape, int8_t *weight, int32_t *bias,
                           float *multiplier) {
    decode_state state;
    int8_t codebook[256];
    int n_codes, zero;
    if ((!stream && size) || !shape || !weight || !bias || !multiplier) return SQZ_BAD_ARGUMENT;
    if (shape->kernel < 1 || shape->kernel > 11 || shape->in_channels < 1 || shape->in_channels > SQZ_MAX_CHANNELS ||
        shape->out_channels < 1 || shape->out_channels > 65535 ||
        shape->in_channels * shape->kernel * shape->kernel > SQZ_MAX_CHANNELS * 9) {
        return SQZ_BAD_ARGUMENT;
    }
    decode_begin(&state, stream, size);
    decode_multipliers(&state, shape->out_channels, multiplier);
    decode_biases(&state, shape->out_channels, bias);
    n_codes = decode_codebook(&state, codebook, &zero);
    if (!state.status) decode_weights(&state, shape, codebook, n_codes, zero, weight);
    if (!state.status && state.position < size) state.status = SQZ_BAD_TABLE;
    return state.status;
}

/* --- a whole file ------------------------------------------------------------------------------------------------- */

/* LEB128 of at most five bytes; the status of a cut or over-long one. */
static sqz_status decode_length(const uint8_t *data, size_t size, size_t *offset, uint64_t *length) {
    *length = 0;
    for (int shift = 0; shift < 35; shift += 7) {
        if (*offset >= size) return SQZ_TRUNCATED;
        *length |= (uint64_t)(data[*offset] & 127) << shift;
        if (data[(*offset)++] < 128) return SQZ_OK;
    }
    return SQZ_BAD_TABLE;
}

sqz_status sqz_load(sqz_model *model, const sqz_header *header, const void *data, void *scratch, size_t bytes) {
    const uint8_t *chunk = (const uint8_t *)data + (header ? header->weights_offset : 0);
    size_t size = header ? header->weights_bytes : 0, next = 0, at = 0;
    sqz_sizes sizes;
    uint64_t length;
    sqz_status status;
    if (!model || !header || !data || !scratch) return SQZ_BAD_ARGUMENT;
    status = sqz_measure(&header->spec, sqz_kernels_of(model), 1, &sizes);
    if (status) return status;
    if (bytes < sizes.load_bytes) return SQZ_NO_MEMORY;
    if (sizes.n_convs != model->n_convs) return SQZ_BAD_ARGUMENT;
    for (size_t i = 0; i < sizes.n_convs; i++) { /* streams follow all lengths */
        status = decode_length(chunk, size, &at, &length);
        if (status) return status;
    }
    for (size_t i = 0; i < sizes.n_convs; i++) {
        const sqz_conv *conv = sqz_conv_at(model, i);
        sqz_conv_shape shape;
        size_t aligned = (size_t)((0 - (uintptr_t)scratch) & 3), channels;
        int32_t *bias = (int32_t *)(void *)((uint8_t *)scratch + aligned);
        float *multiplier;
        int8_t *weight;
        status = sqz_conv_shape_of(&header->spec, i, &shape);
        if (status) return status;
        if (conv->in_channels != shape.in_channels || conv->out_channels != shape.out_channels ||
            conv->kernel != shape.kernel) {
            return SQZ_BAD_ARGUMENT;
        }
        channels = (size_t)shape.out_channels;
        multiplier = (float *)(void *)(bias + channels);
        weight = (int8_t *)(multiplier + channels);
        status = decode_length(chunk, size, &next, &length);
        if (status) return status;
        if (length > size - at) return SQZ_TRUNCATED;
        status = sqz_decode_conv(chunk + at, (size_t)length, &shape, weight, bias, multiplier);
        if (!status) status = sqz_set_conv(model, i, weight, bias, multiplier);
        if (status) return status;
        at += (size_t)length;
    }
    return at == size ? SQZ_OK : SQZ_BAD_TABLE;
}
