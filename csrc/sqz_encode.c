/* sqz_encode.c - writes weight streams: the functions of sqz_decode.c with a range encoder, and the choices of an encoder
 * (codebook, references, energy). The bytes are the same as those of `squeezenet.codec`. */
#define SQZ_ENCODES 1
#include "sqz_decode.c"

enum {
    ENCODE_MAX_ROWS = 8192, /* with more rows, each refers to the one before */
    /* A decision costs at most 12.2 bits, and a weight takes at most 11 with contexts and 3 bits without. */
    ENCODE_WEIGHT_BYTES = 18,
    ENCODE_ROW_BYTES = 64,
    ENCODE_FRAME_BYTES = 512
};

/* log2 of a normal double: 2 * artanh((f - 1) / (f + 1)) for a fraction f around 1, each step rounded once. */
static double encode_log2(double x) {
    uint64_t bits;
    double f, t, square, sum;
    int exponent;
    memcpy(&bits, &x, 8);
    exponent = (int)(bits >> 52) - 1022;
    bits = (bits & 0xFFFFFFFFFFFFFu) | (uint64_t)1022 << 52;
    memcpy(&f, &bits, 8); /* 0.5 to 1 */
    if (f < 0.7071067811865476) f += f, exponent--;
    t = (f - 1.0) / (f + 1.0);
    square = t * t;
    sum = 1.0 / 21.0;
    for (int k = 19; k > 0; k -= 2) sum = sum * square + 1.0 / k;
    return exponent + 2.0 * t * sum * 1.4426950408889634;
}

static double encode_worth(const int8_t *rows, const double *norms, size_t products, int row, int earlier) {
    const int8_t *a = rows + (size_t)row * products, *b = rows + (size_t)earlier * products;
    double correlation, scale = norms[row] * norms[earlier];
    int32_t sum = 0;
    for (size_t i = 0; i < products; i++) sum += a[i] * b[i];
    if (sum <= 0) return 0.0;
    correlation = sum / (scale < 1.0 ? 1.0 : scale);
    if (correlation > 0.995) correlation = 0.995;
    return -0.5 * 0.6 * (double)products * encode_log2(1.0 - correlation * correlation);
}

/* Finds for each row the earlier one that saves the most bits; returns whether this saves bits for the whole layer. */
static int encode_choose_references(const int8_t *rows, double *norms, int count, size_t products, int32_t *references) {
    double gains = 0.0;
    int differs = 0;
    if (count < 3 || count > ENCODE_MAX_ROWS) return 0;
    for (int row = 0; row < count; row++) {
        int64_t sum = 0;
        for (size_t i = 0; i < products; i++) sum += rows[(size_t)row * products + i] * rows[(size_t)row * products + i];
        norms[row] = sqz_sqrt((double)sum);
    }
    for (int row = 2; row < count; row++) {
        double best = 0.0, worth = 0.0, of_previous = 0.0, penalty;
        int found = -1;
        for (int earlier = 0; earlier < row; earlier++) {
            const double value = encode_worth(rows, norms, products, row, earlier);
            const double net = value - (row - earlier > 1 ? decode_bits_of((uint64_t)(row - earlier)) + 2 : 1);
            if (found < 0 || net > best) best = net, worth = value, found = earlier;
            of_previous = value;
        }
        penalty = found == row - 1 ? 1.0 : 2.0 * encode_log2(row);
        gains += worth - of_previous - penalty;
        references[row] = found;
        differs |= found != row - 1;
    }
    if (gains > 0.0) return differs;
    for (int row = 0; row < count; row++) references[row] = row - 1;
    return 0;
}

static int encode_trailing_zeros(uint32_t value) {
    int zeros = 0;
    while (zeros < 32 && !(value >> zeros & 1)) zeros++;
    return zeros;
}

static void encode_measure(decode_stream *stream, const float *multiplier, const int32_t *bias, int rows) {
    uint32_t of_words = 0, of_biases = 0, least = UINT32_MAX, most = 0;
    for (int i = 0; i < rows; i++) {
        const uint32_t word = decode_word(&multiplier[i]);
        of_words |= word;
        of_biases |= (uint32_t)(bias[i] < 0 ? -bias[i] : bias[i]);
        if (word < least) least = word;
        if (word > most) most = word;
    }
    stream->shift = sqz_min(encode_trailing_zeros(of_words), 31);
    stream->least = least >> stream->shift;
    stream->width = decode_bits_of((most >> stream->shift) - stream->least);
    stream->bias_shift = encode_trailing_zeros(of_biases) % 32;
}

