
enum { @NAME@_IS_OPEN = 0x53515a31 };

/* What lies at the start of the arena. */
typedef struct {
    uint32_t state;
    sqz_model *model;
    void *shared; /* the decoder's memory, then the activations */
    size_t shared_bytes;
} sqz_state;

static const sqz_options sqz_least = {"small", 1, 1, -1}; /* memory */

static uint8_t *sqz_align(void *at) {
    return (uint8_t *)at + (SQZ_ALIGN - (uintptr_t)at % SQZ_ALIGN) % SQZ_ALIGN;
}

int @name@_open(void *arena, size_t bytes) {
    sqz_header header;
    sqz_sizes sizes;
    sqz_state *state;
    uint8_t *memory;
    sqz_status status = sqz_read_header(sqz_file, sizeof sqz_file, NULL, &header);
    if (!arena) return SQZ_BAD_ARGUMENT;
    if (!status) status = sqz_measure(&header.spec, &sqz_least, &sizes);
    if (status) return (int)status;
    if (bytes < @NAME@_ARENA_BYTES) return SQZ_NO_MEMORY;
    state = (sqz_state *)(void *)sqz_align(arena);
    memory = (uint8_t *)state + SQZ_ALIGN;
    memset(state, 0, sizeof *state);
    state->shared = memory + sizes.model_bytes;
    state->shared_bytes = sizes.load_bytes > sizes.arena_bytes ? sizes.load_bytes : sizes.arena_bytes;
    status = sqz_create(&header.spec, &sqz_least, memory, sizes.model_bytes, &state->model);
    if (!status) status = sqz_load(state->model, &header, sqz_file, state->shared, state->shared_bytes);
    if (!status) state->state = @NAME@_IS_OPEN;
    return (int)status;
}

static int sqz_run_opened(void *arena, const uint8_t *pixels, double *logits, double *map, int32_t *features) {
    sqz_state *state = arena ? (sqz_state *)(void *)sqz_align(arena) : NULL;
    if (!state || state->state != @NAME@_IS_OPEN) return SQZ_BAD_ARGUMENT;
    return (int)sqz_run_features(state->model, NULL, state->shared, state->shared_bytes, pixels, 1, logits, map, features);
}

int @name@_run(void *arena, const uint8_t *pixels, double *logits, double *map) {
    return sqz_run_opened(arena, pixels, logits, map, NULL);
}

int @name@_features(void *arena, const uint8_t *pixels, double *logits, int32_t *features) {
    return sqz_run_opened(arena, pixels, logits, NULL, features);
}

int @name@_is_unknown(const int32_t *features) {
    return sqz_rule.count && sqz_is_unknown(&sqz_rule, features);
}

const char *@name@_label(int index) {
    return index >= 0 && index < @NAME@_CLASSES ? sqz_labels[index] : NULL;
}
