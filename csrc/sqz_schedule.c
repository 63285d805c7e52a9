/* sqz_schedule.c - how many rows of each layer exist at a time, and where.
 *
 * The output of a Fire module is read once, by the next one's squeeze layer, so it never has to be in memory as a whole:
 * some of its rows are computed in scratch memory, pooled, and squeezed into the next map. A tensor is kept beside its map
 * only if a bypass or the head reads it again. Maps, with the tensors kept beside them, are placed alternately at the
 * bottom and at the top of the trunk.
 *
 * At the beginning of a network even the maps are large. Streamed stages run together, row by row, and keep at most three
 * rows of a map, two or three rows of a tensor that a bypass reads, and two rows of a pooled tensor: the complete row and
 * the one in progress. */
#include "sqz_internal.h"

enum {
    SCHEDULE_WINDOW = 3,          /* rows of a map that a 3x3 convolution reads */
    SCHEDULE_BAND_BYTES = 1 << 14 /* computed at a time, for speed: they stay in the cache until they are squeezed */
};

static size_t schedule_take(size_t *next, size_t bytes) {
    const size_t at = *next;
    *next += sqz_round_up(bytes, SQZ_ALIGN);
    return at;
}

static size_t schedule_map_bytes(const sqz_stage *stage) {
    return sqz_row_bytes(stage->out_size + 2, stage->map_channels) * (size_t)stage->map_rows;
}

static size_t schedule_kept_bytes(const sqz_stage *stage) {
    return sqz_row_bytes(stage->out_size, stage->channels) * (size_t)stage->kept_rows;
}

/* Decides how many rows a stage computes at a time and keeps. */
static void schedule_rows(const sqz_model *model, int index, int band_rows) {
    sqz_stage *stage = &model->stages[index];
    const int is_last = index == model->n_fires, is_window = index < model->streamed;
    const int is_row_by_row = model->streamed && index <= model->streamed;
    const size_t row = sqz_row_bytes(stage->size, stage->channels);
    stage->step = is_row_by_row ? 1 : band_rows ? band_rows : (int)(SCHEDULE_BAND_BYTES / row);
    stage->step = sqz_max(1, sqz_min(stage->step, stage->rows));
    stage->map_rows = is_last ? 0 : is_window ? SCHEDULE_WINDOW : stage->out_size + 2;
    stage->kept_rows = is_row_by_row && stage->has_pool ? 2 : 0;
    if (is_window && stage->is_added) stage->kept_rows = 2 + stage->has_pool;
    if (!is_window && (is_last ? model->keeps_head_input : stage->is_added)) stage->kept_rows = stage->out_size;
    stage->kept_rows = sqz_min(stage->kept_rows, stage->out_size);
    stage->band_rows = stage->has_pool && !stage->kept_rows ? sqz_min(stage->step / 2 + 2, stage->out_size) : 0;
}

/* Assigns a stage's scratch memory, and returns its size. */
static size_t schedule_scratch(const sqz_model *model, int index) {
    sqz_stage *stage = &model->stages[index];
    const size_t made = stage->has_pool || !stage->kept_rows ? sqz_row_bytes(stage->size, stage->channels) : 0;
    size_t bytes = 0, spare = stage->window_bytes;
    if (index) spare *= (size_t)stage->step; /* rows of a bypass; conv1 unfolds its windows row by row */
    if (index == model->n_fires && spare < model->sums_bytes) spare = model->sums_bytes;
    schedule_take(&bytes, made * (size_t)stage->step);
    stage->band_at = schedule_take(&bytes, sqz_row_bytes(stage->out_size, stage->channels) * (size_t)stage->band_rows);
    stage->spare_at = schedule_take(&bytes, spare);
    return bytes;
}

/* Assigns trunk memory, from `at` on, for the rows that a stage passes to the next one; returns where it ends. */
static size_t schedule_lasting(sqz_stage *stage, size_t at) {
    stage->map_at = schedule_take(&at, schedule_map_bytes(stage));
    stage->kept_at = schedule_take(&at, schedule_kept_bytes(stage));
    return at;
}

/* Assigns all memory, for a given number of streamed stages. */
static void schedule_lay_out(sqz_model *model, int band_rows) {
    const int first = model->streamed;
    sqz_stage *stages = model->stages;
    size_t bytes;
    model->trunk_bytes = model->scratch_bytes = 0;
    for (int i = 0; i <= model->n_fires; i++) {
        schedule_rows(model, i, band_rows);
        bytes = schedule_scratch(model, i);
        if (bytes > model->scratch_bytes) model->scratch_bytes = bytes;
    }
    /* The streamed stages' own memory follows the rows that the last of them passes on. */
    bytes = schedule_lasting(&stages[first], 0);
    model->input_at = schedule_take(&bytes, (size_t)(model->input_size * model->stem_kernel) * 3 + SQZ_SLACK);
    model->progress_at = schedule_take(&bytes, sizeof(sqz_progress) * (size_t)(first + 1));
    for (int i = 0; i < first; i++) bytes = schedule_lasting(&stages[i], bytes);
    for (int i = first; i <= model->n_fires; i++) {
        if (bytes > model->trunk_bytes) model->trunk_bytes = bytes;
        bytes = schedule_lasting(&stages[i], 0);
        if (i < model->n_fires) bytes += schedule_lasting(&stages[i + 1], 0);
    }
    for (int i = first + 1; i <= model->n_fires; i += 2) {
        schedule_lasting(&stages[i], model->trunk_bytes - schedule_lasting(&stages[i], 0));
    }
    model->scratch_bytes += SQZ_SLACK + sqz_round_up(model->wide_bytes, SQZ_ALIGN);
}

void sqz_schedule(sqz_model *model, int band_rows, int streamed) {
    const sqz_stage *last = &model->stages[model->n_fires];
    const int pixels = last->out_size * last->out_size, most = sqz_head_pixels(model->kernels);
    size_t least = SIZE_MAX;
    int best = 0;
    model->keeps_head_input = band_rows == 0;
    model->head_pixels = sqz_min(most, model->keeps_head_input ? pixels : band_rows * last->out_size);
    model->head_panels = model->keeps_head_input ? SQZ_HEAD_PANELS : 2;
    model->sums_bytes = sizeof(int32_t) * (size_t)(model->head_pixels * model->head_panels * SQZ_LANES);
    for (int i = 0; streamed < 0 && i <= model->n_fires; i++) {
        model->streamed = i;
        schedule_lay_out(model, band_rows);
        if (model->trunk_bytes + model->scratch_bytes < least) {
            least = model->trunk_bytes + model->scratch_bytes;
            best = i;
        }
    }
    model->streamed = streamed < 0 ? best : sqz_min(streamed, model->n_fires);
    schedule_lay_out(model, band_rows);
}
