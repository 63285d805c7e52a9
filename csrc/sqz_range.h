/* sqz_range.h - the range coder of docs/coding.md, whose names are kept here: a decoder, or with SQZ_ENCODES defined the
 * encoder that writes what it would read. Both have the same functions. Each decision is handed the value that an
 * encoder writes; a decoder ignores it. Included by sqz_decode.c alone. */
#ifndef SQZ_RANGE_H
#define SQZ_RANGE_H

#include "sqz_internal.h"

enum { DECODE_UNSTORED = 3 }; /* zero bytes that belong to a stream but are not in it */

/* Probability that a bit is 1, in units of 2^-16, and how many bits it has seen. */
typedef struct {
    uint16_t p;
    uint16_t n;
} decode_context;

#ifndef SQZ_ENCODES
typedef struct {
    const uint8_t *data;
    size_t size, position;
    uint32_t range, code;
    sqz_status status; /* the first thing that went wrong */
} decode_stream;
#define DECODE_GIVEN(value) 0
#else
typedef struct {
    uint8_t *data;
    size_t size, position; /* room and what is taken of it */
    uint64_t low;
    uint32_t range;
    sqz_status status;
    /* what the walk does not find in the arrays */
    int shift, width, bias_shift, has_own_references, energy;
    uint32_t least;
    const uint8_t *present; /* whether each value from -127 on is in the codebook, or NULL without one */
} decode_stream;
#define DECODE_GIVEN(value) (value)
#endif

SQZ_INLINE void decode_fail(decode_stream *stream, sqz_status status) {
    if (!stream->status) stream->status = status;
}

#ifndef SQZ_ENCODES
SQZ_INLINE void decode_refill(decode_stream *stream) {
    while (stream->range < 1u << 24) {
        uint32_t byte = 0;
        if (stream->position < stream->size) {
            byte = stream->data[stream->position];
        } else if (stream->position >= stream->size + DECODE_UNSTORED) {
            decode_fail(stream, SQZ_TRUNCATED);
        }
        stream->position++;
        stream->code = stream->code << 8 | byte;
        stream->range <<= 8;
    }
}

static void decode_start(decode_stream *stream, const uint8_t *data, size_t size) {
    stream->data = data;
    stream->size = size;
    stream->status = SQZ_OK;
    stream->code = 0;
    for (stream->position = 0; stream->position < 4; stream->position++) {
        stream->code = stream->code << 8 | (stream->position < size ? data[stream->position] : 0);
    }
    stream->range = 0xFFFFFFFF;
    if (stream->code == stream->range) decode_fail(stream, SQZ_BAD_TABLE);
}

static void decode_finish(decode_stream *stream) {
    size_t end = stream->size + DECODE_UNSTORED;
    if (stream->position > end) decode_fail(stream, SQZ_TRUNCATED);
    if (stream->position < end || stream->code >= 1u << 24) decode_fail(stream, SQZ_BAD_TABLE);
}

SQZ_INLINE int decode_bit(decode_stream *stream, const uint16_t *rates, decode_context *context, int given) {
    uint32_t p = context->p, rate = rates[context->n], bound = (stream->range >> 16) * p;
    int bit = stream->code < bound;
    (void)given;
    if (bit) {
        stream->range = bound;
        context->p = (uint16_t)(p + (((65536 - p) * rate + 32768) >> 16));
    } else {
        stream->code -= bound;
        stream->range -= bound;
        context->p = (uint16_t)(p - ((p * rate + 32768) >> 16));
    }
    context->n = (uint16_t)(context->n + (context->n < 255));
    decode_refill(stream);
    return bit;
}

