/* sqz_run.c - runs a model: the stem, the Fire modules and the head, split over threads by rows (the head by classes).
 *
 * Between stages only three tensors exist: what a Fire reads, its squeeze layer with a border of zero-points, and what
 * it writes, placed at alternating ends of the trunk. Pools, additions and concatenation work on a few rows at a time
 * in each thread's scratch memory and never see a whole tensor. */
#include "sqz_internal.h"

#ifndef SQZ_MACS_PER_THREAD
#define SQZ_MACS_PER_THREAD (1 << 26) /* what is worth a thread: 0.4 to some milliseconds of one */
#endif
enum { RUN_PARTS_PER_THREAD = 2 }; /* of a stage */

typedef struct {
    const sqz_model *model;
    const uint8_t *pixels; /* of the images of this run */
    double *logits, *map;
    int32_t *features;
    uint8_t *arena;
    size_t threads; /* whose memory the arena holds */
    const int *parts; /* of each stage of an image; NULL where a part is an image */
} run_context;

typedef struct {
    const sqz_model *model;
    uint8_t *trunk, *scratch;
    int part, parts; /* of a stage */
} run_worker;

/* First item of the worker's part of `count` items, or the first that is no longer in it. */
static int run_first(const run_worker *worker, int count) {
    return (int)((int64_t)count * worker->part / worker->parts);
}
static int run_last(const run_worker *worker, int count) {
    return (int)((int64_t)count * (worker->part + 1) / worker->parts);
}

static void run_conv(const run_worker *worker, const sqz_conv *conv, sqz_conv_job *job) {
    const sqz_model *model = worker->model;
    size_t wide = model->scratch_bytes - sqz_round_up(model->wide_bytes, SQZ_ALIGN);
    job->wide = (uint16_t *)(void *)(worker->scratch + wide);
    job->wide_rows = (int)(model->wide_bytes / (2 * sqz_wide_run(job->pixels, job->x_pixel, conv->groups)));
    job->runs = conv->runs;
    job->groups = conv->groups;
    job->weights = conv->weights;
    job->panel_bytes = conv->panel_bytes;
    job->kinds = conv->kinds;
    job->bias = conv->bias;
    job->multiplier = conv->multiplier;
    job->panels = conv->panels;
    job->last_outputs = conv->last_outputs;
    job->zero = conv->out_zero;
    job->is_plain = conv->is_bounded && conv->out_zero == 0;
    model->kernels->conv(job);
}

/* --- rows: pools -------------------------------------------------------------------------------------------------- */

/* Makes rows [first, last) of a tensor at `y`. */
typedef void (*run_rows)(const run_worker *worker, const void *layer, int first, int last, uint8_t *y);

/* Rows [first, last) of the pool of what `make` makes; `strip` holds three rows of it. */
static void run_pooled(const run_worker *worker, run_rows make, const void *layer, int size, int out_size, size_t pixel,
                       int first, int last, uint8_t *strip, uint8_t *y) {
    size_t row_bytes = (size_t)size * pixel;
    for (int out = first; out < last; out++) {
        int top = 2 * out, end = sqz_min(top + 3, size);
        const uint8_t *rows[3];
        if (out == first) {
            make(worker, layer, top, end, strip);
        } else { /* the window's last row is the next one's first */
            memcpy(strip, strip + 2 * row_bytes, row_bytes);
            make(worker, layer, top + 1, end, strip + row_bytes);
        }
        for (int i = 0; i < 3; i++) rows[i] = strip + (size_t)sqz_min(i, end - top - 1) * row_bytes;
        worker->model->kernels->pool_row(rows, size, out_size, pixel, y + (size_t)out * (size_t)out_size * pixel);
    }
}

/* --- stem --------------------------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *pixels;
    uint8_t *columns;
} run_stem_layer;

/* Windows of one output row from `column` on, as far as they lie inside the image; returns the first that does not.
 * Each of a window's lines is copied as COPIED bytes, a few more than it has: what is too much falls on the next line
 * or window, or on products whose weights are 0. */
