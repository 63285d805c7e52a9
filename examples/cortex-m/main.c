/* main.c - classifies one photo, read row by row, as from a camera. */
#include <string.h>

#include "network.h"
#include "photo.h"
#include "start.h"

static uint8_t arena[NETWORK_ARENA_BYTES];
static double logits[NETWORK_CLASSES];

static int read_row(void *context, int row, uint8_t *rgb) {
    (void)context;
    memcpy(rgb, photo[row], sizeof photo[row]); /* with a camera, copy its cropped and scaled row here */
    return 0;
}

int main(void) {
    int best = 0;
    if (network_open(arena, sizeof arena)) return 1;
    if (network_run_rows(arena, read_row, NULL, logits, NULL, NULL)) return 2;
    for (int i = 1; i < NETWORK_CLASSES; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    print(network_label(best));
    print("\n");
    return 0;
}
