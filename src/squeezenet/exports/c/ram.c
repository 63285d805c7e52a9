
static const sqz_options own_least = {"small", 1, 1, -1}; /* memory */

int @name@_open(void *arena, size_t bytes) {
    sqz_header header;
    sqz_sizes sizes;
    own_state *state;
    uint8_t *memory;
    sqz_status status = sqz_read_header(own_file, sizeof own_file, NULL, &header);
    if (!arena) return SQZ_BAD_ARGUMENT;
    if (!status) status = sqz_measure(&header.spec, &own_least, &sizes);
    if (status) return (int)status;
    if (bytes < @NAME@_ARENA_BYTES) return SQZ_NO_MEMORY;
    state = own_start(arena);
    memory = (uint8_t *)state + SQZ_ALIGN;
    memset(state, 0, sizeof *state);
    state->shared = memory + sizes.model_bytes;
    state->shared_bytes = sizes.load_bytes > sizes.arena_bytes ? sizes.load_bytes : sizes.arena_bytes;
    status = sqz_create(&header.spec, &own_least, memory, sizes.model_bytes, &state->model);
    if (!status) status = sqz_load(state->model, &header, own_file, state->shared, state->shared_bytes);
    if (!status) state->state = @NAME@_IS_OPEN;
    return (int)status;
}

static int own_go(void *arena, sqz_input *input, double *logits, double *map, int32_t *features) {
    const sqz_result result = {logits, map, features};
    own_state *state = arena ? own_start(arena) : NULL;
    if (!state || state->state != @NAME@_IS_OPEN) return SQZ_BAD_ARGUMENT;
    return (int)sqz_run_image(state->model, state->shared, state->shared_bytes, input, &result);
}
