/* sqz_model.c - measures and creates a model; its integers are loaded from a file or set one convolution at a time. */
#include "sqz_internal.h"

/* --- shapes and memory -------------------------------------------------------------------------------------------- */

/* Plans a model at `memory`, or only counts if that is NULL. */
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
    sizes->load_bytes = sqz_loader_bytes(model) * (size_t)sqz_min(threads, SQZ_MAX_LOADERS);
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

/* Sets one output's bias and multiplier, and checks the range of its sums. */
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
    /* May wrap, and the kernel's sums then wrap back: only the total is known to fit. */
    conv->bias[output] = (int32_t)(uint32_t)(bias + (int64_t)(model->kernels->x_offset - conv->in_zero) * sum);
    conv->multiplier[output] = multiplier;
    conv->plain_bias[output] = bias;
    return SQZ_OK;
}

/* `sqz_set_conv` without counting, so that two threads can set different convolutions. */
static sqz_status model_set_conv(const sqz_model *model, sqz_conv *conv, const int8_t *weight, const int32_t *bias,
                                 const float *multiplier) {
    const size_t products = (size_t)conv->in_channels * (size_t)(conv->kernel * conv->kernel);
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
    return SQZ_OK;
}

static void model_count(sqz_model *model) {
    model->n_set = 0;
    for (size_t i = 0; i < model->n_convs; i++) model->n_set += (size_t)model->convs[i].is_set;
}

sqz_status sqz_set_conv(sqz_model *model, size_t index, const int8_t *weight, const int32_t *bias,
                        const float *multiplier) {
    sqz_status status;
    if (!model || index >= model->n_convs || !weight || !bias || !multiplier) return SQZ_BAD_ARGUMENT;
    status = model_set_conv(model, &model->convs[index], weight, bias, multiplier);
    model_count(model);
    return status;
}

sqz_status sqz_next_stream(const sqz_header *header, const void *data, size_t *offset, sqz_stream *stream) {
    const uint8_t *chunk = (const uint8_t *)data + header->weights_offset;
    stream->bytes = 0;
    stream->is_fresh = 0;
    for (int shift = 0; shift < 35; shift += 7) {
        if (*offset >= header->weights_bytes) return SQZ_TRUNCATED;
        stream->bytes |= (uint64_t)(chunk[*offset] & 127) << shift;
        if (chunk[(*offset)++] < 128) {
            if (header->version > 1) {
                stream->is_fresh = stream->bytes & 1;
                stream->bytes >>= 1;
            }
            return SQZ_OK;
        }
    }
    return SQZ_BAD_TABLE;
}

void sqz_load_share(sqz_loading *loading, int share, void *scratch) {
    sqz_model *model = loading->model;
    sqz_decoder *decoder = NULL;
    uint8_t *integers = (uint8_t *)scratch + sqz_decoder_bytes_for(&model->needs);
    const uint8_t *at = loading->streams;
    sqz_stream stream;
    size_t next = 0;
    sqz_status status = SQZ_OK, late = SQZ_OK;
    integers += sqz_padding(integers);
    for (size_t i = 0; i < loading->starts[share + 1] && !status; i++, at += stream.bytes) {
        sqz_conv *conv = &model->convs[i];
        sqz_conv_shape shape = {conv->in_channels, conv->out_channels, conv->kernel};
        int32_t *bias = (int32_t *)(void *)integers;
        float *multiplier = (float *)(void *)(bias + shape.out_channels);
        int8_t *weight = (int8_t *)(multiplier + shape.out_channels);
        sqz_next_stream(loading->header, loading->data, &next, &stream); /* already checked */
        if (i < loading->starts[share]) continue;
        if (!decoder || stream.is_fresh) decoder = sqz_decoder_begin(&model->needs, scratch);
        status = sqz_decode_conv(decoder, at, (size_t)stream.bytes, &shape, weight, bias, multiplier);
        /* A stream that cannot be decoded takes precedence over integers out of range. */
        if (!status && !late) late = model_set_conv(model, conv, weight, bias, multiplier);
    }
    loading->status[share] = status;
    loading->late[share] = late;
}

sqz_status sqz_begin_loading(sqz_loading *loading, sqz_model *model, const sqz_header *header, const void *data,
                             int threads) {
    sqz_model planned;
    sqz_sizes sizes;
    sqz_stream stream;
    size_t at = 0, total = 0, second = 0;
    sqz_status status = sqz_plan(&header->spec, NULL, NULL, &planned, NULL, &sizes);
    if (status) return status;
    if (planned.shape_hash != model->shape_hash) return SQZ_BAD_ARGUMENT;
    /* All lengths are checked, and that the streams fill the remaining bytes, before a stream is decoded. */
    for (size_t i = 0; i < model->n_convs; i++) {
        status = sqz_next_stream(header, data, &at, &stream);
        if (status) return status;
        total = stream.bytes > SIZE_MAX - total ? SIZE_MAX : total + (size_t)stream.bytes;
        if (stream.is_fresh && !second) second = i;
    }
    if (total != header->weights_bytes - at) return total > header->weights_bytes - at ? SQZ_TRUNCATED : SQZ_BAD_TABLE;
    loading->model = model;
    loading->header = header;
    loading->data = data;
    loading->streams = (const uint8_t *)data + header->weights_offset + at;
    loading->shares = second && threads > 1 ? 2 : 1;
    loading->starts[0] = 0;
    loading->starts[1] = second;
    loading->starts[loading->shares] = model->n_convs;
    for (int i = 0; i < SQZ_MAX_LOADERS; i++) loading->status[i] = loading->late[i] = SQZ_OK;
    return SQZ_OK;
}

sqz_status sqz_end_loading(sqz_loading *loading) {
    sqz_status status = SQZ_OK;
    model_count(loading->model);
    for (int i = 0; i < loading->shares && !status; i++) status = loading->status[i];
    for (int i = 0; i < loading->shares && !status; i++) status = loading->late[i];
    return status;
}

size_t sqz_loader_bytes(const sqz_model *model) {
    return sqz_decoder_bytes_for(&model->needs) + model->integer_bytes + SQZ_ALIGN;
}

sqz_status sqz_load(sqz_model *model, const sqz_header *header, const void *data, void *scratch, size_t bytes) {
    sqz_loading loading;
    sqz_status status;
    if (!model || !header || !data || !scratch) return SQZ_BAD_ARGUMENT;
    if (bytes < sqz_loader_bytes(model)) return SQZ_NO_MEMORY;
    status = sqz_begin_loading(&loading, model, header, data, 1);
    if (status) return status;
    sqz_load_share(&loading, 0, scratch);
    return sqz_end_loading(&loading);
}
