/* sqz_weights.h - the weights of a convolution, as specified in docs/coding.md: predictions, decisions, and the adaptation
 * after each weight. Only sqz_decode.c includes this file; its first comment explains SQZ_ENCODES. */
#ifndef SQZ_WEIGHTS_H
#define SQZ_WEIGHTS_H

#include "sqz_range.h"

#if defined(SQZ_X86) && defined(__GNUC__)
#define DECODE_AVX2 __attribute__((target("avx2,bmi,bmi2,lzcnt")))
#include <immintrin.h>
#endif

enum {
    DECODE_RELAXED = 30,
    DECODE_MAX_ENERGY = 22,
    DECODE_MAX_KERNEL = 11,
    DECODE_EARLIER = 8,
    DECODE_MAX_ESTIMATE = (1 << 14) - 1,
    DECODE_MAX_STEP = 511,
    DECODE_COEFFICIENT = 1 << 21, /* where coefficients are clamped: 1.0 */
    DECODE_LEVELS = 37,
    DECODE_FIRST_LEVELS = 64, /* in a table, of small cores */
    DECODE_AGREEMENTS = 6,
#ifndef SQZ_CODED /* places of the contexts of a length and a level: more than there are, so as to be found fast */
    DECODE_LENGTHS = 8,
    DECODE_MANTISSAS = 64,
#else
    DECODE_LENGTHS = 6,
    DECODE_MANTISSAS = 32,
#endif
    /* index of the first context of each decision */
    DECODE_ZERO = 0,
    DECODE_SIGN = DECODE_ZERO + DECODE_LEVELS * 8,
    DECODE_LENGTH = DECODE_SIGN + (DECODE_LEVELS / 6 + 1) * 8,
    DECODE_MANTISSA = DECODE_LENGTH + DECODE_LEVELS * DECODE_AGREEMENTS * DECODE_LENGTHS,
    DECODE_CODEBOOK = DECODE_MANTISSA + DECODE_LEVELS * DECODE_MANTISSAS,
#ifndef SQZ_CODED
    DECODE_BIAS_LENGTHS = DECODE_CODEBOOK + 4,
    DECODE_BIAS_TOPS = DECODE_BIAS_LENGTHS + 32,
    DECODE_DISTANCE_LENGTHS = DECODE_BIAS_TOPS + 96,
    DECODE_DISTANCE_TOPS = DECODE_DISTANCE_LENGTHS + 32,
    DECODE_CONTEXTS = DECODE_DISTANCE_TOPS + 96
#else
    DECODE_CONTEXTS = DECODE_CODEBOOK + 4
#endif
};

/* Coefficients of both predictors at one kernel position: of up to eight earlier symbols in the row, of the row
 * referred to, of the column, and for sizes of the row's average.
 *
 * 28 bits and a sign hold them, in hostile files as well. What they multiply is at most 2032. A step has the sign of
 * the error, hence step * prediction < 511 * 2032 * 2^21 < 2^41, and one weight adds less than
 * 2 * 2^41 + 511^2 * 11 * 2032^2 < 2^44 to the sum of their squares. That sum is at most 11 * 2^42 when a row begins,
 * and one position has at most SQZ_MAX_CHANNELS = 2^12 weights in a row: it stays below 2^57. */
typedef struct {
    int32_t mean[DECODE_EARLIER], size[DECODE_EARLIER];
    int32_t reference_mean, column_mean, reference_size, column_size, average_size;
} decode_predictor;

typedef struct {
    int16_t mean, size; /* at most 256 * 127 */
} decode_column;

struct sqz_decoder {
    uint16_t rates[256]; /* first, so that the decoder's own pointer reaches them */
    decode_context contexts[DECODE_CONTEXTS];
    decode_predictor *predictors[DECODE_MAX_KERNEL + 1]; /* by kernel size; one predictor per position */
    int32_t *references;                                 /* of the current convolution */
    decode_column *columns;
    size_t max_rows, max_products;
    int has_avx2; /* asked once: under a hypervisor, CPUID takes as long as some hundred weights */
};