SQZ_INLINE int run_unfold_inside(const sqz_model *model, const uint8_t *pixels, int top, int column, uint8_t *columns,
                                 const int KERNEL, const size_t COPIED) {
    const int stride = model->stem->stride, padding = model->stem->padding, size = model->input_size;
    const size_t window = (size_t)model->stem->groups * 4, line = (size_t)size * 3;
    for (; column < model->stem_size; column++) {
        int left = column * stride - padding;
        size_t at = (size_t)top * line + (size_t)left * 3;
        uint8_t *to = columns + (size_t)column * window;
        if (left + KERNEL > size || at + (size_t)(KERNEL - 1) * line + COPIED > (size_t)size * line) break;
        for (int ky = 0; ky < KERNEL; ky++, at += line, to += 3 * KERNEL) memcpy(to, pixels + at, COPIED);
    }
    return column;
}

/* Lays the windows of one output row side by side: kernel * kernel * 3 bytes each, padded to whole groups. */
static void run_unfold_row(const sqz_model *model, const uint8_t *pixels, int row, uint8_t *columns) {
    const sqz_conv *conv = model->stem;
    const int size = model->input_size, kernel = conv->kernel, top = row * conv->stride - conv->padding;
    const size_t window = (size_t)conv->groups * 4;
    for (int column = 0; column < model->stem_size; column++) {
        const int left = column * conv->stride - conv->padding;
        uint8_t *to = columns + (size_t)column * window;
        if (left >= 0 && top >= 0 && top + kernel <= size) {
            if (kernel == 3) column = run_unfold_inside(model, pixels, top, column, columns, 3, 16);
            if (kernel == 7) column = run_unfold_inside(model, pixels, top, column, columns, 7, 32);
            if (column == model->stem_size) return;
            to = columns + (size_t)column * window;
        }
        for (int ky = 0; ky < kernel; ky++) {
            for (int kx = 0; kx < kernel; kx++, to += 3) {
                int y = top + ky, x = column * conv->stride - conv->padding + kx;
                if (y >= 0 && y < size && x >= 0 && x < size) {
                    memcpy(to, pixels + ((size_t)y * (size_t)size + (size_t)x) * 3, 3);
                } else {
                    memset(to, conv->in_zero, 3);
                }
            }
        }
        memset(to, 0, (size_t)(columns + (size_t)(column + 1) * window - to));
    }
}

static void run_stem_rows(const run_worker *worker, const void *layer, int first, int last, uint8_t *y) {
    const sqz_model *model = worker->model;
    const run_stem_layer *stem = (const run_stem_layer *)layer;
    size_t pixel = sqz_pixel_bytes(model->stem->out_channels);
    for (int row = first; row < last; row++, y += (size_t)model->stem_size * pixel) {
        sqz_conv_job job = SQZ_ZEROS;
        run_unfold_row(model, stem->pixels, row, stem->columns);
        job.x = stem->columns;
        job.x_pixel = (size_t)model->stem->groups * 4;
        job.rows = 1;
        job.pixels = model->stem_size;
        job.y = y;
        job.y_pixel = pixel;
        run_conv(worker, model->stem, &job);
    }
}

static void run_stem(const run_worker *worker, const uint8_t *pixels, uint8_t *y) {
    const sqz_model *model = worker->model;
    size_t columns = sqz_round_up((size_t)model->stem_size * (size_t)model->stem->groups * 4 + SQZ_SLACK, SQZ_ALIGN);
    size_t pixel = sqz_pixel_bytes(model->stem->out_channels);
    run_stem_layer stem = {pixels, worker->scratch};
    int first = run_first(worker, model->stem_out_size);
    int last = run_last(worker, model->stem_out_size);
    if (model->stem_has_pool) {
        run_pooled(worker, run_stem_rows, &stem, model->stem_size, model->stem_out_size, pixel, first, last,
                   worker->scratch + columns, y);
    } else {
        run_stem_rows(worker, &stem, first, last, y + (size_t)first * (size_t)model->stem_size * pixel);
    }
}

/* --- Fire modules ------------------------------------------------------------------------------------------------- */

typedef struct {
    const sqz_fire *fire;
    const uint8_t *x, *squeezed; /* the latter with its border */
    uint8_t *joined, *other;     /* a row each: the terms of the addition */
} run_fire_layer;

