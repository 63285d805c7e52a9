
int @name@_open(void *arena, size_t bytes) {
    if (!arena) return SQZ_BAD_ARGUMENT;
    if (bytes < @NAME@_ARENA_BYTES) return SQZ_NO_MEMORY;
    own_start(arena)->state = @NAME@_IS_OPEN;
    return SQZ_OK;
}

static int own_go(void *arena, sqz_input *input, double *logits, double *map, int32_t *features) {
    const sqz_result result = {logits, map, features};
    if (!arena || own_start(arena)->state != @NAME@_IS_OPEN) return SQZ_BAD_ARGUMENT;
    return (int)sqz_run_image(&own_model, (uint8_t *)own_start(arena) + SQZ_ALIGN, @NAME@_ARENA_BYTES - 2 * SQZ_ALIGN,
                              input, &result);
}
