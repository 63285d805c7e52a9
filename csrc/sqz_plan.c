/* sqz_plan.c - from a spec to a model without weights: checks, shapes, memory for weights.
 *
 * A network is always stem, Fire modules, head, so a model has a struct for each of them instead of a graph. One walk over
 * the spec fills them. Without memory for the model, the same walk reuses a few spare structs and only counts bytes. */
#include "sqz_internal.h"

enum {
    PLAN_POOL_KERNEL = 3,
    PLAN_MAX_WEIGHTS = 1 << 24, /* as in spec.py */
    PLAN_MAX_ACTIVATIONS = 1 << 27
};
#define PLAN_MAX_MACS ((uint64_t)1 << 37)

typedef struct {
    const sqz_spec *spec;
    sqz_model *model;
    uint8_t *memory;
    size_t next_byte; /* of the memory, also while it is only counted */
    sqz_conv spare_convs[4]; /* no layer has more */
    sqz_fire spare_fire;
    sqz_stage spare_stages[SQZ_MAX_FIRES + 1];
    int channels, size, next_tensor, n_stages;
    int is_relu_shifted; /* whether a ReLU writes a tensor whose zero-point is not 0 */
    sqz_tensor tensor; /* the tensor that the next layer reads */
    uint64_t weights, activations;
    sqz_sizes sizes;
} plan_walk;

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

/* Height and width of the output of a convolution or pool; 0 if its input is smaller than one window. */
static int plan_conv_size(int size, int kernel, int stride, int padding) {
    return size + 2 * padding < kernel ? 0 : (size + 2 * padding - kernel) / stride + 1;
}