static void run_squeeze(const run_worker *worker, const sqz_fire *fire, const uint8_t *x, uint8_t *squeezed) {
    size_t pixel = sqz_pixel_bytes(fire->squeeze->out_channels), in_pixel = sqz_pixel_bytes(fire->in_channels);
    size_t row = (size_t)(fire->size + 2) * pixel;
    int size = fire->size, zero = fire->squeeze->out_zero;
    int first = run_first(worker, size);
    int last = run_last(worker, size);
    sqz_conv_job job = SQZ_ZEROS;
    if (worker->part == 0) memset(squeezed, zero, row);
    if (worker->part == worker->parts - 1) memset(squeezed + (size_t)(size + 1) * row, zero, row);
    for (int i = first; i < last; i++) {
        memset(squeezed + (size_t)(i + 1) * row, zero, pixel);
        memset(squeezed + (size_t)(i + 2) * row - pixel, zero, pixel);
    }
    job.x = x + (size_t)first * (size_t)size * in_pixel;
    job.x_pixel = in_pixel;
    job.x_row = (size_t)size * in_pixel;
    job.rows = last - first;
    job.pixels = size;
    job.y = squeezed + (size_t)(first + 1) * row + pixel;
    job.y_pixel = pixel;
    job.y_row = row;
    run_conv(worker, fire->squeeze, &job);
}

static void run_expand(const run_worker *worker, const run_fire_layer *layer, int first, int last, uint8_t *y) {
    const sqz_fire *fire = layer->fire;
    size_t in_pixel = sqz_pixel_bytes(fire->squeeze->out_channels), in_row = (size_t)(fire->size + 2) * in_pixel;
    sqz_conv_job job = SQZ_ZEROS;
    job.x_pixel = in_pixel;
    job.x_run = job.x_row = in_row;
    job.rows = last - first;
    job.pixels = fire->size;
    job.y_pixel = sqz_pixel_bytes(fire->out_channels);
    job.y_row = (size_t)fire->size * job.y_pixel;
    job.x = layer->squeezed + (size_t)(first + 1) * in_row + in_pixel;
    job.y = y;
    run_conv(worker, fire->expand1x1, &job);
    job.x = layer->squeezed + (size_t)first * in_row;
    job.y = y + fire->expand1x1->out_channels;
    run_conv(worker, fire->expand3x3, &job);
}

static void run_fire_rows(const run_worker *worker, const void *of, int first, int last, uint8_t *y) {
    const run_fire_layer *layer = (const run_fire_layer *)of;
    const sqz_fire *fire = layer->fire;
    size_t row = (size_t)fire->size * sqz_pixel_bytes(fire->out_channels);
    size_t in_pixel = sqz_pixel_bytes(fire->in_channels), in_row = (size_t)fire->size * in_pixel;
    if (!fire->has_add) {
        run_expand(worker, layer, first, last, y);
        return;
    }
    for (int i = first; i < last; i++, y += row) {
        const uint8_t *x = layer->x + (size_t)i * in_row, *other = x;
        run_expand(worker, layer, i, i + 1, layer->joined);
        if (fire->bypass) {
            sqz_conv_job job = SQZ_ZEROS;
            job.x = x;
            job.x_pixel = in_pixel;
            job.rows = 1;
            job.pixels = fire->size;
            job.y = layer->other;
            job.y_pixel = sqz_pixel_bytes(fire->out_channels);
            run_conv(worker, fire->bypass, &job);
            other = layer->other;
        }
        worker->model->kernels->add_row(&fire->add, layer->joined, other, row, y);
    }
}