/* The same without a branch on the bit, for bits that are hard to foresee and decide nothing else. */
SQZ_INLINE int decode_noise(decode_stream *stream, const uint16_t *rates, decode_context *context, int given) {
    uint32_t p = context->p, rate = rates[context->n], bound = (stream->range >> 16) * p;
    uint32_t bit = stream->code < bound, mask = 0 - bit;
    uint32_t distance = (p ^ mask) + (65537 & mask); /* 65536 - p or p */
    uint32_t move = (distance * rate + 32768) >> 16;
    (void)given;
    stream->code -= bound & ~mask;
    stream->range = (bound & mask) | ((stream->range - bound) & ~mask);
    context->p = (uint16_t)(p + (move ^ ~mask) + (1 & ~mask));
    context->n = (uint16_t)(context->n + (context->n < 255));
    decode_refill(stream);
    return (int)bit;
}

/* Up to 8 equally likely bits. */
SQZ_INLINE uint32_t decode_raw(decode_stream *stream, int bits, uint32_t given) {
    uint32_t value;
    (void)given;
    stream->range >>= bits;
    value = stream->code / stream->range;
    if (value >> bits) {
        decode_fail(stream, SQZ_BAD_TABLE);
        stream->code = value = 0;
    }
    stream->code -= value * stream->range;
    decode_refill(stream);
    return value;
}
#else
static void decode_put(decode_stream *stream) {
    const int carry = stream->low > 0xFFFFFFFF;
    for (size_t i = stream->position; carry && i > 0 && ++stream->data[--i] == 0;) {
    }
    if (stream->position < stream->size) {
        stream->data[stream->position++] = (uint8_t)(stream->low >> 24);
    } else {
        decode_fail(stream, SQZ_NO_MEMORY);
    }
    stream->low = stream->low << 8 & 0xFFFFFFFF;
}

SQZ_INLINE void decode_refill(decode_stream *stream) {
    while (stream->range < 1u << 24) {
        decode_put(stream);
        stream->range <<= 8;
    }
}

/* The one multiple of 2^24 in [low, low + 2^24); its zero bytes are not stored. */
static void decode_finish(decode_stream *stream) {
    stream->low = (stream->low + 0xFFFFFF) & ~(uint64_t)0xFFFFFF;
    decode_put(stream);
}

SQZ_INLINE int decode_bit(decode_stream *stream, const uint16_t *rates, decode_context *context, int given) {
    uint32_t p = context->p, rate = rates[context->n], bound = (stream->range >> 16) * p;
    if (given) {
        stream->range = bound;
        context->p = (uint16_t)(p + (((65536 - p) * rate + 32768) >> 16));
    } else {
        stream->low += bound;
        stream->range -= bound;
        context->p = (uint16_t)(p - ((p * rate + 32768) >> 16));
    }
    context->n = (uint16_t)(context->n + (context->n < 255));
    decode_refill(stream);
    return given;
}

SQZ_INLINE int decode_noise(decode_stream *stream, const uint16_t *rates, decode_context *context, int given) {
    return decode_bit(stream, rates, context, given);
}

SQZ_INLINE uint32_t decode_raw(decode_stream *stream, int bits, uint32_t given) {
    stream->range >>= bits;
    stream->low += (uint64_t)given * stream->range;
    decode_refill(stream);
    return given;
}
#endif

/* Up to 31 of them. */
static uint32_t decode_raws(decode_stream *stream, int bits, uint32_t given) {
    uint32_t value = 0;
    while (bits > 0) {
        int step = sqz_min(bits, 8);
        bits -= step;
        value = value << step | decode_raw(stream, step, given >> bits & ((1u << step) - 1));
    }
    return value;
}

static uint32_t decode_tree(decode_stream *stream, const uint16_t *rates, decode_context *contexts, int bits,
                            uint32_t given) {
    const uint32_t size = 1u << bits;
    uint32_t node = 1;
    while (bits-- > 0) node = node << 1 | (uint32_t)decode_bit(stream, rates, &contexts[node], given >> bits & 1);
    return node - size;
}

static int decode_bits_of(uint64_t value) {
#if defined(__GNUC__)
    return value ? 64 - __builtin_clzll(value) : 0;
#else
    int bits = 0;
    while (value) value >>= 1, bits++;
    return bits;
#endif
}

#endif
