/* fuzz_file.c - libFuzzer: any bytes as a `.sqz` file, through parsing, decoding and running.
 *
 * Checksums are put right first (but for one input in eight), or no mutation would pass them. Each block of memory
 * is exactly as large as the engine asks, so that the sanitizer sees every byte beyond. What runs must give the same
 * logits with every kernel set of the processor and with any schedule, streamed or not, from memory or by rows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../csrc/sqz_internal.h"

enum { MAX_SETS = 8 }; /* of kernels; no build has more */
enum { MAX_FILE = 1 << 16, MAX_WEIGHTS = 1 << 13, MAX_MACS = 1 << 14, MAX_MODEL = 1 << 23, MAX_ARENA = 1 << 24 };

static uint32_t take32(const uint8_t *at) {
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void mend_checksums(uint8_t *data, size_t size) {
    size_t offset = 8;
    while (offset + 12 <= size) {
        size_t length = take32(data + offset);
        uint32_t crc;
        if (length > size - offset - 12) return;
        if (!memcmp(data + offset + 4, "HASH", 4) && length == 32) sqz_sha256(data, offset, data + offset + 8);
        crc = sqz_crc32(data + offset + 4, length + 4);
        for (int i = 0; i < 4; i++) data[offset + 8 + length + (size_t)i] = (uint8_t)(crc >> 8 * i);
        offset += 12 + length;
    }
}

static void *exactly(size_t bytes, size_t cap) {
    void *memory;
    if (bytes > cap) abort(); /* more than these limits allow: the engine's arithmetic is wrong */
    memory = malloc(bytes ? bytes : 1);
    if (!memory) abort();
    return memory;
}

static const uint8_t *image; /* of `next_row` */

static int next_row(void *side, int row, uint8_t *rgb) {
    memcpy(rgb, image + (size_t)row * *(size_t *)side * 3, *(size_t *)side * 3);
    return 0;
}

/* Loads in shares, the later one first. */
static sqz_status load_shares(sqz_model *model, const sqz_header *header, const uint8_t *data, void *scratch) {
    sqz_loading loading;
    sqz_status status = sqz_begin_loading(&loading, model, header, data, SQZ_MAX_LOADERS);
    if (status) return status;
    for (int i = loading.shares; i--;) sqz_load_share(&loading, i, scratch);
    return sqz_end_loading(&loading);
}

static void run(const sqz_header *header, const uint8_t *data, const char *kernels, int band_rows, int streamed,
                double *logits) {
    const sqz_options options = {kernels, 1, band_rows, streamed};
    sqz_sizes sizes;
    sqz_model *model;
    void *memory, *scratch, *arena;
    uint8_t *pixels;
    size_t side = header->spec.input_size;
    double *map;
    sqz_status status;
    if (sqz_measure(&header->spec, &options, &sizes)) abort();
    memory = exactly(sizes.model_bytes, MAX_MODEL);
    scratch = exactly(sizes.load_bytes, MAX_MODEL);
    if (sqz_create(&header->spec, &options, memory, sizes.model_bytes, &model)) abort();
    memset(logits, 0, sizeof(double) * header->spec.num_classes);
    status = sqz_load(model, header, data, scratch, sizes.load_bytes);
    if (streamed && load_shares(model, header, data, scratch) != status) abort();
    if (!status) {
        arena = exactly(sizes.arena_bytes, MAX_ARENA);
        pixels = exactly(side * side * 3, 3 << 20);
        map = exactly(sizeof(double) * header->spec.num_classes * (size_t)sizes.map_size * (size_t)sizes.map_size,
                      MAX_ARENA);
        for (size_t i = 0; i < side * side * 3; i++) pixels[i] = (uint8_t)(i * 2654435761u >> 24);
        image = pixels;
        if (streamed) {
            if (sqz_run_rows(model, arena, sizes.arena_bytes, next_row, &side, logits, map, NULL)) abort();
        } else if (sqz_run(model, NULL, arena, sizes.arena_bytes, pixels, 1, logits, map)) {
            abort();
        }
        free(arena), free(pixels), free(map);
    }
    free(memory), free(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    static const sqz_limits limits = {MAX_FILE, MAX_WEIGHTS};
    static const char *names[MAX_SETS + 1]; /* asked once: under a hypervisor the question is slow */
    sqz_header header;
    sqz_sizes sizes;
    uint8_t *data;
    double *first, *other;
    if (!names[0]) {
        for (int i = 0; i < MAX_SETS; i++) names[i] = sqz_kernels_name(i);
    }
    if (size > MAX_FILE) return 0;
    data = exactly(size, MAX_FILE);
    if (size) memcpy(data, input, size);
    if (size % 8) mend_checksums(data, size);
    if (!sqz_read_header(data, size, &limits, &header) && !sqz_measure(&header.spec, NULL, &sizes) &&
        sizes.n_macs <= MAX_MACS && sizes.arena_bytes <= 1 << 20) {
        first = exactly(sizeof(double) * header.spec.num_classes, 1 << 20);
        other = exactly(sizeof(double) * header.spec.num_classes, 1 << 20);
        run(&header, data, names[0], 0, 0, first);
        for (int i = 1; names[i]; i++) {
            run(&header, data, names[i], 0, 0, other);
            if (memcmp(first, other, sizeof(double) * header.spec.num_classes)) abort();
        }
        for (int i = 0; i < 2; i++) { /* as exported C runs, and some other way */
            const int band_rows = i ? 1 + (int)(size % 7) : 1, streamed = i ? 1 + (int)(size / 7 % 5) : -1;
            run(&header, data, "small", band_rows, streamed, other);
            if (memcmp(first, other, sizeof(double) * header.spec.num_classes)) abort();
        }
        free(first), free(other);
    }
    free(data);
    return 0;
}