/* Thirds of an octave: floor(3 * log2(estimate / 4 + 1)). */
SQZ_INLINE int decode_level(int64_t estimate) {
#if defined(SQZ_SMALL_ONLY) && defined(__GNUC__)
    static const uint8_t first[DECODE_FIRST_LEVELS] = {
        0, 0, 1, 2, 3, 3, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 6, 7, 7, 7, 7, 7, 8, 8, 8, 8, 8, 8, 9, 9, 9, 9,
        9, 9, 9, 9, 9, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 12, 12, 12, 12,
    };
    /* The leading bit, then the thirds above it that are reached: the constants are 2^31 times the cube roots of 2 and 4. */
    const uint32_t small = (uint32_t)estimate + 4;
    const int zeros = __builtin_clz(small);
    if ((uint32_t)estimate < DECODE_FIRST_LEVELS) return first[estimate];
    return 3 * (29 - zeros) + (small << zeros >= 2705659853u) + (small << zeros >= 3408917803u);
#else
    const uint64_t v = (uint64_t)estimate + 4;
#if defined(__GNUC__)
    return 57 - __builtin_clzll(v * v * v); /* v is never 0 */
#else
    return decode_bits_of(v * v * v) - 7;
#endif
#endif
}

/* A prediction in whole units, at most DECODE_MAX_ESTIMATE; 0 for a negative one. */
SQZ_INLINE int64_t decode_estimate(int64_t prediction) {
#if defined(SQZ_SMALL_ONLY) /* 32 bits suffice */
    const int32_t high = (int32_t)(prediction >> 32);
    return high < 0 ? 0 : high > 0 ? (int32_t)DECODE_MAX_ESTIMATE : (int32_t)((uint32_t)prediction >> 18);
#else
    prediction >>= 18;
    return prediction > DECODE_MAX_ESTIMATE ? (int64_t)DECODE_MAX_ESTIMATE : prediction;
#endif
}

#if defined(SQZ_SMALL)
#define DECODE_UNROLL
#else
#define DECODE_UNROLL SQZ_UNROLL
#endif

/* A magnitude from 1 to 127: its bit length in unary, then the bits below the leading one. */
SQZ_INLINE int decode_size(decode_stream *stream, sqz_decoder *decoder, int level, int agreement, int given) {
    const int of_length = (level * DECODE_AGREEMENTS + agreement) * DECODE_LENGTHS;
    decode_context *lengths = &decoder->contexts[DECODE_LENGTH + of_length];
    decode_context *mantissa = &decoder->contexts[DECODE_MANTISSA + level * DECODE_MANTISSAS];
    int length = 1, value = 1, left;
    DECODE_UNROLL for (; length < 7; length++) {
        if (!decode_bit(stream, decoder->rates, &lengths[length - (DECODE_LENGTHS < 8)], given >> length != 0)) break;
    }
    /* Without gaps: one context of length 2, three of length 3, seven of each other. */
    mantissa += DECODE_MANTISSAS == 64 ? length * 8 : length < 4 ? length - 3 : 7 * length - 25;
    left = sqz_max(length - 4, 0);
    for (int i = length - 2; i >= left; i--) {
        value = value << 1 | decode_noise(stream, decoder->rates, &mantissa[value], given >> i & 1);
    }
    if (left > 0) value = value << left | (int)decode_raw(stream, left, (uint32_t)given & ((1u << left) - 1));
    return value;
}

/* Codes one weight decision by decision, with its size and mean estimated in whole units; returns the symbol. */
SQZ_INLINE int decode_decisions(decode_stream *stream, sqz_decoder *decoder, int64_t estimate, int64_t expected,
                                int is_expected_negative, int given) {
    static const uint8_t agreements[2][8] = {{0, 0, 0, 0, 1, 2, 3, 4}, {0, 0, 0, 0, 5, 5, 5, 5}};
    const int level = decode_level(estimate), zero = DECODE_ZERO + level * 8;
    int certainty = decode_level(expected) - level + 11, surprise, size;
    certainty = certainty < 0 ? 0 : sqz_min(certainty >> 1, 7);
    if (!decode_bit(stream, decoder->rates, &decoder->contexts[zero + certainty], given != 0)) return 0;
    surprise = decode_noise(stream, decoder->rates,
                            &decoder->contexts[DECODE_SIGN + (unsigned)level / 6 * 8 + (unsigned)certainty],
                            (given < 0) != is_expected_negative);
    size = decode_size(stream, decoder, level, agreements[surprise][certainty], given < 0 ? -given : given);
    return surprise != is_expected_negative ? -size : size;
}

/* Not inlined: as fast as inlined copies, and smaller. */
#if defined(__GNUC__)
#define DECODE_OUTLINE __attribute__((noinline)) static
#else
#define DECODE_OUTLINE static
#endif

#if defined(SQZ_SMALL_ONLY)
DECODE_OUTLINE int decode_few(decode_stream *stream, sqz_decoder *decoder, int estimate, int expected,
                              int is_negative) {
    return decode_decisions(stream, decoder, estimate, expected, is_negative, 0);
}