static int plan_pool_size(int size, int ceil_mode) {
    if (size < 2 || (size == 2 && !ceil_mode)) return 0;
    return (size - PLAN_POOL_KERNEL + ceil_mode) / 2 + 1;
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

/* Takes the next `bytes` of the model's memory; returns NULL if they are only counted. */
static void *plan_take(plan_walk *walk, size_t bytes) {
    uint8_t *at = walk->memory ? walk->memory + walk->next_byte : NULL;
    walk->next_byte += sqz_round_up(bytes, SQZ_ALIGN);
    return at;
}

static void plan_at_least(size_t *value, size_t least) {
    if (*value < least) *value = least;
}

/* --- walking a spec ----------------------------------------------------------------------------------------------- */

/* Adds a shape to the model's totals. The hash is 64-bit FNV-1a of the numbers of all shapes. */
static void plan_note_shape(sqz_model *model, sqz_conv_shape shape) {
    const size_t products = (size_t)shape.in_channels * (size_t)(shape.kernel * shape.kernel);
    const int numbers[3] = {shape.in_channels, shape.out_channels, shape.kernel};
    plan_at_least(&model->integer_bytes, (size_t)shape.out_channels * (products + 8));
    sqz_decoder_need(&model->needs, &shape);
    for (int i = 0; i < 3; i++) model->shape_hash = (model->shape_hash ^ (uint64_t)numbers[i]) * 1099511628211u;
}

/* Describes the next convolution of the file. */
static sqz_conv *plan_conv(plan_walk *walk, int in_channels, int out_channels, int kernel, int stride, int padding) {
    const size_t index = walk->sizes.n_convs++;
    const sqz_kernels *kernels = walk->model->kernels;
    const int is_stem = index == 0;
    const uint64_t products = (uint64_t)in_channels * (uint64_t)(kernel * kernel);
    const int out_size = plan_conv_size(walk->size, kernel, stride, padding);
    const uint64_t positions = (uint64_t)out_size * (uint64_t)out_size;
    const sqz_conv_shape shape = {in_channels, out_channels, kernel};
    sqz_conv *conv = walk->memory ? &walk->model->convs[index] : &walk->spare_convs[index % 4];
    size_t lanes;
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
    conv->panel_bytes = (size_t)(conv->runs * conv->groups) * 4 * SQZ_LANES;
    if (kernels && kernels->pack != SQZ_PACK_S8 && kernels->pack != SQZ_PACK_TWOS) conv->panel_bytes *= 2;
    lanes = (size_t)conv->panels * SQZ_LANES;
    conv->weights = (uint8_t *)plan_take(walk, conv->panel_bytes * (size_t)conv->panels);
    conv->kinds = (uint8_t *)plan_take(walk, lanes);
    conv->bias = (int32_t *)plan_take(walk, 4 * lanes);
    conv->multiplier = (float *)plan_take(walk, 4 * lanes);
    conv->plain_bias = (int32_t *)plan_take(walk, 4 * lanes);
    plan_note_shape(walk->model, shape);
    walk->weights += (products + 1) * (uint64_t)out_channels;
    walk->activations += (uint64_t)out_channels * positions;
    walk->sizes.n_macs += products * (uint64_t)out_channels * positions;
    return conv;
}

static sqz_tensor plan_next_tensor(plan_walk *walk) {
    static const sqz_tensor none = {1.0f, 0};
    int index = walk->next_tensor++;
    return index < SQZ_MAX_TENSORS ? walk->spec->tensors[index] : none;
}

/* Makes sure that the model's memory suffices for a job of at least one row of a convolution. */
static void plan_wide_memory(sqz_model *model, const sqz_conv *conv, int pixels, size_t x_pixel) {
    if (!model->kernels) return;
    if (model->kernels->wide == SQZ_WIDE_WINDOWS) {
        plan_at_least(&model->wide_bytes, (size_t)(conv->runs * conv->groups) * 4 * 2 * SQZ_WINDOW_PIXELS);
    } else if (model->kernels->wide == SQZ_WIDE_ROWS) {
        size_t row = sqz_wide_run(pixels, x_pixel, conv->groups) * 2;
        plan_at_least(&model->wide_bytes, row * (size_t)conv->runs);
        plan_at_least(&model->wide_bytes, SQZ_WIDE_BYTES);
    }
}

/* Ends a stage, with its pool if it has one. */
static void plan_stage(plan_walk *walk, int layer, size_t window_bytes) {
    sqz_stage *stage = &walk->model->stages[walk->n_stages++];
    stage->channels = walk->channels;
    stage->window_bytes = window_bytes;
    stage->size = stage->out_size = stage->rows = walk->size;
    stage->has_pool = walk->spec->has_pool[layer] != 0;
    if (stage->has_pool) {
        stage->out_size = walk->size = plan_pool_size(walk->size, walk->spec->pool_ceil_mode);
        stage->rows = sqz_min(2 * stage->out_size + 1, stage->size);
        walk->activations += (uint64_t)walk->channels * (uint64_t)walk->size * (uint64_t)walk->size;
    }
}

static void plan_stem(plan_walk *walk) {
    const sqz_spec *spec = walk->spec;
    sqz_model *model = walk->model;
    const int kernel = spec->stem_kernel, stride = spec->stem_stride, padding = spec->stem_padding;
    model->input_size = walk->size = spec->input_size;
    model->stem_kernel = kernel;
    model->stem = plan_conv(walk, 3, spec->stem_channels, kernel, stride, padding);
    model->stem->in_zero = plan_next_tensor(walk).zero_point;
    walk->tensor = plan_next_tensor(walk);
    model->stem->out_zero = walk->tensor.zero_point;
    walk->is_relu_shifted |= walk->tensor.zero_point != 0;
    walk->channels = spec->stem_channels;
    walk->size = plan_conv_size(walk->size, kernel, stride, padding);
    plan_wide_memory(model, model->stem, walk->size, (size_t)model->stem->groups * 4);
    plan_stage(walk, 1, (size_t)walk->size * (size_t)model->stem->groups * 4 + SQZ_SLACK);
}

static void plan_bypass(plan_walk *walk, sqz_fire *fire, sqz_tensor input, sqz_tensor joined) {
    sqz_tensor other = input, sum;
    if (fire->bypass) {
        other = plan_next_tensor(walk);
        fire->bypass->in_zero = input.zero_point;
        fire->bypass->out_zero = other.zero_point;
    }
    sum = walk->tensor = plan_next_tensor(walk);
    walk->activations += (uint64_t)walk->channels * (uint64_t)walk->size * (uint64_t)walk->size;
    /* The quotient in double, rounded once to float. */
    fire->add.factor[0] = (float)((double)joined.scale / (double)sum.scale);
    fire->add.factor[1] = (float)((double)other.scale / (double)sum.scale);
    fire->add.zero[0] = joined.zero_point;
    fire->add.zero[1] = other.zero_point;
    fire->add.sum_zero = sum.zero_point;
}

static void plan_fire(plan_walk *walk, int index) {
    const sqz_spec *spec = walk->spec;
    const sqz_fire_spec *widths = &spec->fires[index];
    const int squeeze = widths->squeeze_channels, wide = widths->expand1x1_channels + widths->expand3x3_channels;
    const sqz_tensor input = walk->tensor;
    sqz_fire *fire = walk->memory ? &walk->model->fires[index] : &walk->spare_fire;
    sqz_stage *before = &walk->model->stages[index];
    size_t bypass_bytes = 0;
    sqz_tensor squeezed, joined;
    memset(fire, 0, sizeof *fire);
    fire->squeeze = plan_conv(walk, walk->channels, squeeze, 1, 1, 0);
    fire->expand1x1 = plan_conv(walk, squeeze, widths->expand1x1_channels, 1, 1, 0);
    fire->expand3x3 = plan_conv(walk, squeeze, widths->expand3x3_channels, 3, 1, 1);
    squeezed = plan_next_tensor(walk);
    joined = walk->tensor = plan_next_tensor(walk);
    walk->is_relu_shifted |= (spec->squeeze_relu && squeezed.zero_point) || joined.zero_point;
    fire->squeeze->in_zero = input.zero_point;
    fire->squeeze->out_zero = fire->expand1x1->in_zero = fire->expand3x3->in_zero = squeezed.zero_point;
    fire->expand1x1->out_zero = fire->expand3x3->out_zero = joined.zero_point;
    if (spec->bypass == SQZ_BYPASS_COMPLEX && walk->channels != wide) {
        fire->bypass = plan_conv(walk, walk->channels, wide, 1, 1, 0);
    }
    fire->has_add = fire->bypass || (spec->bypass != SQZ_BYPASS_NONE && walk->channels == wide);
    plan_wide_memory(walk->model, fire->squeeze, walk->size, sqz_pixel_bytes(walk->channels));
    plan_wide_memory(walk->model, fire->expand3x3, walk->size, sqz_pixel_bytes(squeeze));
    if (fire->bypass) {
        plan_wide_memory(walk->model, fire->bypass, walk->size, sqz_pixel_bytes(walk->channels));
        bypass_bytes = sqz_row_bytes(walk->size, wide);
    }
    before->map_channels = squeeze;
    before->is_added = fire->has_add;
    walk->channels = wide;
    if (fire->has_add) plan_bypass(walk, fire, input, joined);
    plan_stage(walk, index + 2, bypass_bytes);
}

static void plan_head(plan_walk *walk) {
    const sqz_spec *spec = walk->spec;
    sqz_model *model = walk->model;
    model->head = plan_conv(walk, walk->channels, spec->num_classes, 1, 1, spec->head_padding);
    model->head->in_zero = walk->tensor.zero_point;
    model->head_relu = spec->head_relu != 0;
    model->head_padding = spec->head_padding;
    walk->sizes.map_size = walk->size + 2 * spec->head_padding;
    plan_wide_memory(model, model->head, sqz_head_pixels(model->kernels), sqz_pixel_bytes(walk->channels));
}

sqz_status sqz_plan(const sqz_spec *spec, const sqz_kernels *kernels, const sqz_options *options, sqz_model *model,
                    uint8_t *memory, sqz_sizes *sizes) {
    plan_walk walk;
    if (!plan_fields_are_valid(spec)) return SQZ_BAD_TABLE;
    memset(&walk, 0, sizeof walk);
    memset(model, 0, sizeof *model);
    walk.spec = spec;
    walk.model = model;
    walk.memory = memory;
    model->kernels = kernels;
    model->n_fires = spec->n_fires;
    model->shape_hash = 14695981039346656037u;
    plan_take(&walk, sizeof *model);
    model->fires = (sqz_fire *)plan_take(&walk, sizeof(sqz_fire) * spec->n_fires);
    model->stages = (sqz_stage *)plan_take(&walk, sizeof(sqz_stage) * ((size_t)spec->n_fires + 1));
    model->convs = (sqz_conv *)plan_take(&walk, sizeof(sqz_conv) * (2 + 4 * (size_t)spec->n_fires)); /* at most */
    if (!memory) model->stages = walk.spare_stages;
    for (int i = 0; i <= spec->n_fires; i++) memset(&model->stages[i], 0, sizeof *model->stages);
    plan_stem(&walk);
    for (int i = 0; i < spec->n_fires; i++) {
        if (walk.size < 1) return SQZ_BAD_TABLE;
        plan_fire(&walk, i);
    }
    if (walk.size < 1) return SQZ_BAD_TABLE;
    plan_head(&walk);
    if (walk.weights > PLAN_MAX_WEIGHTS || walk.activations > PLAN_MAX_ACTIVATIONS) return SQZ_BAD_TABLE;
    if (walk.sizes.n_macs > PLAN_MAX_MACS) return SQZ_BAD_TABLE;
    if (walk.next_tensor > spec->n_tensors) return SQZ_TRUNCATED;
    if (walk.next_tensor < spec->n_tensors || walk.is_relu_shifted) return SQZ_BAD_TABLE;
    for (int i = 0; i < spec->n_tensors; i++) {
        float scale = spec->tensors[i].scale;
        if (!(scale >= SQZ_MIN_SCALE && scale <= SQZ_MAX_SCALE)) return SQZ_BAD_TABLE; /* NaN fails as well */
    }
    model->n_convs = walk.sizes.n_convs;
    model->n_macs = walk.sizes.n_macs;
    sqz_schedule(model, options ? options->band_rows : 0, options ? options->streamed : 0);
    walk.sizes.n_weights = (size_t)walk.weights;
    walk.sizes.model_bytes = walk.next_byte;
    *sizes = walk.sizes;
    return SQZ_OK;
}
