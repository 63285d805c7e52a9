/* sqz_plan.c - from a spec to a model: checks, shapes, memory needs, and packing weights for a kernel set.
 *
 * The program is always stem, Fire modules, head, so a model is a struct for each of them rather than a graph. */
#include "sqz_internal.h"

enum {
    PLAN_POOL_KERNEL = 3,
    PLAN_MAX_WEIGHTS = 1 << 24, /* as in spec.py */
    PLAN_MAX_ACTIVATIONS = 1 << 27
};

static const float plan_min_scale = 1.0f / (float)((int64_t)1 << 40), plan_max_scale = (float)((int64_t)1 << 40);
static const float plan_max_multiplier = (float)(1 << 20); /* the smallest is that of scales */

/* --- walking a spec ----------------------------------------------------------------------------------------------- */

typedef struct {
    const sqz_spec *spec;
    const sqz_kernels *kernels; /* or NULL: shapes only */
    int channels, size, next_tensor;
    sqz_tensor tensor; /* the tensor that the next layer reads */
    sqz_sizes sizes;
    uint64_t activations;
    size_t next_byte; /* of the model's memory */
} plan_walk;

static size_t plan_take(plan_walk *walk, size_t bytes) {
    size_t at = walk->next_byte;
    walk->next_byte += sqz_round_up(bytes, SQZ_ALIGN);
    return at;
}

/* Describes a convolution; `base` is the model's memory, or NULL where only sizes are wanted. Returns its output
 * size. */
static int plan_conv(plan_walk *walk, sqz_conv *conv, uint8_t *base, int in_channels, int out_channels, int kernel,
                     int stride, int padding, int is_stem) {
    int out_size = walk->size + 2 * padding < kernel ? 0 : (walk->size + 2 * padding - kernel) / stride + 1;
    uint64_t products = (uint64_t)in_channels * (uint64_t)(kernel * kernel);
    memset(conv, 0, sizeof *conv);
    conv->in_channels = in_channels;
    conv->out_channels = out_channels;
    conv->kernel = kernel;
    conv->stride = stride;
    conv->padding = padding;
    /* The stem's windows are unfolded into one run; elsewhere a kernel's row is contiguous in memory. */
    conv->runs = is_stem ? 1 : kernel;
    conv->groups = is_stem ? (int)(products + 3) / 4 : kernel * (int)sqz_pixel_bytes(in_channels) / 4;
    conv->panels = (out_channels + SQZ_LANES - 1) / SQZ_LANES;
    conv->last_outputs = out_channels - (conv->panels - 1) * SQZ_LANES;
    walk->sizes.n_convs++;
    walk->sizes.n_weights += (size_t)((products + 1) * (uint64_t)out_channels);
    walk->sizes.n_macs += products * (uint64_t)out_channels * (uint64_t)out_size * (uint64_t)out_size;
    walk->activations += (uint64_t)out_channels * (uint64_t)out_size * (uint64_t)out_size;
    if (walk->kernels) {
        size_t unit = walk->kernels->pack == SQZ_PACK_S8 ? 1 : 2, lanes = (size_t)conv->panels * SQZ_LANES;
        conv->panel_bytes = (size_t)(conv->runs * conv->groups) * 4 * SQZ_LANES * unit;
        size_t weights = plan_take(walk, conv->panel_bytes * (size_t)conv->panels), kinds = plan_take(walk, lanes);
        size_t bias = plan_take(walk, 4 * lanes), multiplier = plan_take(walk, 4 * lanes);
        size_t plain_bias = plan_take(walk, 4 * lanes);
        if (base) {
            conv->weights = base + weights;
            conv->kinds = base + kinds;
            conv->bias = (int32_t *)(void *)(base + bias);
            conv->multiplier = (float *)(void *)(base + multiplier);
            conv->plain_bias = (int32_t *)(void *)(base + plain_bias);
        }
    }
    return out_size;
}

static int plan_pool_size(int size, int ceil_mode) {
    if (size < 2 || (size == 2 && !ceil_mode)) return 0;
    return (size - PLAN_POOL_KERNEL + ceil_mode) / 2 + 1;
}

static sqz_tensor plan_next_tensor(plan_walk *walk) {
    static const sqz_tensor none = {1.0f, 0};
    int index = walk->next_tensor++;
    return index < SQZ_MAX_TENSORS ? walk->spec->tensors[index] : none;
}

