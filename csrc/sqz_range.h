/* sqz_range.h - the range coder of docs/coding.md, with the names used there: a decoder, or, with SQZ_ENCODES defined, the
 * matching encoder. Both have the same functions. The value that an encoder writes is passed to each decision; a decoder
 * ignores it. Only sqz_weights.h includes this file. */
#ifndef SQZ_RANGE_H
#define SQZ_RANGE_H

#include "sqz_internal.h"

enum { DECODE_UNSTORED = 3 }; /* zero bytes that belong to a stream but are not in it */

/* The upper half is the probability that a bit is 1, in units of 2^-16; the lower half is the number of bits coded. */
#ifndef SQZ_CODED
typedef uint32_t decode_context;
SQZ_INLINE uint32_t decode_get(const decode_context *context) { return *context; }
SQZ_INLINE void decode_set(decode_context *context, uint32_t value) { *context = value; }
#else /* in three bytes, one of which is the count */
typedef struct {
    uint8_t count, probability[2];
} decode_context;
SQZ_INLINE uint32_t decode_get(const decode_context *context) {
    uint16_t probability;
    memcpy(&probability, context->probability, 2);
    return (uint32_t)probability << 16 | context->count;
}
SQZ_INLINE void decode_set(decode_context *context, uint32_t value) {
    const uint16_t probability = (uint16_t)(value >> 16);
    memcpy(context->probability, &probability, 2);
    context->count = (uint8_t)value;
}
#endif

#define DECODE_NEW ((uint32_t)1 << 31)

#ifndef SQZ_ENCODES
typedef struct {
    const uint8_t *at, *end;
    size_t unstored; /* bytes read past the end */
    uint32_t range, code;
    sqz_status status; /* the first error */
} decode_stream;
#define DECODE_GIVEN(value) 0
#else
typedef struct {
    uint8_t *data;
    size_t size, position; /* bytes available, and bytes used */
    uint64_t low;
    uint32_t range;
    sqz_status status;
    /* values to write that are not in the arrays */
    int shift, width, bias_shift, has_own_references, energy;
    uint32_t least;
    const uint8_t *present; /* whether each value from -127 on is in the codebook, or NULL without one */
} decode_stream;
#define DECODE_GIVEN(value) (value)
#endif

/* One formula for both bits: for a 0 the product is negative, and the constant that is added rounds it like the positive
 * one. The computation is modulo 2^32, and its upper half is the result. */
SQZ_INLINE uint32_t decode_adapted(uint32_t context, const uint16_t *rates, uint32_t bit) {
    uint32_t n = context & 0xFFFF;
    uint32_t move = ((bit << 16) - (context >> 16)) * rates[n] + 32767 + bit;
    return context + ((n - 255) >> 31) + (move & 0xFFFF0000);
}

SQZ_INLINE void decode_fail(decode_stream *stream, sqz_status status) {
    if (!stream->status) stream->status = status;
}

#ifndef SQZ_ENCODES
SQZ_INLINE uint32_t decode_byte(decode_stream *stream) {
    if (stream->at < stream->end) return *stream->at++;
    if (++stream->unstored > DECODE_UNSTORED) decode_fail(stream, SQZ_TRUNCATED);
    return 0;
}

SQZ_INLINE void decode_refill(decode_stream *stream) {
    while (stream->range < 1u << 24) {
        stream->code = stream->code << 8 | decode_byte(stream);
        stream->range <<= 8;
    }
}

static void decode_start(decode_stream *stream, const uint8_t *data, size_t size) {
    stream->at = data;
    stream->end = size ? data + size : data; /* data may be NULL */
    stream->unstored = 0;
    stream->status = SQZ_OK;
    stream->code = 0;
    for (int i = 0; i < 4; i++) stream->code = stream->code << 8 | decode_byte(stream);
    stream->range = 0xFFFFFFFF;
    if (stream->code == stream->range) decode_fail(stream, SQZ_BAD_TABLE);
}

static void decode_finish(decode_stream *stream) {
    if (stream->unstored > DECODE_UNSTORED) decode_fail(stream, SQZ_TRUNCATED);
    if (stream->at < stream->end || stream->unstored < DECODE_UNSTORED || stream->code >= 1u << 24) {
        decode_fail(stream, SQZ_BAD_TABLE);
    }
}

SQZ_INLINE int decode_bit(decode_stream *stream, const uint16_t *rates, decode_context *context, int given) {
    const uint32_t before = decode_get(context);
    const uint32_t bound = (stream->range >> 16) * (before >> 16);
    const int bit = stream->code < bound;
    (void)given;
    if (bit) {
        stream->range = bound;
        decode_set(context, decode_adapted(before, rates, 1));
    } else {
        stream->code -= bound;
        stream->range -= bound;
        decode_set(context, decode_adapted(before, rates, 0));
    }
    decode_refill(stream);
    return bit;
}

/* The same without a branch on the bit, for bits that are hard to predict and on which no other branch depends. */
#if defined(SQZ_SMALL_ONLY)
#define decode_noise decode_bit
#else
SQZ_INLINE int decode_noise(decode_stream *stream, const uint16_t *rates, decode_context *context, int given) {
    const uint32_t before = decode_get(context);
    const uint32_t bound = (stream->range >> 16) * (before >> 16);
    uint32_t bit;
    (void)given;
#if defined(__x86_64__) && defined(__GNUC__)
    /* Compilers turn this into a branch, which is mispredicted half of the time. */
    {
        uint32_t rest = stream->code, range = stream->range - bound, mask;
        __asm__("sub %[bound], %[rest]\n\tcmovae %[rest], %[code]\n\tcmovb %[bound], %[range]\n\tsbb %[mask], %[mask]"
                : [rest] "+&r"(rest), [code] "+&r"(stream->code), [range] "+&r"(range), [mask] "=&r"(mask)
                : [bound] "r"(bound)
                : "cc");
        stream->range = range;
        bit = mask & 1;
    }
#else
    {
        const uint32_t mask = 0 - (uint32_t)(stream->code < bound), taken = bound & ~mask;
        stream->code -= taken;
        stream->range = (bound & mask) | ((stream->range - taken) & ~mask);
        bit = mask & 1;
    }
#endif
    decode_set(context, decode_adapted(before, rates, bit));
    decode_refill(stream);
    return (int)bit;
}
#endif

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
    const uint32_t bound = (stream->range >> 16) * (*context >> 16);
    if (given) {
        stream->range = bound;
    } else {
        stream->low += bound;
        stream->range -= bound;
    }
    *context = decode_adapted(*context, rates, (uint32_t)given);
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

/* Up to 31 equally likely bits. */
static uint32_t decode_raws(decode_stream *stream, int bits, uint32_t given) {
    uint32_t value = 0;
    while (bits > 0) {
        int step = sqz_min(bits, 8);
        bits -= step;
        value = value << step | decode_raw(stream, step, given >> bits & ((1u << step) - 1));
    }
    return value;
}

#ifndef SQZ_CODED
static uint32_t decode_tree(decode_stream *stream, const uint16_t *rates, decode_context *contexts, int bits,
                            uint32_t given) {
    const uint32_t size = 1u << bits;
    uint32_t node = 1;
    while (bits-- > 0) node = node << 1 | (uint32_t)decode_bit(stream, rates, &contexts[node], given >> bits & 1);
    return node - size;
}
#endif

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
