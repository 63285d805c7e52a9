
static int own_go_pixels(void *arena, const uint8_t *pixels, double *logits, double *map, int32_t *features) {
    enum { BYTES = @NAME@_INPUT_SIZE * @NAME@_INPUT_SIZE * 3 };
    sqz_input input = {pixels, 0, @NAME@_INPUT_SIZE, BYTES, NULL, NULL, SQZ_OK};
    if (!pixels) return SQZ_BAD_ARGUMENT;
    return own_go(arena, &input, logits, map, features);
}

int @name@_run(void *arena, const uint8_t *pixels, double *logits, double *map) {
    return own_go_pixels(arena, pixels, logits, map, NULL);
}

int @name@_features(void *arena, const uint8_t *pixels, double *logits, int32_t *features) {
    return own_go_pixels(arena, pixels, logits, NULL, features);
}

int @name@_run_rows(void *arena, @name@_row_source *source, void *context, double *logits, double *map,
                    int32_t *features) {
    sqz_input input = {NULL, 0, 0, 0, source, context, SQZ_OK};
    if (!source) return SQZ_BAD_ARGUMENT;
    return own_go(arena, &input, logits, map, features);
}

/* A test image: a ramp with noise. */
static int own_test_row(void *context, int row, uint8_t *rgb) {
    uint32_t state = (uint32_t)row * 2654435761u;
    (void)context;
    for (int i = 0; i < 3 * @NAME@_INPUT_SIZE; i++) {
        state = state * 1664525u + 1013904223u;
        rgb[i] = (uint8_t)((state >> 25) + (uint32_t)((row + i) & 127));
    }
    return 0;
}

int @name@_selftest(void *arena, double *logits) {
    uint64_t hash = 14695981039346656037u, bits;
    const int status = @name@_run_rows(arena, own_test_row, NULL, logits, NULL, NULL);
    if (status || !logits) return status ? status : SQZ_BAD_ARGUMENT;
    for (int i = 0; i < @NAME@_CLASSES; i++) {
        memcpy(&bits, &logits[i], 8);
        hash = (hash ^ bits) * 1099511628211u;
    }
    return hash != @test_hash@u ? SQZ_CHECKSUM_MISMATCH : SQZ_OK;
}

int @name@_is_unknown(const int32_t *features) { return own_rule.count && sqz_is_unknown(&own_rule, features); }

const char *@name@_label(int index) {
    return index >= 0 && index < @NAME@_CLASSES ? own_labels[index] : NULL;
}