static int plan_pool(plan_walk *walk, int layer, int *has_pool) {
    *has_pool = walk->spec->has_pool[layer] != 0;
    if (*has_pool) {
        walk->size = plan_pool_size(walk->size, walk->spec->pool_ceil_mode);
        walk->activations += (uint64_t)walk->channels * (uint64_t)walk->size * (uint64_t)walk->size;
    }
    return walk->size;
}

static void plan_stem(plan_walk *walk, sqz_model *model, uint8_t *base) {
    const sqz_spec *spec = walk->spec;
    model->input_size = walk->size = spec->input_size;
    model->stem_size = plan_conv(walk, &model->stem, base, 3, spec->stem_channels, spec->stem_kernel, spec->stem_stride,
                                 spec->stem_padding, 1);
    model->stem.in_zero = plan_next_tensor(walk).zero_point;
    walk->tensor = plan_next_tensor(walk);
    model->stem.out_zero = walk->tensor.zero_point;
    walk->channels = spec->stem_channels;
    walk->size = model->stem_size;
    model->stem_out_size = plan_pool(walk, 1, &model->stem_has_pool);
}

static void plan_fire(plan_walk *walk, int index, sqz_fire *fire, uint8_t *base) {
    const sqz_spec *spec = walk->spec;
    const sqz_fire_spec *widths = &spec->fires[index];
    int squeeze = widths->squeeze_channels, wide = widths->expand1x1_channels + widths->expand3x3_channels;
    sqz_tensor input = walk->tensor, squeezed, joined, other;
    memset(fire, 0, sizeof *fire);
    fire->in_channels = walk->channels;
    fire->out_channels = wide;
    fire->size = walk->size;
    fire->has_bypass_conv = spec->bypass == SQZ_BYPASS_COMPLEX && walk->channels != wide;
    fire->has_add = fire->has_bypass_conv || (spec->bypass != SQZ_BYPASS_NONE && walk->channels == wide);
    plan_conv(walk, &fire->squeeze, base, walk->channels, squeeze, 1, 1, 0, 0);
    plan_conv(walk, &fire->expand1x1, base, squeeze, widths->expand1x1_channels, 1, 1, 0, 0);
    plan_conv(walk, &fire->expand3x3, base, squeeze, widths->expand3x3_channels, 3, 1, 1, 0);
    squeezed = plan_next_tensor(walk);
    joined = plan_next_tensor(walk);
    fire->squeeze.in_zero = input.zero_point;
    fire->squeeze.out_zero = fire->expand1x1.in_zero = fire->expand3x3.in_zero = squeezed.zero_point;
    fire->expand1x1.out_zero = fire->expand3x3.out_zero = joined.zero_point;
    walk->tensor = joined;
    if (fire->has_add) {
        other = input;
        if (fire->has_bypass_conv) {
            plan_conv(walk, &fire->bypass, base, walk->channels, wide, 1, 1, 0, 0);
            other = plan_next_tensor(walk);
            fire->bypass.in_zero = input.zero_point;
            fire->bypass.out_zero = other.zero_point;
        }
        walk->tensor = plan_next_tensor(walk);
        walk->activations += (uint64_t)wide * (uint64_t)walk->size * (uint64_t)walk->size;
        /* A quotient in double, rounded to float once. */
        fire->add.factor[0] = (float)((double)joined.scale / (double)walk->tensor.scale);
        fire->add.factor[1] = (float)((double)other.scale / (double)walk->tensor.scale);
        fire->add.zero[0] = joined.zero_point;
        fire->add.zero[1] = other.zero_point;
        fire->add.sum_zero = walk->tensor.zero_point;
    }
    walk->channels = wide;
    fire->out_size = plan_pool(walk, index + 2, &fire->has_pool);
}

static void plan_head(plan_walk *walk, sqz_model *model, uint8_t *base) {
    const sqz_spec *spec = walk->spec;
    int map_size = plan_conv(walk, &model->head, base, walk->channels, spec->num_classes, 1, 1, spec->head_padding, 0);
    model->head.in_zero = walk->tensor.zero_point;
    model->head_size = walk->size;
    model->head_relu = spec->head_relu != 0;
    model->head_padding = spec->head_padding;
    walk->sizes.map_size = map_size;
}

