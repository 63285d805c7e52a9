/* main.c - classifies every image of pixels.bin; writes logits.bin and features.bin, and counts to figures.bin. */
#include <string.h>

#include "chip.h"
#include "model.h"

static unsigned char arena[MODEL_ARENA_BYTES], pixels[MODEL_INPUT_SIZE * MODEL_INPUT_SIZE * 3];
static double logits[MODEL_CLASSES];
static int32_t features[MODEL_FEATURES];

int main(void) {
    uint32_t figures[4], start;
    const int photos = chip_open("pixels.bin", 0), results = chip_open("logits.bin", 1);
    const int vectors = chip_open("features.bin", 1);
    memset(arena, 0xA5, sizeof arena);
    start = chip_counter();
    if (model_open(arena, sizeof arena)) return 2;
    figures[0] = chip_counter() - start;
    while (chip_read(photos, pixels, sizeof pixels) == sizeof pixels) {
        start = chip_counter();
        if (model_features(arena, pixels, logits, features)) return 3;
        figures[1] = chip_counter() - start;
        if (chip_write(results, logits, sizeof logits) != sizeof logits) return 4;
        if (chip_write(vectors, features, sizeof features) != sizeof features) return 4;
    }
    figures[2] = chip_stack_bytes();
    figures[3] = chip_touched(arena, sizeof arena);
    chip_write(chip_open("figures.bin", 1), figures, sizeof figures);
    return 0;
}
