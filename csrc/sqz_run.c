/* sqz_run.c - runs a model on one image, stage by stage; a stage can be split by rows, the head by classes.
 *
 * A stage computes some rows of a tensor at a time, pools them and passes them on: squeezed into the map that the next
 * Fire module reads, or to the head. `sqz_schedule.c` decides how many rows at a time, and where they are. Streamed stages
 * run together on one thread, row by row. */
#include "sqz_internal.h"

/* First item of the worker's part of `count` items, or the first that is no longer in it. */
static int run_first(const sqz_worker *worker, int count) {
    return (int)((int64_t)count * worker->part / worker->parts);
}
static int run_last(const sqz_worker *worker, int count) {
    return (int)((int64_t)count * (worker->part + 1) / worker->parts);
}

static void run_job(const sqz_worker *worker, const sqz_conv *conv, sqz_conv_job *job) {
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

/* A convolution restricted to some of its panels. */
static sqz_conv run_panels(const sqz_worker *worker, const sqz_conv *conv, int panel, int count) {
    sqz_conv part = *conv;
    part.panels = count;
    part.last_outputs = panel + count == conv->panels ? conv->last_outputs : SQZ_LANES;
#if defined(SQZ_CODED)
    part.weights = sqz_coded_panel(worker, conv, panel); /* one at a time */
#else
    (void)worker;
    part.weights += (size_t)panel * conv->panel_bytes;
#endif
    part.kinds += panel;
    part.bias += panel * SQZ_LANES;
    part.multiplier += panel * SQZ_LANES;
    return part;
}

static void run_conv(const sqz_worker *worker, const sqz_conv *conv, sqz_conv_job *job) {
#if defined(SQZ_CODED)
    sqz_conv part = *conv;
    uint8_t *const y = job->y;
    part.weights = sqz_coded_weights(worker, conv);
    if (part.weights) {
        run_job(worker, &part, job);
        return;
    }
    for (int panel = 0; panel < conv->panels; panel++) {
        part = run_panels(worker, conv, panel, 1);
        job->y = y + panel * SQZ_LANES;
        run_job(worker, &part, job);
    }
    job->y = y;
#else
    run_job(worker, conv, job);
#endif
}

/* Moves all rows except the first up by one. */
static void run_slide(uint8_t *rows, size_t row_bytes, int count) {
    for (int i = 1; i < count; i++) memcpy(rows + (size_t)(i - 1) * row_bytes, rows + (size_t)i * row_bytes, row_bytes);
}

/* --- conv1 -------------------------------------------------------------------------------------------------------- */

/* Makes rows [first, end) of the input available. */
static void run_read_rows(const sqz_worker *worker, int first, int end) {
    sqz_input *input = worker->input;
    const size_t line = (size_t)worker->model->input_size * 3;
    uint8_t *window = worker->trunk + worker->model->input_at;
    if (end <= input->end) return;
    for (int row = first; row < end; row++) {
        uint8_t *to = window + (size_t)(row - first) * line;
        if (row < input->end) {
            if (first > input->first) memcpy(to, window + (size_t)(row - input->first) * line, line);
        } else if (!input->status && input->source(input->context, row, to)) {
            input->status = SQZ_TRUNCATED;
        }
    }
    input->first = first;
    input->end = end;
    input->readable = (size_t)(end - first) * line + SQZ_SLACK;
}

/* Copies the windows of one output row, from `column` on, that lie inside the image; returns the first that does not.
 * Each line of a window is copied as COPIED bytes, a few more than it has. The surplus is overwritten by the next line or
 * window, or multiplied by weights that are 0. */
SQZ_INLINE int run_unfold_inside(const sqz_model *model, const sqz_input *input, int top, int column,
                                 uint8_t *columns, const int KERNEL, const size_t COPIED) {
    const int stride = model->stem->stride, padding = model->stem->padding, size = model->input_size;
    const size_t window = (size_t)model->stem->groups * 4, line = (size_t)size * 3;
    for (; column < model->stages[0].size; column++) {
        int left = column * stride - padding;
        size_t at = (size_t)(top - input->first) * line + (size_t)left * 3;
        uint8_t *to = columns + (size_t)column * window;
        if (left + KERNEL > size || at + (size_t)(KERNEL - 1) * line + COPIED > input->readable) break;
        for (int ky = 0; ky < KERNEL; ky++, at += line, to += 3 * KERNEL) memcpy(to, input->pixels + at, COPIED);
    }
    return column;
}

/* Places the windows of one output row one after another: kernel * kernel * 3 bytes each, padded to whole groups. */
static void run_unfold_row(const sqz_model *model, const sqz_input *input, int row, uint8_t *columns) {
    const sqz_conv *conv = model->stem;
    const int size = model->input_size, out_size = model->stages[0].size, kernel = conv->kernel;
    const int top = row * conv->stride - conv->padding;
    const size_t window = (size_t)conv->groups * 4;
    for (int column = 0; column < out_size; column++) {
        const int left = column * conv->stride - conv->padding;
        uint8_t *to = columns + (size_t)column * window;
        if (left >= 0 && top >= 0 && top + kernel <= size) {
            if (kernel == 3) column = run_unfold_inside(model, input, top, column, columns, 3, 16);
            if (kernel == 7) column = run_unfold_inside(model, input, top, column, columns, 7, 32);
            if (column == out_size) return;
            to = columns + (size_t)column * window;
        }
        for (int ky = 0; ky < kernel; ky++) {
            for (int kx = 0; kx < kernel; kx++, to += 3) {
                int y = top + ky, x = column * conv->stride - conv->padding + kx;
                if (y >= 0 && y < size && x >= 0 && x < size) {
                    memcpy(to, input->pixels + ((size_t)(y - input->first) * (size_t)size + (size_t)x) * 3, 3);
                } else {
                    memset(to, conv->in_zero, 3);
                }
            }
        }
        memset(to, 0, (size_t)(columns + (size_t)(column + 1) * window - to));
    }
}

static void run_stem_rows(const sqz_worker *worker, int first, int count, uint8_t *y) {
    const sqz_model *model = worker->model;
    const sqz_stage *stage = &model->stages[0];
    uint8_t *columns = worker->scratch + stage->spare_at;
    for (int row = first; row < first + count; row++, y += sqz_row_bytes(stage->size, stage->channels)) {
        const int top = row * model->stem->stride - model->stem->padding;
        sqz_conv_job job = SQZ_ZEROS;
        run_read_rows(worker, sqz_max(top, 0), sqz_min(top + model->stem->kernel, model->input_size));
        run_unfold_row(model, worker->input, row, columns);
        job.x = columns;
        job.x_pixel = (size_t)model->stem->groups * 4;
        job.rows = 1;
        job.pixels = stage->size;
        job.y = y;
        job.y_pixel = sqz_pixel_bytes(stage->channels);
        run_conv(worker, model->stem, &job);
    }
}

/* --- Fire modules ------------------------------------------------------------------------------------------------- */

/* Squeezes rows [first, first + count) of a stage's tensor into its map, and fills the border beside them. */
static void run_squeeze(const sqz_worker *worker, int index, int first, int count, const uint8_t *x) {
    const sqz_stage *stage = &worker->model->stages[index];
    const sqz_conv *squeeze = worker->model->fires[index].squeeze;
    const int size = stage->out_size, zero = squeeze->out_zero, is_whole = stage->map_rows == size + 2;
    const size_t pixel = sqz_pixel_bytes(stage->map_channels), row = (size_t)(size + 2) * pixel;
    const int at = sqz_min(first + 1, stage->map_rows - count);
    uint8_t *map = worker->trunk + stage->map_at, *to = map + (size_t)at * row;
    sqz_conv_job job = SQZ_ZEROS;
    if (first == 0) memset(map, zero, row);
    if (at <= first) run_slide(map, row, stage->map_rows);
    if (is_whole && first + count == size) memset(map + (size_t)(size + 1) * row, zero, row);
    for (int i = 0; i < count; i++) {
        memset(to + (size_t)i * row, zero, pixel);
        memset(to + (size_t)(i + 1) * row - pixel, zero, pixel);
    }
    job.x = x;
    job.x_pixel = sqz_pixel_bytes(stage->channels);
    job.x_row = (size_t)size * job.x_pixel;
    job.rows = count;
    job.pixels = size;
    job.y = to + pixel;
    job.y_pixel = pixel;
    job.y_row = row;
    run_conv(worker, squeeze, &job);
}

/* Computes rows [first, first + count) of a Fire module, before its pool. */
static void run_fire_rows(const sqz_worker *worker, int index, int first, int count, uint8_t *y) {
    const sqz_stage *before = &worker->model->stages[index - 1], *stage = &worker->model->stages[index];
    const sqz_fire *fire = &worker->model->fires[index - 1];
    const size_t in_pixel = sqz_pixel_bytes(before->map_channels), in_row = (size_t)(stage->size + 2) * in_pixel;
    const uint8_t *map = worker->trunk + before->map_at, *other;
    sqz_conv_job job = SQZ_ZEROS;
    if (before->map_rows == stage->size + 2) map += (size_t)first * in_row; /* otherwise the map holds only these rows */
    job.rows = count;
    job.pixels = stage->size;
    job.x_pixel = in_pixel;
    job.x_run = job.x_row = in_row;
    job.y_pixel = sqz_pixel_bytes(stage->channels);
    job.y_row = (size_t)stage->size * job.y_pixel;
    job.x = map + in_row + in_pixel;
    job.y = y;
    run_conv(worker, fire->expand1x1, &job);
    job.x = map;
    job.y = y + fire->expand1x1->out_channels;
    run_conv(worker, fire->expand3x3, &job);
    if (!fire->has_add) return;
    other = worker->trunk + before->kept_at;
    other += (size_t)(first % before->kept_rows) * sqz_row_bytes(stage->size, before->channels);
    if (fire->bypass) {
        job.x = other;
        job.x_pixel = sqz_pixel_bytes(before->channels);
        job.x_run = 0;
        job.x_row = (size_t)stage->size * job.x_pixel;
        job.y = worker->scratch + stage->spare_at;
        run_conv(worker, fire->bypass, &job);
        other = job.y;
    }
    worker->model->kernels->add_row(&fire->add, other, (size_t)count * job.y_row, y);
}

/* --- head --------------------------------------------------------------------------------------------------------- */

static int run_head_size(const sqz_model *model) { return model->stages[model->n_fires].out_size; }

/* Adds the sums of some pixels to the logits, after the head's ReLU, and stores them in the map. In double these are whole
 * numbers below 2^51. */
static void run_collect(const sqz_model *model, const int32_t *raw, int first_pixel, int pixels, int first_class,
                        int lanes, double *logits, double *map) {
    const sqz_conv *head = model->head;
    int is_narrow = head->largest_sum * SQZ_HEAD_PIXELS <= INT32_MAX, floor = model->head_relu ? 0 : INT32_MIN;
    int classes = sqz_min(lanes, head->out_channels - first_class);
    for (int o = 0; logits && !is_narrow && o < classes; o++) {
        int64_t sum = 0;
        for (int p = 0; p < pixels; p++) sum += sqz_max(raw[p * lanes + o], floor);
        logits[first_class + o] += (double)sum;
    }
    if (logits && is_narrow) {
        int32_t sums[SQZ_HEAD_PANELS * SQZ_LANES] = {0};
        for (int p = 0; p < pixels; p++) {
            for (int o = 0; o < lanes; o++) sums[o] += sqz_max(raw[p * lanes + o], floor);
        }
        for (int o = 0; o < classes; o++) logits[first_class + o] += (double)sums[o];
    }
    if (!map) return;
    for (int p = 0; p < pixels; p++) {
        const int size = run_head_size(model), side = size + 2 * model->head_padding;
        const int y = (first_pixel + p) / size + model->head_padding, x = (first_pixel + p) % size + model->head_padding;
        double *at = map + ((size_t)y * (size_t)side + (size_t)x) * (size_t)head->out_channels + first_class;
        for (int o = 0; o < classes; o++) {
            at[o] = (double)sqz_max(raw[p * lanes + o], floor) * (double)head->multiplier[first_class + o];
        }
    }
}

/* At padding positions all inputs are zero-points, so their sums are the biases. */
static void run_collect_border(const sqz_model *model, int first_class, int last_class, double *logits, double *map) {
    const sqz_conv *head = model->head;
    const int size = run_head_size(model), side = size + 2, floor = model->head_relu ? 0 : INT32_MIN;
    for (int o = first_class; o < last_class; o++) {
        const int32_t sum = sqz_max(head->plain_bias[o], floor);
        if (logits) logits[o] += (double)(side * side - size * size) * (double)sum;
        for (int i = 0; map && i < side * side; i++) {
            int y = i / side, x = i % side;
            if (y == 0 || x == 0 || y == side - 1 || x == side - 1) {
                map[(size_t)i * (size_t)head->out_channels + (size_t)o] = (double)sum * (double)head->multiplier[o];
            }
        }
    }
}

/* These two are called before the first positions of the head's input, and after the last ones. */
static void run_begin_head(const sqz_worker *worker, int first_class, int last_class) {
    for (int o = first_class; worker->result.logits && o < last_class; o++) worker->result.logits[o] = 0;
}
static void run_end_head(const sqz_worker *worker, int first_class, int last_class) {
    const sqz_model *model = worker->model;
    const int side = run_head_size(model) + 2 * model->head_padding;
    double *logits = worker->result.logits;
    if (model->head_padding) run_collect_border(model, first_class, last_class, logits, worker->result.map);
    for (int o = first_class; logits && o < last_class; o++) {
        logits[o] = logits[o] * (double)model->head->multiplier[o] / (double)(side * side);
    }
}

/* Runs the head on positions [first, end) of its input, which begin at `x`, for some panels of classes. */
static void run_head(const sqz_worker *worker, const uint8_t *x, int first, int end, int panel, int last) {
    const sqz_model *model = worker->model;
    const sqz_conv *head = model->head;
    const size_t pixel = sqz_pixel_bytes(head->in_channels);
    int32_t *raw = (int32_t *)(void *)(worker->scratch + model->stages[model->n_fires].spare_at);
    for (int count; panel < last; panel += count) {
        const int first_class = panel * SQZ_LANES;
        sqz_conv part;
        count = sqz_min(model->head_panels, last - panel);
        part = run_panels(worker, head, panel, count);
        for (int at = first; at < end; at += model->head_pixels) {
            sqz_conv_job job = SQZ_ZEROS;
            job.x_pixel = pixel;
            job.x = x + (size_t)(at - first) * pixel;
            job.rows = 1;
            job.pixels = sqz_min(model->head_pixels, end - at);
            job.raw = raw;
            run_job(worker, &part, &job);
            run_collect(model, raw, at, job.pixels, first_class, part.panels * SQZ_LANES, worker->result.logits,
                        worker->result.map);
        }
    }
}

/* Adds channels [first, last) of some positions of the head's input to the features: at most 255 * 2^20. */
static void run_sum(const sqz_worker *worker, const uint8_t *x, int positions, int first, int last) {
    const size_t pixel = sqz_pixel_bytes(worker->model->head->in_channels);
    int32_t *features = worker->result.features;
    for (; positions > 0; positions--, x += pixel) {
        for (int channel = first; channel < last; channel++) features[channel] += x[channel] - worker->model->head->in_zero;
    }
}

/* Runs the head on all of its input, for the worker's part of the classes. */
static void run_whole_head(const sqz_worker *worker) {
    const sqz_model *model = worker->model;
    const int size = run_head_size(model), channels = model->head->in_channels;
    const int first = run_first(worker, model->head->panels), last = run_last(worker, model->head->panels);
    const int last_class = sqz_min(last * SQZ_LANES, model->head->out_channels);
    const uint8_t *x = worker->trunk + model->stages[model->n_fires].kept_at;
    if (worker->result.logits || worker->result.map) {
        run_begin_head(worker, first * SQZ_LANES, last_class);
        run_head(worker, x, 0, size * size, first, last);
        run_end_head(worker, first * SQZ_LANES, last_class);
    }
    if (worker->result.features) {
        for (int i = run_first(worker, channels); i < run_last(worker, channels); i++) worker->result.features[i] = 0;
        run_sum(worker, x, size * size, run_first(worker, channels), run_last(worker, channels));
    }
}

/* Runs the head on rows [first, first + count) of its input. */
static void run_head_rows(const sqz_worker *worker, int first, int count, const uint8_t *x) {
    const sqz_model *model = worker->model;
    const int size = run_head_size(model), classes = model->head->out_channels, channels = model->head->in_channels;
    if (first == 0) run_begin_head(worker, 0, classes);
    if (worker->result.logits || worker->result.map) {
        run_head(worker, x, first * size, (first + count) * size, 0, model->head->panels);
    }
    if (first + count == size) run_end_head(worker, 0, classes);
    if (worker->result.features) {
        for (int i = 0; first == 0 && i < channels; i++) worker->result.features[i] = 0;
        run_sum(worker, x, count * size, 0, channels);
    }
}

/* --- stages ------------------------------------------------------------------------------------------------------- */

static void run_make(const sqz_worker *worker, int index, int first, int count, uint8_t *y) {
    if (index == 0) {
        run_stem_rows(worker, first, count, y);
    } else {
        run_fire_rows(worker, index, first, count, y);
    }
}

static void run_pass_on(const sqz_worker *worker, int index, int first, int count, const uint8_t *x) {
    if (index < worker->model->n_fires) {
        run_squeeze(worker, index, first, count, x);
    } else if (!worker->model->keeps_head_input) {
        run_head_rows(worker, first, count, x);
    }
}

/* Computes rows [first, first + count) of a stage, before its pool, and passes on the rows of its tensor that are then
 * complete. This worker computes rows [top, bottom) of the tensor. */
static void run_stage_rows(const sqz_worker *worker, int index, int first, int count, int top, int bottom) {
    const sqz_stage *stage = &worker->model->stages[index];
    const size_t row = sqz_row_bytes(stage->size, stage->channels), pixel = sqz_pixel_bytes(stage->channels);
    const size_t out_row = (size_t)stage->out_size * pixel;
    const int held = stage->kept_rows ? stage->kept_rows : stage->band_rows;
    uint8_t *made = worker->scratch, *y = worker->trunk + stage->kept_at;
    int done = sqz_max(top, (first - 1) / 2), ready = done; /* complete rows: those passed on, and all */
    if (!stage->has_pool) {
        if (held) made = y + (size_t)(first % held) * row;
        run_make(worker, index, first, count, made);
        run_pass_on(worker, index, first, count, made);
        return;
    }
    if (!stage->kept_rows) y = worker->scratch + stage->band_at;
    run_make(worker, index, first, count, made);
    for (int i = first; i < first + count; i++, made += row) {
        const int out = i / 2;
        if (i % 2 == 0 && out > top) { /* the last row of one window is the first of the next */
            worker->model->kernels->pool_row(made, stage->size, stage->out_size, pixel, 0,
                                             y + (size_t)((out - 1) % held) * out_row);
            ready = out;
        }
        if (out < bottom) {
            worker->model->kernels->pool_row(made, stage->size, stage->out_size, pixel, i % 2 == 0,
                                             y + (size_t)(out % held) * out_row);
            if (i == stage->size - 1) ready = out + 1; /* its window extends beyond the edge */
        }
        if (ready > done && (ready % held == 0 || i == first + count - 1)) {
            run_pass_on(worker, index, done, ready - done, y + (size_t)(done % held) * out_row);
            done = ready;
        }
    }
}

/* Runs the worker's part of a stage that is not streamed. */
static void run_part_of_stage(const sqz_worker *worker, int index) {
    const sqz_stage *stage = &worker->model->stages[index];
    const int top = run_first(worker, stage->out_size), bottom = run_last(worker, stage->out_size);
    const int end = stage->has_pool ? sqz_min(2 * bottom + 1, stage->rows) : bottom;
    if (top == bottom) return;
    for (int at = stage->has_pool ? 2 * top : top; at < end && !worker->input->status; at += stage->step) {
        run_stage_rows(worker, index, at, sqz_min(stage->step, end - at), top, bottom);
    }
}

/* Computes one row of a streamed stage, or at the end fills the border below its map. */
static void run_streamed_row(const sqz_worker *worker, int index, sqz_progress *progress) {
    const sqz_stage *stage = &worker->model->stages[index];
    const size_t map_row = sqz_row_bytes(stage->out_size + 2, stage->map_channels);
    uint8_t *map = worker->trunk + stage->map_at;
    if (progress->made == stage->rows) {
        run_slide(map, map_row, stage->map_rows);
        memset(map + (size_t)(stage->map_rows - 1) * map_row, worker->model->fires[index].squeeze->out_zero, map_row);
        progress->mapped++;
        return;
    }
    run_stage_rows(worker, index, progress->made++, 1, 0, stage->out_size);
    progress->mapped = 1 + (stage->has_pool ? sqz_max(progress->made - 1, 0) / 2 : progress->made);
    if (progress->made == stage->rows) progress->mapped = stage->out_size + 1 + (stage->map_rows == stage->out_size + 2);
}

/* Runs all streamed stages: whenever a stage needs a row that is missing, the stage before it computes the next one. */
static void run_streamed(const sqz_worker *worker) {
    const sqz_model *model = worker->model;
    sqz_progress *progress = (sqz_progress *)(void *)(worker->trunk + model->progress_at);
    const int last = model->streamed;
    for (int i = 0; i <= last; i++) progress[i].made = progress[i].mapped = 0;
    for (int i = last; progress[last].made < model->stages[last].rows && !worker->input->status;) {
        if (i > 0 && progress[i - 1].mapped < progress[i].made + 3) {
            i--;
        } else {
            run_streamed_row(worker, i, &progress[i]);
            i = sqz_min(i + 1, last);
        }
    }
}

/* --- a whole network ---------------------------------------------------------------------------------------------- */

/* The steps of an image: the streamed stages or the first one, each of the others, and the head if its input is kept. */
int sqz_steps(const sqz_model *model) { return model->n_fires - model->streamed + 1 + model->keeps_head_input; }

void sqz_run_step(const sqz_worker *worker, int step) {
    const int index = worker->model->streamed + step;
    if (index > worker->model->n_fires) {
        run_whole_head(worker);
    } else if (step == 0 && worker->model->streamed) {
        run_streamed(worker);
    } else {
        run_part_of_stage(worker, index);
    }
}

/* The number of rows, or of panels of classes, that a step can be split into. */
int sqz_step_items(const sqz_model *model, int step) {
    const int index = model->streamed + step;
    if (index > model->n_fires) return model->head->panels;
    if (step == 0 && model->streamed) return 1;
    return index == model->n_fires && !model->keeps_head_input ? 1 : model->stages[index].out_size;
}

sqz_status sqz_run_image(const sqz_model *model, void *arena, size_t arena_bytes, sqz_input *input,
                         const sqz_result *result) {
    const size_t pad = sqz_padding(arena);
    uint8_t *trunk = (uint8_t *)arena + pad;
    sqz_worker worker = {model, trunk, NULL, 0, 1, input, *result};
    uint64_t floats;
    if (arena_bytes < model->trunk_bytes + model->scratch_bytes + pad) return SQZ_NO_MEMORY;
    worker.scratch = trunk + model->trunk_bytes;
    if (input->source) input->pixels = trunk + model->input_at;
    floats = sqz_usual_floats();
#if defined(SQZ_CODED)
    sqz_coded_begin(&worker);
#endif
    for (int i = 0; i < sqz_steps(model) && !input->status; i++) {
#if defined(SQZ_CODED)
        sqz_coded_hold(&worker, i);
#endif
        sqz_run_step(&worker, i);
    }
    sqz_restore_floats(floats);
    return input->status;
}