/* --- checks ------------------------------------------------------------------------------------------------------- */

static int plan_in(int value, int lowest, int highest) { return value >= lowest && value <= highest; }

static int plan_fields_are_valid(const sqz_spec *spec) {
    if (!plan_in(spec->stem_channels, 1, SQZ_MAX_CHANNELS) || !plan_in(spec->stem_kernel, 1, 11) ||
        !plan_in(spec->stem_stride, 1, 4) || !plan_in(spec->stem_padding, 0, spec->stem_kernel / 2) ||
        !plan_in(spec->n_fires, 1, SQZ_MAX_FIRES) || !plan_in(spec->num_classes, 1, 65535) ||
        !plan_in(spec->input_size, 1, SQZ_MAX_SIZE) || !plan_in(spec->bypass, 0, SQZ_BYPASS_COMPLEX) ||
        !plan_in(spec->head_padding, 0, 1) || !plan_in(spec->pool_ceil_mode, 0, 1)) {
        return 0;
    }
    for (int i = 0; i < spec->n_fires; i++) {
        const sqz_fire_spec *fire = &spec->fires[i];
        if (!fire->squeeze_channels || !fire->expand1x1_channels || !fire->expand3x3_channels ||
            fire->squeeze_channels > SQZ_MAX_CHANNELS ||
            fire->expand1x1_channels + fire->expand3x3_channels > SQZ_MAX_CHANNELS) {
            return 0;
        }
    }
    for (int i = 0; i < SQZ_MAX_FIRES + 2; i++) {
        if (spec->has_pool[i] && !plan_in(i, 1, spec->n_fires + 1)) return 0;
    }
    return 1;
}

static void plan_begin(plan_walk *walk, const sqz_spec *spec, const sqz_kernels *kernels) {
    memset(walk, 0, sizeof *walk);
    walk->spec = spec;
    walk->kernels = kernels;
}

