/* sqz_unknown.c - whether an image shows none of the classes, by its features: docs/format.md, "Unknown". */
#include "sqz_internal.h"

enum { UNKNOWN_HEADER = 3 };

/* The product of two 64-bit numbers: its high and low half. */
static void unknown_multiply(uint64_t a, uint64_t b, uint64_t *high, uint64_t *low) {
    const uint64_t mask = 0xFFFFFFFF, a0 = a & mask, a1 = a >> 32, b0 = b & mask, b1 = b >> 32;
    const uint64_t bottom = a0 * b0, left = a1 * b0 + (bottom >> 32), right = a0 * b1 + (left & mask);
    *high = a1 * b1 + (left >> 32) + (right >> 32);
    *low = right << 32 | (bottom & mask);
}

/* The limits of the format keep dot below 2^39, norm below 2^63 and size below 2^20. */
int sqz_unknown_is_near(uint64_t dot, uint64_t norm, uint64_t size, uint32_t threshold) {
    uint64_t high, low, other_high, other_low;
    unknown_multiply(dot, dot << 16, &high, &low);
    unknown_multiply(norm, threshold * size, &other_high, &other_low);
    return high > other_high || (high == other_high && low >= other_low);
}

/* Bytes of a vector: two numbers per byte, the first in the low half. */
static size_t unknown_stride(size_t channels) { return (channels + 1) / 2; }

sqz_status sqz_check_unknown(const sqz_header *header, const uint8_t *data) {
    const sqz_fire_spec *last = &header->spec.fires[header->spec.n_fires - 1];
    const size_t channels = (size_t)last->expand1x1_channels + last->expand3x3_channels;
    const uint8_t *chunk = data + header->unknown_offset;
    const size_t stride = unknown_stride(channels);
    if (header->unknown_bytes < UNKNOWN_HEADER || !chunk[0] || chunk[0] > SQZ_MAX_UNKNOWN) return SQZ_BAD_TABLE;
    if (header->unknown_bytes != UNKNOWN_HEADER + chunk[0] * stride) return SQZ_BAD_TABLE;
    for (size_t k = 1; k <= chunk[0]; k++) {
        if (channels % 2 && chunk[UNKNOWN_HEADER + k * stride - 1] >> 4) return SQZ_BAD_TABLE;
    }
    return SQZ_OK;
}

sqz_status sqz_unknown_rule(const sqz_header *header, const void *data, sqz_unknown *rule) {
    const uint8_t *chunk;
    const sqz_fire_spec *last;
    if (!header || !data || !rule || !header->unknown_bytes) return SQZ_BAD_ARGUMENT;
    chunk = (const uint8_t *)data + header->unknown_offset;
    last = &header->spec.fires[header->spec.n_fires - 1];
    rule->vectors = chunk + UNKNOWN_HEADER;
    rule->count = chunk[0];
    rule->channels = last->expand1x1_channels + last->expand3x3_channels;
    rule->threshold = chunk[1] | (uint32_t)chunk[2] << 8;
    return SQZ_OK;
}

int sqz_is_unknown(const sqz_unknown *rule, const int32_t *features) {
    const uint8_t *vector = rule->vectors;
    uint64_t norm = 0;
    for (int c = 0; c < rule->channels; c++) norm += (uint64_t)((int64_t)features[c] * features[c]);
    for (int k = 0; k < rule->count; k++, vector += unknown_stride((size_t)rule->channels)) {
        int64_t dot = 0;
        uint32_t size = 0;
        for (int c = 0; c < rule->channels; c++) {
            const int32_t value = vector[c / 2] >> c % 2 * 4 & 15;
            dot += (int64_t)features[c] * value;
            size += (uint32_t)(value * value);
        }
        if (dot > 0 && sqz_unknown_is_near((uint64_t)dot, norm, size, rule->threshold)) return 0;
    }
    return 1;
}