SQZ_INLINE int decode_symbol(decode_stream *stream, sqz_decoder *decoder, int64_t mean, int64_t size, int layer,
                             int given) {
    const int estimate = (int)decode_estimate(size), expected = (int)decode_estimate(mean < 0 ? -mean : mean);
    (void)given;
    return decode_few(stream, decoder, sqz_max(estimate, layer >> 5), expected, mean < 0);
}
#else
SQZ_INLINE int decode_symbol_of(decode_stream *outside, sqz_decoder *decoder, int64_t mean, int64_t size, int layer,
                                int given) {
    decode_stream local = *outside; /* in registers */
    const int64_t estimate = decode_estimate(size), least = layer >> 5;
    const int symbol = decode_decisions(&local, decoder, estimate < least ? least : estimate,
                                        decode_estimate(mean < 0 ? -mean : mean), mean < 0, given);
    *outside = local;
    return symbol;
}

DECODE_OUTLINE int decode_symbol(decode_stream *stream, sqz_decoder *decoder, int64_t mean, int64_t size, int layer,
                                 int given) {
    return decode_symbol_of(stream, decoder, mean, size, layer, given);
}
#endif

#if defined(DECODE_AVX2)
/* The same, counting zeros in one instruction. */
DECODE_AVX2 __attribute__((noinline)) static int decode_symbol_avx2(decode_stream *stream, sqz_decoder *decoder,
                                                                    int64_t mean, int64_t size, int layer, int given) {
    return decode_symbol_of(stream, decoder, mean, size, layer, given);
}
#define DECODE_SYMBOL(IS_AVX2) ((IS_AVX2) ? decode_symbol_avx2 : decode_symbol)
#else
#define DECODE_SYMBOL(IS_AVX2) ((void)(IS_AVX2), decode_symbol)
#endif

SQZ_INLINE int32_t decode_step(int64_t error, int shift) {
    const int64_t sum = error + ((int64_t)1 << (shift - 1)), most = DECODE_MAX_STEP;
    int64_t step;
#if defined(SQZ_SMALL_ONLY)
    if (shift < 32) { /* 32 bits suffice, unless only the upper half matters */
        const int32_t high = (int32_t)(sum >> 32), limit = (int32_t)1 << (shift - 1);
        const int32_t low = (int32_t)((uint32_t)sum >> shift | (uint32_t)high << (32 - shift));
        if ((uint32_t)high + (uint32_t)limit >= 2 * (uint32_t)limit) return (high < 0 ? -1 : 1) * DECODE_MAX_STEP;
        return sqz_max(-DECODE_MAX_STEP, sqz_min(low, DECODE_MAX_STEP));
    }
#endif
    step = sum >> shift;
    return (int32_t)(step > most ? most : step < -most ? -most : step);
}

/* State that all weights of a layer share. */
typedef struct {
    int energy, column_shift;
    int layer, average; /* running averages of magnitudes */
} decode_layer;

/* The prediction from earlier symbols of the row, and the steps by which their coefficients then change. */
typedef struct {
    int64_t mean, size;
    int32_t mean_step, size_step;
} decode_guess;

/* Codes one weight, given the prediction from the earlier symbols of its row. */
SQZ_INLINE int decode_weight(decode_stream *stream, sqz_decoder *decoder, decode_predictor *predictor,
                             decode_layer *layer, int index, int reference, decode_guess *guess, int given,
                             const int IS_AVX2) {
    decode_column *column = &decoder->columns[index];
    const int of_row = 16 * reference, size_of_row = sqz_abs(of_row);
    const int of_column = column->mean >> 4, size_of_column = column->size >> 4, average = layer->average >> 4;
    const int row_shift = index > 30 ? 6 : index > 14 ? 5 : index > 6 ? 4 : 3;
    const int64_t mean = guess->mean + (int64_t)predictor->reference_mean * of_row +
                         (int64_t)predictor->column_mean * of_column;
    const int64_t size = guess->size + (int64_t)predictor->reference_size * size_of_row +
                         (int64_t)predictor->column_size * size_of_column + (int64_t)predictor->average_size * average;
    const int symbol = DECODE_SYMBOL(IS_AVX2)(stream, decoder, mean, size, layer->layer, given);
    const int x = 16 * symbol, magnitude = sqz_abs(x);
    const int32_t mean_step = decode_step((int64_t)x * DECODE_COEFFICIENT - mean, layer->energy + 9);
    const int32_t size_step = decode_step((int64_t)((uint64_t)(uint32_t)magnitude << 21) - size, layer->energy + 10);
#if defined(SQZ_SMALL_ONLY)
    if (reference) /* usually 0 */
#endif
        predictor->reference_mean += mean_step * of_row, predictor->reference_size += size_step * size_of_row;
    predictor->column_mean += mean_step * of_column;
    predictor->column_size += size_step * size_of_column;
    predictor->average_size += size_step * average;
    column->size = (int16_t)(column->size + ((16 * magnitude - column->size) >> layer->column_shift));
    column->mean = (int16_t)(column->mean + ((16 * x - column->mean) >> layer->column_shift));
    layer->average += (16 * magnitude - layer->average) >> row_shift;
    layer->layer += (16 * magnitude - layer->layer) >> 7;
    guess->mean_step = mean_step;
    guess->size_step = size_step;
    return symbol;
}