/* If a codebook saves bits, replaces weights by their places in the sorted table of values, counted from that of 0. */
static int encode_look_up(int8_t *symbols, size_t count, uint8_t present[255]) {
    int8_t places[255];
    int values = 0, largest = 0, zero = 0;
    memset(present, 0, 255);
    present[127] = 1;
    for (size_t i = 0; i < count; i++) present[symbols[i] + 127] = 1;
    for (int v = -127; v < 128; v++) {
        if (!present[v + 127]) continue;
        if (v == 0) zero = values;
        values++;
        largest = sqz_max(largest, v < 0 ? -v : v);
    }
    if (values > largest) return 0;
    for (int v = -127, place = -zero; v < 128; v++) places[v + 127] = (int8_t)(present[v + 127] ? place++ : 0);
    for (size_t i = 0; i < count; i++) symbols[i] = places[symbols[i] + 127];
    return 1;
}

static size_t encode_stream_bytes(const sqz_conv_shape *shape) {
    const size_t rows = (size_t)shape->out_channels;
    return sqz_round_up(rows * (decode_products(shape) * ENCODE_WEIGHT_BYTES + ENCODE_ROW_BYTES) + ENCODE_FRAME_BYTES, 8);
}

size_t sqz_encode_bytes(const sqz_conv_shape *shape) {
    size_t rows;
    if (!shape || !decode_shape_is_valid(shape)) return 0;
    rows = (size_t)shape->out_channels;
    return encode_stream_bytes(shape) + rows * (sizeof(double) + sizeof(int32_t) + sizeof(float) + decode_products(shape)) + 8;
}

sqz_status sqz_encode_conv(sqz_decoder *coder, const sqz_conv_shape *shape, const int8_t *weight, const int32_t *bias,
                           const float *multiplier, void *memory, size_t bytes, size_t *size) {
    decode_stream stream = SQZ_ZEROS;
    uint8_t present[255], *at = (uint8_t *)memory;
    int8_t values[255], *symbols;
    int32_t *biases;
    float *multipliers;
    double *norms;
    size_t rows, count;
    uint64_t squares = 0;
    int zero;
    if (!coder || !shape || !weight || !bias != !multiplier || !memory || !size) return SQZ_BAD_ARGUMENT;
    if (!decode_has_room(coder, shape)) return SQZ_BAD_ARGUMENT;
    if (bytes < sqz_encode_bytes(shape)) return SQZ_NO_MEMORY;
    rows = (size_t)shape->out_channels;
    count = rows * decode_products(shape);
    for (size_t i = 0; i < count; i++) {
        if (weight[i] == -128) return SQZ_BAD_TABLE;
    }
    for (size_t i = 0; bias && i < rows; i++) {
        if (bias[i] == INT32_MIN || decode_word(&multiplier[i]) >> 31) return SQZ_BAD_TABLE;
    }
    stream.data = at;
    stream.size = encode_stream_bytes(shape);
    at += stream.size;
    norms = (double *)(void *)(at + (8 - (uintptr_t)at % 8) % 8);
    biases = (int32_t *)(void *)(norms + rows);
    multipliers = (float *)(void *)(biases + rows);
    symbols = (int8_t *)(multipliers + rows);
    if (bias) memcpy(biases, bias, rows * sizeof *bias);
    if (bias) memcpy(multipliers, multiplier, rows * sizeof *multiplier);
    memcpy(symbols, weight, count);
    decode_relax(coder);
    stream.range = 0xFFFFFFFF;
    if (bias) encode_measure(&stream, multipliers, biases, (int)rows);
    if (encode_look_up(symbols, count, present)) stream.present = present;
    for (int row = 0; row < (int)rows; row++) coder->references[row] = row - 1;
    if (bias) stream.has_own_references = encode_choose_references(symbols, norms, (int)rows, decode_products(shape), coder->references);
    for (size_t i = 0; i < count; i++) squares += (uint64_t)(symbols[i] * symbols[i]);
    stream.energy = sqz_max(decode_bits_of(squares * 362 / count) - 1, 0);
    decode_body(&stream, coder, shape, symbols, bias ? biases : NULL, bias ? multipliers : NULL, values, &zero);
    *size = stream.position;
    return stream.status;
}
