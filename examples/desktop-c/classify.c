/* classify.c - prints the three most probable classes of a photo: classify photo.ppm */
#include <math.h>
#include <stdio.h>

#include "network.h"

static unsigned char arena[NETWORK_ARENA_BYTES];
static uint8_t pixels[NETWORK_INPUT_SIZE * NETWORK_INPUT_SIZE * 3];
static double logits[NETWORK_CLASSES];

/* Reads a binary PPM of the network's size, as photo.py writes it. */
static int read_ppm(const char *path) {
    FILE *file = fopen(path, "rb");
    int width = 0, height = 0, highest = 0, is_read;
    if (!file) {
        perror(path);
        return 0;
    }
    is_read = fscanf(file, "P6 %d %d %d", &width, &height, &highest) == 3 && fgetc(file) != EOF &&
              width == NETWORK_INPUT_SIZE && height == NETWORK_INPUT_SIZE && highest == 255 &&
              fread(pixels, 1, sizeof pixels, file) == sizeof pixels;
    fclose(file);
    if (!is_read) {
        fprintf(stderr, "%s: expected a PPM (P6) of %d x %d pixels of 8 bits, got %d x %d\n", path, NETWORK_INPUT_SIZE,
                NETWORK_INPUT_SIZE, width, height);
    }
    return is_read;
}

static int highest_logit(void) {
    int best = 0;
    for (int i = 1; i < NETWORK_CLASSES; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

int main(int argc, char **argv) {
    double total = 0, highest;
    if (argc != 2) {
        fprintf(stderr, "usage: classify photo.ppm\n");
        return 2;
    }
    if (!read_ppm(argv[1]) || network_open(arena, sizeof arena)) return 1;
    network_run(arena, pixels, logits, NULL);
    highest = logits[highest_logit()];
    for (int i = 0; i < NETWORK_CLASSES; i++) total += exp((logits[i] - highest) / NETWORK_TEMPERATURE);
    for (int place = 0; place < 3 && place < NETWORK_CLASSES; place++) {
        int best = highest_logit();
        printf("%5.1f %%  %s\n", 100 * exp((logits[best] - highest) / NETWORK_TEMPERATURE) / total, network_label(best));
        logits[best] = -HUGE_VAL;
    }
    return 0;
}