static void run_expands(const run_worker *worker, const sqz_fire *fire, const uint8_t *x, uint8_t *squeezed, uint8_t *y) {
    size_t pixel = sqz_pixel_bytes(fire->out_channels);
    size_t row = sqz_round_up((size_t)fire->size * pixel + SQZ_SLACK, SQZ_ALIGN);
    run_fire_layer layer = {fire, x, squeezed, worker->scratch, worker->scratch + row};
    uint8_t *strip = worker->scratch;
    int first = run_first(worker, fire->out_size);
    int last = run_last(worker, fire->out_size);
    if (fire->has_add) strip += fire->bypass ? 2 * row : row;
    if (fire->has_pool) {
        run_pooled(worker, run_fire_rows, &layer, fire->size, fire->out_size, pixel, first, last, strip, y);
    } else {
        run_fire_rows(worker, &layer, first, last, y + (size_t)first * (size_t)fire->size * pixel);
    }
}

/* --- head --------------------------------------------------------------------------------------------------------- */

/* Adds the sums of some pixels to `totals`, after the head's ReLU, and stores them in the map. */
static void run_collect(const sqz_model *model, const int32_t *raw, int first_pixel, int pixels, int first_class,
                        int lanes, int64_t *totals, double *map) {
    const sqz_conv *head = model->head;
    int is_narrow = head->largest_sum * SQZ_HEAD_PIXELS <= INT32_MAX, floor = model->head_relu ? 0 : INT32_MIN;
    int classes = sqz_min(lanes, head->out_channels - first_class);
    if (is_narrow) {
        int32_t sums[SQZ_HEAD_PANELS * SQZ_LANES] = {0};
        for (int p = 0; p < pixels; p++) {
            for (int o = 0; o < lanes; o++) sums[o] += sqz_max(raw[p * lanes + o], floor);
        }
        for (int o = 0; o < lanes; o++) totals[o] += sums[o];
    } else {
        for (int p = 0; p < pixels; p++) {
            for (int o = 0; o < lanes; o++) totals[o] += sqz_max(raw[p * lanes + o], floor);
        }
    }
    if (!map) return;
    for (int p = 0; p < pixels; p++) {
        int side = model->head_size + 2 * model->head_padding;
        int y = (first_pixel + p) / model->head_size + model->head_padding;
        int x = (first_pixel + p) % model->head_size + model->head_padding;
        double *at = map + ((size_t)y * (size_t)side + (size_t)x) * (size_t)head->out_channels + first_class;
        for (int o = 0; o < classes; o++) {
            at[o] = (double)sqz_max(raw[p * lanes + o], floor) * (double)head->multiplier[first_class + o];
        }
    }
}

/* Positions of the padding see zero-points only: their sums are the biases. */
static void run_collect_border(const sqz_model *model, int first_class, int lanes, int64_t *totals, double *map) {
    const sqz_conv *head = model->head;
    int side = model->head_size + 2, floor = model->head_relu ? 0 : INT32_MIN;
    int positions = side * side - model->head_size * model->head_size;
    for (int o = 0; o < sqz_min(lanes, head->out_channels - first_class); o++) {
        int32_t sum = sqz_max(head->plain_bias[first_class + o], floor);
        totals[o] += (int64_t)positions * sum;
        for (int i = 0; map && i < side * side; i++) {
            int y = i / side, x = i % side;
            if (y == 0 || x == 0 || y == side - 1 || x == side - 1) {
                map[(size_t)i * (size_t)head->out_channels + (size_t)(first_class + o)] =
                    (double)sum * (double)head->multiplier[first_class + o];
            }
        }
    }
}

