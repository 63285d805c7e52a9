/* run_model FILE.sqz PIXELS KERNELS THREADS: reads raw images, writes their logits and activation maps as doubles. */
#include <stdio.h>
#include <stdlib.h>

#include "../../csrc/squeezenet.h"
#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#endif

static unsigned char *read_all(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    unsigned char *data = NULL;
    *size = 0;
    if (!file) exit(2);
    for (;;) {
        data = realloc(data, *size + 65536);
        size_t got = fread(data + *size, 1, 65536, file);
        *size += got;
        if (!got) break;
    }
    fclose(file);
    return data;
}

static void check(sqz_status status) {
    if (status) {
        fprintf(stderr, "%s\n", sqz_status_text(status));
        exit(1);
    }
}

int main(int argc, char **argv) {
    size_t size, pixel_bytes, image, count, map, pool_bytes;
    unsigned char *data, *pixels;
    sqz_header header;
    sqz_sizes sizes;
    sqz_model *model;
    sqz_pool *pool = NULL;
    double *logits, *maps;
    void *arena;
    sqz_options options = {0};
    int threads;
    if (argc != 5) return 2;
#if defined(_WIN32)
    _setmode(_fileno(stdout), _O_BINARY);
#endif
    options.kernels = argv[3];
    options.threads = threads = atoi(argv[4]);
    data = read_all(argv[1], &size);
    pixels = read_all(argv[2], &pixel_bytes);
    check(sqz_read_header(data, size, NULL, &header));
    check(sqz_measure(&header.spec, &options, &sizes));
    check(sqz_create(&header.spec, &options, malloc(sizes.model_bytes), sizes.model_bytes, &model));
    check(sqz_load(model, &header, data, malloc(sizes.load_bytes), sizes.load_bytes));
    pool_bytes = sqz_pool_bytes(threads);
    if (threads > 1) check(sqz_pool_create(threads, malloc(pool_bytes), pool_bytes, &pool));
    image = (size_t)header.spec.input_size * header.spec.input_size * 3;
    count = pixel_bytes / image;
    map = (size_t)sizes.map_size * (size_t)sizes.map_size * header.spec.num_classes;
    logits = malloc(sizeof(double) * count * header.spec.num_classes);
    maps = malloc(sizeof(double) * count * map);
    arena = malloc(sizes.arena_bytes);
    check(sqz_run(model, pool, arena, sizes.arena_bytes, pixels, count, logits, maps));
    fwrite(logits, sizeof(double), count * header.spec.num_classes, stdout);
    fwrite(maps, sizeof(double), count * map, stdout);
    sqz_pool_destroy(pool);
    return 0;
}
