/* sqz_batch.c - one or more images on one or more threads: each thread takes whole images, or parts of an image's steps. */
#include "sqz_internal.h"

#ifndef SQZ_MACS_PER_THREAD
#define SQZ_MACS_PER_THREAD (1 << 26) /* the least work worth a thread: 0.4 ms to a few ms */
#endif
enum { BATCH_PARTS_PER_THREAD = 2 }; /* of a step without a pool */

typedef struct {
    const sqz_model *model;
    const uint8_t *pixels; /* of the images of this run */
    sqz_result result;
    uint8_t *arena;
    size_t threads; /* number for which the arena has memory */
    const int *parts; /* of each step of an image; NULL where a part is an image */
} batch_context;

static size_t batch_image_bytes(const sqz_model *model) {
    return (size_t)model->input_size * (size_t)model->input_size * 3;
}

/* Where the results of an image belong. */
static sqz_result batch_result_of(const sqz_model *model, sqz_result first, size_t image) {
    const size_t side = (size_t)(model->stages[model->n_fires].out_size + 2 * model->head_padding);
    const size_t classes = (size_t)model->head->out_channels;
    if (first.logits) first.logits += image * classes;
    if (first.map) first.map += image * side * side * classes;
    if (first.features) first.features += image * (size_t)model->head->in_channels;
    return first;
}

/* A part of a step of the first image, or all steps of image `part`. */
static void batch_part(void *argument, int thread, int step, int part) {
    const uint64_t floats = sqz_usual_floats();
    const batch_context *context = (const batch_context *)argument;
    const sqz_model *model = context->model;
    const size_t image = context->parts ? 0 : (size_t)part, bytes = batch_image_bytes(model);
    sqz_input input = {context->pixels + image * bytes, 0, model->input_size, bytes, NULL, NULL, SQZ_OK};
    sqz_worker worker = {model, context->arena, NULL, 0, 1, &input, batch_result_of(model, context->result, image)};
    worker.scratch = context->arena + context->threads * model->trunk_bytes + (size_t)thread * model->scratch_bytes;
    if (context->parts) {
        worker.part = part;
        worker.parts = context->parts[step];
        sqz_run_step(&worker, step);
    } else {
        worker.trunk += (size_t)thread * model->trunk_bytes;
        for (int i = 0; i < sqz_steps(model); i++) sqz_run_step(&worker, i);
    }
    sqz_restore_floats(floats);
}

/* The number of parts that threads split a step into. Where two parts meet, both compute the row that the pool windows on
 * either side read, so a step with a pool is split into as few parts as there are threads. */
static int batch_parts(const sqz_model *model, int step, int sharers) {
    const int stage = model->streamed + step, is_pooled = stage <= model->n_fires && model->stages[stage].has_pool;
    return sqz_min(sqz_step_items(model, step), is_pooled ? sharers : sharers * BATCH_PARTS_PER_THREAD);
}

/* The number of threads that these images keep busy. */
static int batch_sharers(const sqz_model *model, size_t images, int threads) {
    const uint64_t worth = model->n_macs * (images < 1024 ? images : 1024) / SQZ_MACS_PER_THREAD;
    return worth < (uint64_t)threads ? sqz_max((int)worth, 1) : threads;
}

static sqz_status batch_check(const sqz_model *model, const void *arena, size_t bytes, int threads, size_t *pad) {
    if (!model || !arena || model->n_set != model->n_convs) return SQZ_BAD_ARGUMENT;
    *pad = sqz_padding(arena);
    return bytes < (model->trunk_bytes + model->scratch_bytes) * (size_t)threads + *pad ? SQZ_NO_MEMORY : SQZ_OK;
}

sqz_status sqz_run(const sqz_model *model, sqz_pool *pool, void *arena, size_t arena_bytes, const uint8_t *pixels,
                   size_t count, double *logits, double *map) {
    return sqz_run_features(model, pool, arena, arena_bytes, pixels, count, logits, map, NULL);
}

