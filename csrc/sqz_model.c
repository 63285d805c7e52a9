/* sqz_model.c - the life of a model: measured, created, loaded from a file or given its integers one by one. */
#include "sqz_internal.h"

/* --- shapes and memory -------------------------------------------------------------------------------------------- */

/* Scratch of `sqz_load`: the decoder, and the integers of one convolution. */
static size_t model_load_bytes(const sqz_model *model) {
    return sqz_decoder_bytes_for(&model->needs) + model->integer_bytes + SQZ_ALIGN;
}

/* Plans a model, at `memory` or to count only. */
static sqz_status model_plan(const sqz_spec *spec, const sqz_options *options, sqz_model *model, uint8_t *memory,
                             sqz_sizes *sizes) {
    const int threads = options && options->threads ? options->threads : 1;
    const sqz_kernels *set = sqz_find_kernels(options ? options->kernels : NULL);
    size_t thread_bytes;
    sqz_status status;
    if (threads < 1 || threads > 1024) return SQZ_BAD_ARGUMENT;
    if (options && (options->band_rows < 0 || options->band_rows > SQZ_MAX_SIZE || options->streamed < -1)) return SQZ_BAD_ARGUMENT;
    if (!set) return SQZ_NO_KERNEL;
    status = sqz_plan(spec, set, options, model, memory, sizes);
    if (status) return status;
    thread_bytes = model->trunk_bytes + model->scratch_bytes;
    if (thread_bytes > (SIZE_MAX - SQZ_ALIGN) / (size_t)threads) return SQZ_LIMIT_EXCEEDED;
    sizes->model_bytes += SQZ_ALIGN;
    sizes->load_bytes = model_load_bytes(model);
    sizes->arena_bytes = thread_bytes * (size_t)threads + SQZ_ALIGN;
    return SQZ_OK;
}

sqz_status sqz_measure(const sqz_spec *spec, const sqz_options *options, sqz_sizes *sizes) {
    sqz_model model;
    if (!spec || !sizes) return SQZ_BAD_ARGUMENT;
    return model_plan(spec, options, &model, NULL, sizes);
}

sqz_status sqz_create(const sqz_spec *spec, const sqz_options *options, void *memory, size_t bytes,
                      sqz_model **result) {
    sqz_sizes sizes;
    uint8_t *base;
    sqz_status status;
    uint64_t floats;
    if (!memory || !result) return SQZ_BAD_ARGUMENT;
    status = sqz_measure(spec, options, &sizes);
    if (status) return status;
    if (bytes < sizes.model_bytes) return SQZ_NO_MEMORY;
    base = (uint8_t *)memory + sqz_padding(memory);
    *result = (sqz_model *)(void *)base;
    floats = sqz_usual_floats();
    status = model_plan(spec, options, *result, base, &sizes);
    sqz_restore_floats(floats);
    return status;
}

sqz_status sqz_conv_shape_of(const sqz_model *model, size_t index, sqz_conv_shape *shape) {
    if (!model || index >= model->n_convs || !shape) return SQZ_BAD_ARGUMENT;
    shape->in_channels = model->convs[index].in_channels;
    shape->out_channels = model->convs[index].out_channels;
    shape->kernel = model->convs[index].kernel;
    return SQZ_OK;
}

const char *sqz_kernels_of(const sqz_model *model) { return model->kernels->name; }

/* --- weights ------------------------------------------------------------------------------------------------------ */

/* Takes one output's bias and multiplier, and what its sums can reach. */
static sqz_status model_set_output(const sqz_model *model, sqz_conv *conv, int output, const int8_t *weight,
                                   size_t products, int32_t bias, float multiplier) {
    int32_t sum = 0, magnitude = 0;
    int lowest = 0;
    int64_t largest;
    for (size_t i = 0; i < products; i++) { /* at most 4096 * 121 weights: the sums fit */
        sum += weight[i];
        magnitude += weight[i] < 0 ? -weight[i] : weight[i];
        lowest = sqz_min(lowest, weight[i]);
    }
    largest = (int64_t)magnitude * 255 + (bias < 0 ? -(int64_t)bias : bias);
    if (lowest == -128 || largest > INT32_MAX) return SQZ_BAD_TABLE;
    if (!(multiplier >= SQZ_MIN_SCALE && multiplier <= SQZ_MAX_MULTIPLIER)) return SQZ_BAD_TABLE;
    if (largest > conv->largest_sum) conv->largest_sum = largest;
    if ((double)largest * (double)multiplier > 2147000000.0) conv->is_bounded = 0;
    /* Wraps where the kernel's sums wrap back: only the whole is known to fit. */
    conv->bias[output] = (int32_t)(uint32_t)(bias + (int64_t)(model->kernels->x_offset - conv->in_zero) * sum);
    conv->multiplier[output] = multiplier;
    conv->plain_bias[output] = bias;
    return SQZ_OK;
}

