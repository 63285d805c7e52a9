/* classify.ino - classifies what a camera sees, on a board with enough flash memory for the network.
 *
 * Write network.c and network.h beside this sketch first:
 *
 *     squeezenet export imagenette -o classify/network.c
 *
 * Constants in network.h state how much memory the network takes, such as NETWORK_ARENA_BYTES and NETWORK_STACK_BYTES.
 * */
#include "network.h"

static uint8_t arena[NETWORK_ARENA_BYTES];
static double logits[NETWORK_CLASSES];

/* Writes row `row` of the picture, NETWORK_INPUT_SIZE pixels of RGB. It is called once per row, from the top down, so
 * the picture never has to be in memory. With a camera, crop and scale its rows here; this function draws a gradient.
 * */
static int read_row(void *context, int row, uint8_t *rgb) {
  (void)context;
  for (int x = 0; x < NETWORK_INPUT_SIZE; x++) {
    *rgb++ = x * 255 / (NETWORK_INPUT_SIZE - 1);
    *rgb++ = row * 255 / (NETWORK_INPUT_SIZE - 1);
    *rgb++ = 128;
  }
  return 0;
}

void setup() {
  Serial.begin(115200);
  if (network_open(arena, sizeof arena)) Serial.println("the network does not open");
}

void loop() {
  int best = 0;
  unsigned long start = millis();
  if (network_run_rows(arena, read_row, NULL, logits, NULL, NULL)) return;
  for (int i = 1; i < NETWORK_CLASSES; i++) {
    if (logits[i] > logits[best]) best = i;
  }
  Serial.print(network_label(best));
  Serial.print(", ms: ");
  Serial.println(millis() - start);
}