/* The same, with the EARLIER symbols before it; a constant wherever a copy is compiled for each number. */
SQZ_INLINE void decode_after(decode_stream *stream, sqz_decoder *decoder, decode_predictor *predictor,
                             decode_layer *layer, int index, const int8_t *reference, int8_t *row, const int EARLIER,
                             const int IS_AVX2) {
    decode_guess guess = {0, 0, 0, 0};
    const int8_t *earlier = row + index - EARLIER;
    for (int i = 0; i < EARLIER; i++) {
        guess.mean += (int64_t)predictor->mean[i] * (16 * earlier[i]);
        guess.size += (int64_t)predictor->size[i] * (16 * sqz_abs(earlier[i]));
    }
    row[index] = (int8_t)decode_weight(stream, decoder, predictor, layer, index, reference ? reference[index] : 0,
                                       &guess, DECODE_GIVEN(row[index]), IS_AVX2);
    for (int i = 0; i < EARLIER; i++) {
        predictor->mean[i] += guess.mean_step * (16 * earlier[i]);
        predictor->size[i] += guess.size_step * (16 * sqz_abs(earlier[i]));
    }
}

static void decode_clamp(decode_predictor *predictor) {
    int32_t *coefficients = (int32_t *)(void *)predictor; /* all of one type, so there are no gaps */
    for (size_t i = 0; i < sizeof *predictor / sizeof *coefficients; i++) {
        if (coefficients[i] > DECODE_COEFFICIENT) coefficients[i] = DECODE_COEFFICIENT;
        if (coefficients[i] < -DECODE_COEFFICIENT) coefficients[i] = -DECODE_COEFFICIENT;
    }
}

/* A row. Unless IS_SMALL, there is a copy of `decode_after` for each number of neighbours. */
SQZ_INLINE void decode_row_of(decode_stream *stream, sqz_decoder *decoder, decode_predictor *predictors,
                              decode_layer *layer, int area, int products, const int8_t *reference, int8_t *row,
                              const int IS_SMALL, const int IS_AVX2) {
    decode_layer averages = *layer;
    for (int index = 0, p = 0; IS_SMALL && index < products; index++, p = p + 1 < area ? p + 1 : 0) {
        decode_after(stream, decoder, &predictors[p], &averages, index, reference, row, sqz_min(p, DECODE_EARLIER),
                     IS_AVX2);
    }
    if (!IS_SMALL && area == 1) { /* a copy on the stack, which no other pointer can change */
        decode_predictor one = predictors[0];
        for (int index = 0; index < products; index++) {
            decode_after(stream, decoder, &one, &averages, index, reference, row, 0, IS_AVX2);
        }
        predictors[0] = one;
    }
    for (int index = 0; !IS_SMALL && area > 1 && index < products; index += area) {
#define DECODE_AFTER(P, EARLIER) \
    decode_after(stream, decoder, &predictors[P], &averages, index + (P), reference, row, EARLIER, IS_AVX2)
        DECODE_AFTER(0, 0);
        DECODE_AFTER(1, 1);
        DECODE_AFTER(2, 2);
        DECODE_AFTER(3, 3);
        if (area == 4) continue;
        DECODE_AFTER(4, 4);
        DECODE_AFTER(5, 5);
        DECODE_AFTER(6, 6);
        DECODE_AFTER(7, 7);
        for (int p = 8; p < area; p++) DECODE_AFTER(p, 8);
    }
    *layer = averages;
}