sqz_status sqz_set_conv(sqz_model *model, size_t index, const int8_t *weight, const int32_t *bias,
                        const float *multiplier) {
    sqz_conv *conv;
    size_t products;
    if (!model || index >= model->n_convs || !weight || !bias || !multiplier) return SQZ_BAD_ARGUMENT;
    conv = &model->convs[index];
    products = (size_t)conv->in_channels * (size_t)(conv->kernel * conv->kernel);
    if (conv->is_set) model->n_set--;
    conv->is_set = 0;
    conv->largest_sum = 0;
    conv->is_bounded = 1;
    for (int o = 0; o < conv->out_channels; o++) {
        const int8_t *of = weight + (size_t)o * products;
        sqz_status status = model_set_output(model, conv, o, of, products, bias[o], multiplier[o]);
        if (status) return status;
    }
    for (int o = conv->out_channels; o < conv->panels * SQZ_LANES; o++) conv->bias[o] = 0, conv->multiplier[o] = 1.0f;
    sqz_pack_conv(conv, model->kernels->pack, weight);
    conv->is_set = 1;
    model->n_set++;
    return SQZ_OK;
}

/* LEB128 of at most five bytes; the status of a cut or over-long one. */
static sqz_status model_stream_length(const uint8_t *data, size_t size, size_t *offset, uint64_t *length) {
    *length = 0;
    for (int shift = 0; shift < 35; shift += 7) {
        if (*offset >= size) return SQZ_TRUNCATED;
        *length |= (uint64_t)(data[*offset] & 127) << shift;
        if (data[(*offset)++] < 128) return SQZ_OK;
    }
    return SQZ_BAD_TABLE;
}

sqz_status sqz_load(sqz_model *model, const sqz_header *header, const void *data, void *scratch, size_t bytes) {
    sqz_model planned;
    sqz_decoder *decoder;
    sqz_sizes sizes;
    const uint8_t *chunk;
    uint8_t *integers;
    size_t size, next = 0, at = 0;
    uint64_t length, left = 0;
    sqz_status status, late = SQZ_OK;
    if (!model || !header || !data || !scratch) return SQZ_BAD_ARGUMENT;
    status = sqz_plan(&header->spec, NULL, NULL, &planned, NULL, &sizes);
    if (status) return status;
    if (planned.shape_hash != model->shape_hash) return SQZ_BAD_ARGUMENT;
    if (bytes < model_load_bytes(model)) return SQZ_NO_MEMORY;
    chunk = (const uint8_t *)data + header->weights_offset;
    size = header->weights_bytes;
    decoder = sqz_decoder_begin(&model->needs, scratch);
    integers = (uint8_t *)scratch + sqz_decoder_bytes_for(&model->needs);
    integers += sqz_padding(integers);
    /* All lengths, then streams that take the remaining bytes: only then is a stream decoded. */
    for (size_t i = 0, total = 0; i < model->n_convs && !status; i++) {
        status = model_stream_length(chunk, size, &at, &length);
        total = length > SIZE_MAX - total ? SIZE_MAX : total + (size_t)length;
        left = total;
    }
    if (status) return status;
    if (left != size - at) return left > size - at ? SQZ_TRUNCATED : SQZ_BAD_TABLE;
    for (size_t i = 0; i < model->n_convs && !status; i++) {
        sqz_conv_shape shape;
        sqz_conv_shape_of(model, i, &shape);
        int32_t *bias = (int32_t *)(void *)integers;
        float *multiplier = (float *)(void *)(bias + shape.out_channels);
        int8_t *weight = (int8_t *)(multiplier + shape.out_channels);
        status = model_stream_length(chunk, size, &next, &length);
        if (!status) status = sqz_decode_conv(decoder, chunk + at, (size_t)length, &shape, weight, bias, multiplier);
        /* Integers out of range count once all streams have been decoded. */
        if (!status && !late) late = sqz_set_conv(model, i, weight, bias, multiplier);
        at += (size_t)length;
    }
    return status ? status : late;
}