sqz_status sqz_check_spec(const sqz_spec *spec, sqz_sizes *sizes) {
    plan_walk walk;
    sqz_model model;
    sqz_fire fire;
    if (!plan_fields_are_valid(spec)) return SQZ_BAD_TABLE;
    plan_begin(&walk, spec, NULL);
    plan_stem(&walk, &model, NULL);
    for (int i = 0; i < spec->n_fires; i++) {
        if (walk.size < 1) return SQZ_BAD_TABLE;
        plan_fire(&walk, i, &fire, NULL);
    }
    if (walk.size < 1) return SQZ_BAD_TABLE;
    plan_head(&walk, &model, NULL);
    if (walk.sizes.n_weights > PLAN_MAX_WEIGHTS || walk.activations > PLAN_MAX_ACTIVATIONS) return SQZ_BAD_TABLE;
    if (walk.next_tensor > spec->n_tensors) return SQZ_TRUNCATED;
    if (walk.next_tensor < spec->n_tensors) return SQZ_BAD_TABLE;
    for (int i = 0; i < spec->n_tensors; i++) {
        float scale = spec->tensors[i].scale;
        if (!(scale >= plan_min_scale && scale <= plan_max_scale)) return SQZ_BAD_TABLE; /* NaN fails as well */
    }
    *sizes = walk.sizes;
    return SQZ_OK;
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

static void plan_at_least(size_t *value, size_t least) {
    if (*value < least) *value = least;
}

/* Memory for a job of one row of a convolution, at least. */
static void plan_wide_memory(sqz_model *model, const sqz_conv *conv, int pixels, size_t x_pixel) {
    if (model->kernels->wants_wide) {
        size_t row = sqz_wide_run(pixels, x_pixel, conv->groups) * 2;
        plan_at_least(&model->wide_bytes, row * (size_t)conv->runs);
        plan_at_least(&model->wide_bytes, SQZ_WIDE_BYTES);
    }
}

static void plan_stem_memory(sqz_model *model) {
    size_t columns = (size_t)model->stem_size * (size_t)model->stem.groups * 4;
    size_t row = (size_t)model->stem_size * sqz_pixel_bytes(model->stem.out_channels);
    model->trunk_bytes = sqz_tensor_bytes(model->stem_out_size, model->stem.out_channels, 0);
    model->scratch_bytes = sqz_round_up(columns + SQZ_SLACK, SQZ_ALIGN);
    plan_wide_memory(model, &model->stem, model->stem_size, (size_t)model->stem.groups * 4);
    if (model->stem_has_pool) model->scratch_bytes += sqz_round_up(3 * row + SQZ_SLACK, SQZ_ALIGN);
}

static void plan_fire_memory(sqz_model *model, const sqz_fire *fire) {
    size_t row = sqz_round_up((size_t)fire->size * sqz_pixel_bytes(fire->out_channels) + SQZ_SLACK, SQZ_ALIGN);
    size_t rows = fire->has_pool ? 3 : 0;
    if (fire->has_add) rows += 1 + (fire->has_bypass_conv ? 1 : 0);
    plan_at_least(&model->trunk_bytes, sqz_tensor_bytes(fire->size, fire->in_channels, 0) +
                                           sqz_tensor_bytes(fire->size, fire->squeeze.out_channels, 1) +
                                           sqz_tensor_bytes(fire->out_size, fire->out_channels, 0));
    plan_at_least(&model->scratch_bytes, rows * row);
    plan_wide_memory(model, &fire->squeeze, fire->size, sqz_pixel_bytes(fire->in_channels));
    plan_wide_memory(model, &fire->expand3x3, fire->size, sqz_pixel_bytes(fire->squeeze.out_channels));
    if (fire->has_bypass_conv) plan_wide_memory(model, &fire->bypass, fire->size, sqz_pixel_bytes(fire->in_channels));
}

static void plan_head_memory(sqz_model *model) {
    plan_at_least(&model->scratch_bytes, sqz_head_scratch_bytes());
    plan_wide_memory(model, &model->head, SQZ_HEAD_PIXELS, sqz_pixel_bytes(model->head.in_channels));
    model->scratch_bytes += sqz_round_up(model->wide_bytes, SQZ_ALIGN);
}

static size_t plan_total(const sqz_spec *spec, const sqz_kernels *kernels, sqz_model *model, sqz_fire *fires,
                         uint8_t *base, sqz_sizes *sizes) {
    plan_walk walk;
    sqz_fire fire;
    plan_begin(&walk, spec, kernels);
    model->kernels = kernels;
    model->trunk_bytes = model->scratch_bytes = model->wide_bytes = 0;
    plan_take(&walk, sizeof *model);
    plan_take(&walk, sizeof *fires * spec->n_fires);
    plan_stem(&walk, model, base);
    plan_stem_memory(model);
    for (int i = 0; i < spec->n_fires; i++) {
        sqz_fire *one = fires ? &fires[i] : &fire;
        plan_fire(&walk, i, one, base);
        plan_fire_memory(model, one);
    }
    plan_head(&walk, model, base);
    plan_head_memory(model);
    *sizes = walk.sizes;
    return walk.next_byte;
}

sqz_status sqz_measure(const sqz_spec *spec, const char *kernels, int threads, sqz_sizes *sizes) {
    const sqz_kernels *set = sqz_find_kernels(kernels);
    sqz_model model;
    sqz_status status;
    size_t bytes;
    if (!spec || !sizes || threads < 1 || threads > 1024) return SQZ_BAD_ARGUMENT;
    if (!set) return SQZ_NO_KERNEL;
    status = sqz_check_spec(spec, sizes);
    if (status) return status;
    bytes = plan_total(spec, set, &model, NULL, NULL, sizes);
    sizes->model_bytes = bytes + SQZ_ALIGN;
    sizes->load_bytes = sqz_load_bytes(spec, sizes->n_convs);
    sizes->arena_bytes = (model.trunk_bytes + model.scratch_bytes) * (size_t)threads + SQZ_ALIGN;
    return SQZ_OK;
}

sqz_status sqz_create(const sqz_spec *spec, const char *kernels, void *memory, size_t bytes, sqz_model **result) {
    sqz_sizes sizes;
    sqz_model *model;
    uint8_t *base;
    sqz_status status;
    if (!memory || !result) return SQZ_BAD_ARGUMENT;
    status = sqz_measure(spec, kernels, 1, &sizes);
    if (status) return status;
    if (bytes < sizes.model_bytes) return SQZ_NO_MEMORY;
    base = (uint8_t *)memory + (SQZ_ALIGN - (uintptr_t)memory % SQZ_ALIGN) % SQZ_ALIGN;
    model = (sqz_model *)(void *)base;
    memset(model, 0, sizeof *model);
    model->n_fires = spec->n_fires;
    model->fires = (sqz_fire *)(void *)(base + sqz_round_up(sizeof *model, SQZ_ALIGN));
    plan_total(spec, sqz_find_kernels(kernels), model, model->fires, base, &sizes);
    model->n_convs = sizes.n_convs;
    *result = model;
    return SQZ_OK;
}

sqz_conv *sqz_conv_at(sqz_model *model, size_t index) {
    if (index == 0) return &model->stem;
    index--;
    for (int i = 0; i < model->n_fires; i++) {
        sqz_fire *fire = &model->fires[i];
        sqz_conv *convs[4] = {&fire->squeeze, &fire->expand1x1, &fire->expand3x3, &fire->bypass};
        size_t count = fire->has_bypass_conv ? 4 : 3;
        if (index < count) return convs[index];
        index -= count;
    }
    return index ? NULL : &model->head;
}

sqz_status sqz_conv_shape_of(const sqz_spec *spec, size_t index, sqz_conv_shape *shape) {
    int channels;
    if (!spec || !shape || spec->n_fires > SQZ_MAX_FIRES) return SQZ_BAD_ARGUMENT;
    shape->in_channels = 3, shape->out_channels = spec->stem_channels, shape->kernel = spec->stem_kernel;
    if (index-- == 0) return SQZ_OK;
    channels = spec->stem_channels;
    for (int i = 0; i < spec->n_fires; i++) {
        const sqz_fire_spec *fire = &spec->fires[i];
        int wide = fire->expand1x1_channels + fire->expand3x3_channels, is_expand = index == 1 || index == 2;
        size_t count = spec->bypass == SQZ_BYPASS_COMPLEX && channels != wide ? 4 : 3;
        if (index < count) {
            shape->in_channels = is_expand ? fire->squeeze_channels : channels;
            shape->out_channels = index == 0   ? fire->squeeze_channels
                                  : index == 1 ? fire->expand1x1_channels
                                  : index == 2 ? fire->expand3x3_channels
                                               : wide;
            shape->kernel = index == 2 ? 3 : 1;
            return SQZ_OK;
        }
        index -= count;
        channels = wide;
    }
    shape->in_channels = channels, shape->out_channels = spec->num_classes, shape->kernel = 1;
    return index ? SQZ_BAD_ARGUMENT : SQZ_OK;
}

const char *sqz_kernels_of(const sqz_model *model) { return model->kernels->name; }

/* --- packing ------------------------------------------------------------------------------------------------------ */

/* Position of a product among the groups of its sum. */
static size_t plan_product(const sqz_conv *conv, size_t place, size_t channel) {
    int is_stem = conv->runs == 1 && conv->kernel > 1;
    return is_stem ? place * 3 + channel : place * sqz_pixel_bytes(conv->in_channels) + channel;
}

/* The kind of a panel already packed as S8: what holds for its weights holds whatever the activations are. */
static int plan_panel_kind(const sqz_conv *conv, const uint8_t *panel) {
    int kind = SQZ_PANEL_PAIRS_OF_4;
    for (int lane = 0; lane < SQZ_LANES; lane++) {
        for (int pair = 0; pair < 2; pair++) {
            for (int run = 0; run < conv->runs; run++) {
                int recent[4] = {0, 0, 0, 0}; /* |w| + |w'| of the last four groups */
                for (int group = 0; group < conv->groups; group++) {
                    const uint8_t *at = panel + (size_t)(run * conv->groups + group) * 64 + lane * 4 + pair * 2;
                    int a = (int8_t)at[0], b = (int8_t)at[1];
                    recent[group & 3] = (a < 0 ? -a : a) + (b < 0 ? -b : b);
                    if (recent[group & 3] > 128) return SQZ_PANEL_WIDE; /* 128 * 255 < 2^15 */
                    if ((group & 1) && recent[group & 3] + recent[(group - 1) & 3] > 128) kind = SQZ_PANEL_PAIRS;
                    if (kind == SQZ_PANEL_PAIRS_OF_4 && (group & 3) == 3 &&
                        recent[0] + recent[1] + recent[2] + recent[3] > 128) {
                        kind = SQZ_PANEL_PAIRS_OF_2;
                    }
                }
            }
        }
    }
    return kind;
}

static void plan_pack_panel(const sqz_conv *conv, const int8_t *weight, int first, int outputs, int is_wide,
                            uint8_t *panel) {
    const size_t area = (size_t)(conv->kernel * conv->kernel), channels = (size_t)conv->in_channels;
    int16_t *wide = (int16_t *)(void *)panel;
    memset(panel, 0, (size_t)(conv->runs * conv->groups) * 64 * (is_wide ? 2 : 1));
    for (size_t place = 0; place < area; place++) {
        for (size_t channel = 0; channel < channels; channel++) {
            const size_t product = plan_product(conv, place, channel), group = product / 4, within = product % 4;
            const int8_t *w = weight + ((size_t)first * channels + channel) * area + place;
            int16_t *wide_to = wide + group * 64 + within / 2 * 32 + within % 2;
            uint8_t *to = panel + group * 64 + within;
            for (int lane = 0; lane < outputs; lane++, w += channels * area) {
                if (is_wide) {
                    wide_to[2 * lane] = *w;
                } else {
                    to[4 * lane] = (uint8_t)*w;
                }
            }
        }
    }
}

sqz_status sqz_set_conv(sqz_model *model, size_t index, const int8_t *weight, const int32_t *bias,
                        const float *multiplier) {
    sqz_conv *conv = model ? sqz_conv_at(model, index) : NULL;
    int pack;
    size_t products;
    if (!conv || !weight || !bias || !multiplier) return SQZ_BAD_ARGUMENT;
    products = (size_t)conv->in_channels * (size_t)(conv->kernel * conv->kernel);
    pack = model->kernels->pack;
    conv->is_set = 0;
    conv->largest_sum = 0;
    conv->is_bounded = 1;
    for (int o = 0; o < conv->panels * SQZ_LANES; o++) {
        const int8_t *w = weight + (size_t)o * products;
        int32_t sum = 0, magnitude = 0;
        int64_t largest;
        if (o >= conv->out_channels) {
            conv->bias[o] = 0;
            conv->multiplier[o] = 1.0f;
            continue;
        }
        int lowest = 0;
        for (size_t i = 0; i < products; i++) { /* at most 4096 * 121 weights: the sums fit */
            sum += w[i];
            magnitude += w[i] < 0 ? -w[i] : w[i];
            lowest = sqz_min(lowest, w[i]);
        }
        if (lowest == -128) return SQZ_BAD_TABLE;
        largest = (int64_t)magnitude * 255 + (bias[o] < 0 ? -(int64_t)bias[o] : bias[o]);
        if (largest > INT32_MAX) return SQZ_BAD_TABLE;
        if (largest > conv->largest_sum) conv->largest_sum = largest;
        if (!(multiplier[o] >= plan_min_scale && multiplier[o] <= plan_max_multiplier)) return SQZ_BAD_TABLE;
        if ((double)largest * (double)multiplier[o] > 2147000000.0) conv->is_bounded = 0;
        /* Wraps where the kernel's sums wrap back: only the whole is known to fit. */
        conv->bias[o] = (int32_t)(uint32_t)(bias[o] + (int64_t)(model->kernels->x_offset - conv->in_zero) * sum);
        conv->multiplier[o] = multiplier[o];
        conv->plain_bias[o] = bias[o];
    }
    for (int panel = 0; panel < conv->panels; panel++) {
        int first = panel * SQZ_LANES, outputs = sqz_min(SQZ_LANES, conv->out_channels - first);
        uint8_t *to = conv->weights + (size_t)panel * conv->panel_bytes;
        plan_pack_panel(conv, weight, first, outputs, pack == SQZ_PACK_S16, to);
        conv->kinds[panel] = pack == SQZ_PACK_MIX ? (uint8_t)plan_panel_kind(conv, to) : SQZ_PANEL_WIDE;
        if (pack == SQZ_PACK_MIX && conv->kinds[panel] == SQZ_PANEL_WIDE) {
            plan_pack_panel(conv, weight, first, outputs, 1, to);
        }
    }
    conv->is_set = 1;
    return SQZ_OK;
}