#if defined(SQZ_SMALL_ONLY)
/* The first bit that is set. */
SQZ_INLINE int decode_first_of(uint32_t bits) {
#if defined(__GNUC__)
    return __builtin_ctz(bits);
#else
    int first = 0;
    while (!(bits >> first & 1)) first++;
    return first;
#endif
}

#if defined(SQZ_CODED)
#define DECODE_REFERENCE(reference, index) (reference)[index] /* of the first row a row of zeros */
#else
#define DECODE_REFERENCE(reference, index) ((reference) ? (reference)[index] : 0)
#endif

/* A row on a small core: neighbours that are 0, as most are, are skipped. */
static void decode_row(decode_stream *stream, sqz_decoder *decoder, decode_predictor *predictors, decode_layer *layer,
                       int area, int products, const int8_t *reference, int8_t *row) {
    decode_layer averages = *layer;
    decode_predictor *predictor = predictors;
    uint32_t others = 0; /* bit i: the earlier symbol of coefficient i is not 0 */
    for (int index = 0, p = 0; index < products; index++) {
        decode_guess guess = {0, 0, 0, 0};
        const int count = sqz_min(p, DECODE_EARLIER);
        const int8_t *earlier = row + index - count;
        uint32_t is_other;
        for (uint32_t left = others; left; left &= left - 1) {
            const int i = decode_first_of(left), x = 16 * earlier[i];
            guess.mean += (int64_t)predictor->mean[i] * x;
            guess.size += (int64_t)predictor->size[i] * sqz_abs(x);
        }
        row[index] = (int8_t)decode_weight(stream, decoder, predictor, &averages, index,
                                           DECODE_REFERENCE(reference, index), &guess, 0, 0);
        for (uint32_t left = others; left; left &= left - 1) {
            const int i = decode_first_of(left), x = 16 * earlier[i];
            predictor->mean[i] += guess.mean_step * x;
            predictor->size[i] += guess.size_step * sqz_abs(x);
        }
        is_other = row[index] != 0;
        others = count == DECODE_EARLIER ? others >> 1 | is_other << (DECODE_EARLIER - 1) : others | is_other << count;
        predictor++;
        if (++p == area) {
            p = 0;
            predictor = predictors;
            others = 0;
        }
    }
    *layer = averages;
}
#else
#if defined(DECODE_AVX2)
SQZ_INLINE DECODE_AVX2 __m256i decode_load(const int32_t *at) {
    return _mm256_loadu_si256((const __m256i *)(const void *)at);
}

/* Sums of 32-bit products in 64 bits. */
SQZ_INLINE DECODE_AVX2 __m256i decode_products_of(__m256i a, __m256i b) {
    return _mm256_add_epi64(_mm256_mul_epi32(a, b),
                            _mm256_mul_epi32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32)));
}