static void run_head(const run_worker *worker, const uint8_t *x, double *logits, double *map) {
    const sqz_model *model = worker->model;
    const sqz_conv *head = model->head;
    int pixels = model->head_size * model->head_size, side = model->head_size + 2 * model->head_padding;
    int last = run_last(worker, head->panels), count;
    int32_t *raw = (int32_t *)(void *)worker->scratch;
    for (int panel = run_first(worker, head->panels); panel < last; panel += count) {
        int64_t totals[SQZ_HEAD_PANELS * SQZ_LANES] = {0};
        sqz_conv part = *head;
        int first_class = panel * SQZ_LANES;
        count = part.panels = sqz_min(SQZ_HEAD_PANELS, last - panel);
        part.last_outputs = panel + count == head->panels ? head->last_outputs : SQZ_LANES;
        part.weights += (size_t)panel * head->panel_bytes;
        part.kinds += panel;
        part.bias += first_class;
        part.multiplier += first_class;
        for (int first = 0; first < pixels; first += SQZ_HEAD_PIXELS) {
            sqz_conv_job job = SQZ_ZEROS;
            job.x_pixel = sqz_pixel_bytes(head->in_channels);
            job.x = x + (size_t)first * job.x_pixel;
            job.rows = 1;
            job.pixels = sqz_min(SQZ_HEAD_PIXELS, pixels - first);
            job.raw = raw;
            run_conv(worker, &part, &job);
            run_collect(model, raw, first, job.pixels, first_class, part.panels * SQZ_LANES, totals, map);
        }
        if (model->head_padding) run_collect_border(model, first_class, part.panels * SQZ_LANES, totals, map);
        for (int o = 0; logits && o < sqz_min(part.panels * SQZ_LANES, head->out_channels - first_class); o++) {
            logits[first_class + o] = (double)totals[o] * (double)part.multiplier[o] / (double)(side * side);
        }
    }
}

/* Sums over positions of what the head reads, minus its zero-point: at most 255 * 2^20. */
static void run_sum(const run_worker *worker, const uint8_t *x, int32_t *features) {
    const sqz_model *model = worker->model;
    const size_t pixel = sqz_pixel_bytes(model->head->in_channels);
    const int positions = model->head_size * model->head_size, last = run_last(worker, model->head->in_channels);
    for (int channel = run_first(worker, model->head->in_channels); channel < last; channel++) {
        features[channel] = -positions * model->head->in_zero;
    }
    for (int i = 0; i < positions; i++, x += pixel) {
        for (int channel = run_first(worker, model->head->in_channels); channel < last; channel++) {
            features[channel] += x[channel];
        }
    }
}

/* --- a whole network ---------------------------------------------------------------------------------------------- */

/* The stages of an image: the stem, of each Fire module squeeze and expand, the head. A tensor between layers lies at
 * the bottom of the trunk or ends at its top, in turns; what is squeezed lies beside what a Fire module reads. */
static void run_stage(const run_worker *worker, int stage, const uint8_t *pixels, double *logits, double *map,
                      int32_t *features) {
    const sqz_model *model = worker->model;
    const int index = (stage - 1) / 2, reads_bottom = index % 2 == 0;
    uint8_t *bottom = worker->trunk, *top = bottom + model->trunk_bytes, *x = bottom, *squeezed, *y;
    const sqz_fire *fire = &model->fires[index];
    if (stage == 0) {
        run_stem(worker, pixels, bottom);
        return;
    }
    if (!reads_bottom) {
        x = top - sqz_tensor_bytes(fire[-1].out_size, fire[-1].out_channels, 0);
    }
    if (index == model->n_fires) {
        if (logits || map) run_head(worker, x, logits, map);
        if (features) run_sum(worker, x, features);
        return;
    }
    squeezed = reads_bottom ? x + sqz_tensor_bytes(fire->size, fire->in_channels, 0)
                            : x - sqz_tensor_bytes(fire->size, fire->squeeze->out_channels, 1);
    y = reads_bottom ? top - sqz_tensor_bytes(fire->out_size, fire->out_channels, 0) : bottom;
    if (stage % 2) {
        run_squeeze(worker, fire, x, squeezed);
    } else {
        run_expands(worker, fire, x, squeezed, y);
    }
}

/* How many rows, or panels of classes, a stage makes. */
static int run_items(const sqz_model *model, int stage) {
    const sqz_fire *fire = &model->fires[(stage - 1) / 2];
    if (stage == 0) return model->stem_out_size;
    if (stage == 2 * model->n_fires + 1) return model->head->panels;
    return stage % 2 ? fire->size : fire->out_size;
}

