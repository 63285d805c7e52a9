/* main.c - classifies every image of pixels.bin, whose rows are read one by one, after the network's own test; writes
 * logits.bin and features.bin, and counts to figures.bin. */
#include <string.h>

#include "chip.h"
#include "model.h"

static unsigned char arena[MODEL_ARENA_BYTES];
static double logits[MODEL_CLASSES];
static int32_t features[MODEL_FEATURES];

typedef struct {
    int file, image, is_over;
    uint32_t ticks; /* that reading took */
} photo_file;

static int read_row(void *context, int row, uint8_t *rgb) {
    photo_file *photos = (photo_file *)context;
    const uint32_t start = chip_counter();
    chip_seek(photos->file, ((size_t)photos->image * MODEL_INPUT_SIZE + (size_t)row) * MODEL_INPUT_SIZE * 3);
    photos->is_over = chip_read(photos->file, rgb, MODEL_INPUT_SIZE * 3) != MODEL_INPUT_SIZE * 3;
    photos->ticks += chip_counter() - start;
    return photos->is_over;
}

int main(void) {
    uint32_t figures[4] = {0}, start;
    const int results = chip_open("logits.bin", 1), vectors = chip_open("features.bin", 1);
    photo_file photos = {chip_open("pixels.bin", 0), 0, 0, 0};
    memset(arena, 0xA5, sizeof arena);
    start = chip_counter();
    if (model_open(arena, sizeof arena)) return 2;
    figures[0] = chip_counter() - start;
    if (model_selftest(arena, logits)) return 3;
    for (;; photos.image++) {
        photos.ticks = 0;
        start = chip_counter();
        if (model_run_rows(arena, read_row, &photos, logits, NULL, features)) break;
        figures[1] = chip_counter() - start - photos.ticks;
        if (chip_write(results, logits, sizeof logits) != sizeof logits) return 4;
        if (chip_write(vectors, features, sizeof features) != sizeof features) return 4;
    }
    figures[2] = chip_stack_bytes();
    figures[3] = chip_touched(arena, sizeof arena);
    chip_write(chip_open("figures.bin", 1), figures, sizeof figures);
    return photos.is_over ? 0 : 5;
}
