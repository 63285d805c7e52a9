
enum { @NAME@_IS_OPEN = 0x53515a31 };

/* What lies at the start of the arena. */
typedef struct {
    uint32_t state;
    @name@_sqz_model *model;
    void *shared; /* the decoder's memory, then the activations */
    size_t shared_bytes;
} @name@_sqz_state;

static uint8_t *@name@_sqz_align(void *at) {
    return (uint8_t *)at + (SQZ_ALIGN - (uintptr_t)at % SQZ_ALIGN) % SQZ_ALIGN;
}

int @name@_open(void *arena, size_t bytes) {
    @name@_sqz_header header;
    @name@_sqz_sizes sizes;
    @name@_sqz_state *state;
    uint8_t *memory;
    @name@_sqz_status status = @name@_sqz_read_header(@name@_sqz_file, sizeof @name@_sqz_file, NULL, &header);
    if (!arena) return SQZ_BAD_ARGUMENT;
    if (!status) status = @name@_sqz_measure(&header.spec, "scalar", 1, &sizes);
    if (status) return (int)status;
    if (bytes < @NAME@_ARENA_BYTES) return SQZ_NO_MEMORY;
    state = (@name@_sqz_state *)(void *)@name@_sqz_align(arena);
    memory = (uint8_t *)state + SQZ_ALIGN;
    memset(state, 0, sizeof *state);
    state->shared = memory + sizes.model_bytes;
    state->shared_bytes = sizes.load_bytes > sizes.arena_bytes ? sizes.load_bytes : sizes.arena_bytes;
    status = @name@_sqz_create(&header.spec, "scalar", memory, sizes.model_bytes, &state->model);
    if (!status) status = @name@_sqz_load(state->model, &header, @name@_sqz_file, state->shared, state->shared_bytes);
    if (!status) state->state = @NAME@_IS_OPEN;
    return (int)status;
}

int @name@_run(void *arena, const uint8_t *pixels, double *logits, double *map) {
    @name@_sqz_state *state = arena ? (@name@_sqz_state *)(void *)@name@_sqz_align(arena) : NULL;
    if (!state || state->state != @NAME@_IS_OPEN) return SQZ_BAD_ARGUMENT;
    return (int)@name@_sqz_run(state->model, NULL, state->shared, state->shared_bytes, pixels, 1, logits, map);
}

const char *@name@_label(int index) {
    return index >= 0 && index < @NAME@_CLASSES ? @name@_sqz_labels[index] : NULL;
}