/* A part of a stage of the first image, or all stages of image `part`. */
static void run_part(void *argument, int thread, int stage, int part) {
    const uint64_t floats = sqz_usual_floats();
    const run_context *context = (const run_context *)argument;
    const sqz_model *model = context->model;
    const size_t image = context->parts ? 0 : (size_t)part, side = (size_t)model->input_size;
    const size_t map_side = (size_t)(model->head_size + 2 * model->head_padding);
    const size_t classes = (size_t)model->head->out_channels;
    const uint8_t *pixels = context->pixels + image * side * side * 3;
    double *logits = context->logits ? context->logits + image * classes : NULL;
    double *map = context->map ? context->map + image * map_side * map_side * classes : NULL;
    int32_t *features = context->features ? context->features + image * (size_t)model->head->in_channels : NULL;
    run_worker worker = {model, context->arena, NULL, part, 1};
    worker.scratch = context->arena + context->threads * model->trunk_bytes + (size_t)thread * model->scratch_bytes;
    if (context->parts) {
        worker.parts = context->parts[stage];
        run_stage(&worker, stage, pixels, logits, map, features);
    } else {
        worker.trunk += (size_t)thread * model->trunk_bytes;
        worker.part = 0;
        for (int i = 0; i < 2 * model->n_fires + 2; i++) run_stage(&worker, i, pixels, logits, map, features);
    }
    sqz_restore_floats(floats);
}

/* For how many threads some images are work enough. */
static int run_sharers(const sqz_model *model, size_t images, int threads) {
    const uint64_t worth = model->n_macs * (images < 1024 ? images : 1024) / SQZ_MACS_PER_THREAD;
    return worth < (uint64_t)threads ? sqz_max((int)worth, 1) : threads;
}

sqz_status sqz_run(const sqz_model *model, sqz_pool *pool, void *arena, size_t arena_bytes, const uint8_t *pixels,
                   size_t count, double *logits, double *map) {
    return sqz_run_features(model, pool, arena, arena_bytes, pixels, count, logits, map, NULL);
}

sqz_status sqz_run_features(const sqz_model *model, sqz_pool *pool, void *arena, size_t arena_bytes,
                            const uint8_t *pixels, size_t count, double *logits, double *map, int32_t *features) {
    const int threads = pool ? sqz_pool_threads(pool) : 1;
    size_t pad = (SQZ_ALIGN - (uintptr_t)arena % SQZ_ALIGN) % SQZ_ALIGN, classes, image_bytes, map_values, step;
    run_context context = {model, pixels, logits, map, features, (uint8_t *)arena + pad, (size_t)threads, NULL};
    int parts[SQZ_MAX_STAGES], stages, sharers;
    if (!model || !arena || (!pixels && count) || model->n_set != model->n_convs) return SQZ_BAD_ARGUMENT;
    if (arena_bytes < (model->trunk_bytes + model->scratch_bytes) * (size_t)threads + pad) return SQZ_NO_MEMORY;
    classes = (size_t)model->head->out_channels;
    image_bytes = (size_t)model->input_size * (size_t)model->input_size * 3;
    map_values = (size_t)(model->head_size + 2 * model->head_padding);
    map_values *= map_values * classes;
    stages = 2 * model->n_fires + 2;
    sharers = run_sharers(model, 1, threads);
    for (int i = 0; i < stages; i++) parts[i] = sqz_min(run_items(model, i), sharers * RUN_PARTS_PER_THREAD);
    for (; count; count -= step) {
        /* Each thread takes whole images as long as there is one for each; the rest are shared, if that pays. */
        const int is_shared = sharers > 1 && count < (size_t)threads;
        int images;
        step = is_shared ? 1 : sharers > 1 ? count / (size_t)threads * (size_t)threads : count;
        if (step > SQZ_MAX_PARTS) step = SQZ_MAX_PARTS / (size_t)threads * (size_t)threads;
        images = (int)step;
        context.parts = is_shared ? parts : NULL;
        if (is_shared) {
            sqz_pool_run(pool, sharers, stages, parts, run_part, &context);
        } else if (run_sharers(model, step, threads) > 1) {
            sqz_pool_run(pool, run_sharers(model, step, threads), 1, &images, run_part, &context);
        } else {
            for (int i = 0; i < images; i++) run_part(&context, 0, 0, i);
        }
        context.pixels += step * image_bytes;
        if (logits) context.logits += step * classes;
        if (map) context.map += step * map_values;
        if (features) context.features += step * (size_t)model->head->in_channels;
    }
    return SQZ_OK;
}