sqz_status sqz_run_features(const sqz_model *model, sqz_pool *pool, void *arena, size_t arena_bytes,
                            const uint8_t *pixels, size_t count, double *logits, double *map, int32_t *features) {
    const int threads = pool ? sqz_pool_threads(pool) : 1;
    size_t pad = 0, step;
    sqz_status status = batch_check(model, arena, arena_bytes, threads, &pad);
    batch_context context = {model, pixels, {logits, map, features}, (uint8_t *)arena + pad, (size_t)threads, NULL};
    int parts[SQZ_MAX_STAGES], sharers;
    if (status || (!pixels && count)) return status ? status : SQZ_BAD_ARGUMENT;
    sharers = batch_sharers(model, 1, threads);
    for (int i = 0; i < sqz_steps(model); i++) parts[i] = batch_parts(model, i, sharers);
    for (; count; count -= step) {
        /* Threads take whole images while there is one for each; the remaining images are shared if that is faster. */
        const int is_shared = sharers > 1 && count < (size_t)threads;
        int images;
        step = is_shared ? 1 : sharers > 1 ? count / (size_t)threads * (size_t)threads : count;
        if (step > SQZ_MAX_PARTS) step = SQZ_MAX_PARTS / (size_t)threads * (size_t)threads;
        images = (int)step;
        context.parts = is_shared ? parts : NULL;
        if (is_shared) {
            sqz_pool_run(pool, sharers, sqz_steps(model), parts, batch_part, &context);
        } else if (batch_sharers(model, step, threads) > 1) {
            sqz_pool_run(pool, batch_sharers(model, step, threads), 1, &images, batch_part, &context);
        } else {
            for (int i = 0; i < images; i++) batch_part(&context, 0, 0, i);
        }
        context.pixels += step * batch_image_bytes(model);
        context.result = batch_result_of(model, context.result, step);
    }
    return SQZ_OK;
}

sqz_status sqz_run_rows(const sqz_model *model, void *arena, size_t arena_bytes, sqz_row_source *source, void *context,
                        double *logits, double *map, int32_t *features) {
    size_t pad = 0;
    const sqz_status status = batch_check(model, arena, arena_bytes, 1, &pad);
    const sqz_result result = {logits, map, features};
    sqz_input input = {NULL, 0, 0, 0, source, context, SQZ_OK};
    if (status || !source) return status ? status : SQZ_BAD_ARGUMENT;
    return sqz_run_image(model, arena, arena_bytes, &input, &result);
}

typedef struct {
    sqz_loading loading;
    uint8_t *scratch;
} batch_loading;

static void batch_load_share(void *context, int thread, int stage, int share) {
    batch_loading *batch = (batch_loading *)context;
    (void)thread, (void)stage;
    sqz_load_share(&batch->loading, share, batch->scratch + (size_t)share * sqz_loader_bytes(batch->loading.model));
}

sqz_status sqz_load_shared(sqz_model *model, sqz_pool *pool, const sqz_header *header, const void *data, void *scratch,
                           size_t bytes) {
    batch_loading batch;
    sqz_status status;
    int threads;
    if (!model || !header || !data || !scratch) return SQZ_BAD_ARGUMENT;
    threads = (int)(bytes / sqz_loader_bytes(model) < SQZ_MAX_LOADERS ? bytes / sqz_loader_bytes(model) : SQZ_MAX_LOADERS);
    if (!threads) return SQZ_NO_MEMORY;
    status = sqz_begin_loading(&batch.loading, model, header, data, sqz_min(threads, pool ? sqz_pool_threads(pool) : 1));
    if (status) return status;
    batch.scratch = (uint8_t *)scratch;
    if (batch.loading.shares > 1) {
        sqz_pool_run(pool, batch.loading.shares, 1, &batch.loading.shares, batch_load_share, &batch);
    } else {
        sqz_load_share(&batch.loading, 0, scratch);
    }
    return sqz_end_loading(&batch.loading);
}