/* A row of 3 x 3 kernels: the earlier symbols of a kernel, at most eight, are one register. */
DECODE_AVX2 static void decode_row_3x3(decode_stream *stream, sqz_decoder *decoder, decode_predictor *predictors,
                                       decode_layer *layer, int products, const int8_t *reference, int8_t *row) {
    static const int32_t places[24] = {[8] = -1};
    decode_layer averages = *layer;
    for (int index = 0; index < products;) {
        __m256i near = _mm256_setzero_si256();
        int last = 0; /* not yet in `near`, so that sums do not wait for it */
        for (int p = 0; p < 9; p++, index++) {
            decode_predictor *predictor = &predictors[p];
            decode_guess guess;
            __m256i mean = decode_load(predictor->mean), size = decode_load(predictor->size);
            __m256i sizes = _mm256_abs_epi32(near);
            const __m256i means = decode_products_of(mean, near), all_sizes = decode_products_of(size, sizes);
            const __m256i both = _mm256_add_epi64(_mm256_unpacklo_epi64(means, all_sizes),
                                                  _mm256_unpackhi_epi64(means, all_sizes));
            const __m128i sums = _mm_add_epi64(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
            guess.mean = _mm_cvtsi128_si64(sums) + (int64_t)predictor->mean[(p + 7) & 7] * last;
            guess.size = _mm_extract_epi64(sums, 1) + (int64_t)predictor->size[(p + 7) & 7] * sqz_abs(last);
            row[index] = (int8_t)decode_weight(stream, decoder, predictor, &averages, index,
                                               reference ? reference[index] : 0, &guess, DECODE_GIVEN(row[index]), 1);
            near = _mm256_blendv_epi8(near, _mm256_set1_epi32(last), decode_load(places + 9 - p));
            sizes = _mm256_abs_epi32(near);
            /* Steps and symbols have 16 bits; the other product of each pair is 0. */
            mean = _mm256_add_epi32(mean, _mm256_madd_epi16(near, _mm256_set1_epi32(guess.mean_step & 0xFFFF)));
            size = _mm256_add_epi32(size, _mm256_madd_epi16(sizes, _mm256_set1_epi32(guess.size_step & 0xFFFF)));
            _mm256_storeu_si256((__m256i *)(void *)predictor->mean, mean);
            _mm256_storeu_si256((__m256i *)(void *)predictor->size, size);
            last = 16 * row[index];
        }
    }
    *layer = averages;
}

DECODE_AVX2 static void decode_row_avx2(decode_stream *stream, sqz_decoder *decoder, decode_predictor *predictors,
                                        decode_layer *layer, int area, int products, const int8_t *reference,
                                        int8_t *row) {
    if (area == 9) {
        decode_row_3x3(stream, decoder, predictors, layer, products, reference, row);
    } else {
        decode_row_of(stream, decoder, predictors, layer, area, products, reference, row, 0, 1);
    }
}
#endif

static void decode_row(decode_stream *stream, sqz_decoder *decoder, decode_predictor *predictors, decode_layer *layer,
                       int area, int products, const int8_t *reference, int8_t *row) {
#if defined(DECODE_AVX2)
    if (decoder->has_avx2) {
        decode_row_avx2(stream, decoder, predictors, layer, area, products, reference, row);
        return;
    }
#endif
#if defined(SQZ_SMALL) || defined(DECODE_AVX2)
    decode_row_of(stream, decoder, predictors, layer, area, products, reference, row, 1, 0);
#else
    decode_row_of(stream, decoder, predictors, layer, area, products, reference, row, 0, 0);
#endif
}
#endif

/* --- a convolution ------------------------------------------------------------------------------------------------ */

static void decode_relax(sqz_decoder *decoder) {
    for (int i = 0; i < DECODE_CONTEXTS; i++) {
        const uint32_t context = decode_get(&decoder->contexts[i]), seen = context & 0xFFFF;
        if (seen > DECODE_RELAXED) decode_set(&decoder->contexts[i], context - (seen - DECODE_RELAXED));
    }
}

#ifndef SQZ_ENCODES
/* Called before the first convolution of a network; the addresses in `decoder` are already set. */
static void decode_reset(sqz_decoder *decoder) {
    for (int i = 0; i < DECODE_CONTEXTS; i++) decode_set(&decoder->contexts[i], DECODE_NEW);
    for (int n = 0; n < 256; n++) decoder->rates[n] = (uint16_t)(655360 / (10 * n + 18));
    for (int kernel = 1; kernel <= DECODE_MAX_KERNEL; kernel++) {
        for (int p = 0; decoder->predictors[kernel] && p < kernel * kernel; p++) {
            decode_predictor *predictor = &decoder->predictors[kernel][p];
            memset(predictor, 0, sizeof *predictor);
            predictor->column_size = 1 << 20;
            predictor->average_size = 1 << 19;
        }
    }
}
#endif

/* Reads the layer's codebook, if it has one; returns the number of its values, and the place of 0. */
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

/* Reads the layer's energy, and prepares the state that its rows share. */
static void decode_begin_rows(decode_stream *stream, sqz_decoder *decoder, int products, decode_layer *layer) {
    const int energy = (int)decode_raws(stream, 5, (uint32_t)DECODE_GIVEN(stream->energy));
    if (energy > DECODE_MAX_ENERGY) decode_fail(stream, SQZ_BAD_TABLE);
    layer->energy = sqz_min(energy, DECODE_MAX_ENERGY);
    layer->layer = ((energy & 1 ? 218 : 154) << (layer->energy >> 1)) >> 4;
    for (int i = 0; i < products; i++) decoder->columns[i].size = (int16_t)layer->layer, decoder->columns[i].mean = 0;
}

static void decode_next_row(decode_stream *stream, sqz_decoder *decoder, int kernel, int products, decode_layer *layer,
                            int row, const int8_t *reference, int8_t *to) {
    const int area = kernel * kernel, column_bits = decode_bits_of((uint64_t)row + 1);
    decode_predictor *predictors = decoder->predictors[kernel];
    for (int p = 0; p < area; p++) decode_clamp(&predictors[p]);
    layer->column_shift = column_bits < 2 ? 2 : sqz_min(column_bits, 5);
    layer->average = layer->layer;
    decode_row(stream, decoder, predictors, layer, area, products, reference, to);
}

#endif
