/* @name@.h - an image classifier in one C file, written by `squeezenet export`.
 *
 *     static unsigned char arena[@NAME@_ARENA_BYTES];
 *     double logits[@NAME@_CLASSES];
 *     if (@name@_open(arena, sizeof arena)) return 1;
 *     @name@_run(arena, pixels, logits, NULL);
 *
 * No malloc, no files, no threads, no global state. Compile with -std=c99 (or as C++); no library is needed. Do not use
 * -ffast-math. If the compiler fuses products and sums, add -ffp-contract=off. The logits are then bit-identical to
 * those of every other engine. */
#ifndef @NAME@_CLASSIFIER_H
#define @NAME@_CLASSIFIER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_INPUT_SIZE @size@ /* height and width of the input */
#define @NAME@_CLASSES @classes@
#define @NAME@_FEATURES @features@ /* length of an image's feature vector */
#define @NAME@_MAP_SIZE @map@ /* height and width of the class activation map */

/* Memory. Weights: @weights_are@.
 * RAM includes the arena, the stack and the caller's logits. The stack is an upper bound for GCC and clang at -O1 or
 * more on any processor; the code is an upper bound for an Arm Cortex-M at -Os. All sizes are in bytes. */
#define @NAME@_ARENA_BYTES @arena@
#define @NAME@_STACK_BYTES @stack@
#define @NAME@_RAM_BYTES @ram@
#define @NAME@_CONSTANT_BYTES @constants@
#define @NAME@_CODE_BYTES @code@
#define @NAME@_FLASH_BYTES @flash@

/* Prepares `arena` (any alignment, at least @NAME@_ARENA_BYTES), which the program must not write to afterwards.
 * Returns 0, or a positive number if the arena is too small@damaged@. */
int @name@_open(void *arena, size_t bytes);

/* Classifies one image, using an opened arena. Returns 0.
 *   pixels  RGB, @size@ rows of @size@: @preprocessing@
 *   logits  @NAME@_CLASSES scores; the predicted class has the highest
 *   map     class activation maps: @map@ rows of @map@ positions of @classes@ values; or NULL */
int @name@_run(void *arena, const uint8_t *pixels, double *logits, double *map);

/* Also computes the image's feature vector: @NAME@_FEATURES integers, the same on every engine, which are similar for
 * similar photos. `logits` may be NULL. */
int @name@_features(void *arena, const uint8_t *pixels, double *logits, int32_t *features);

/* The same with rows from a function, so that the image need not be in memory. The function writes row `row`,
 * @NAME@_INPUT_SIZE * 3 bytes, to `rgb` and returns 0, or another number to end the run. It is called from the top row
 * down, at most once per row. `logits`, `map` and `features` may be NULL. */
typedef int @name@_row_source(void *context, int row, uint8_t *rgb);
int @name@_run_rows(void *arena, @name@_row_source *source, void *context, double *logits, double *map,
                    int32_t *features);

/* Classifies a synthetic picture, and compares the logits with those of the engine that wrote this file. Returns 0 if
 * every bit is equal. `logits` is memory for @NAME@_CLASSES numbers. */
int @name@_selftest(void *arena, double *logits);

/* Divide logits by this number before a softmax converts them to probabilities. */
#define @NAME@_TEMPERATURE @temperature@
@below@
/* Returns 1 if, by the model's own rule, an image with these features shows none of the classes; else, or without a rule,
 * 0. */
#define @NAME@_HAS_UNKNOWN @has_unknown@
int @name@_is_unknown(const int32_t *features);

/* Name of a class in UTF-8; NULL if `index` is not a class. */
const char *@name@_label(int index);

#ifdef __cplusplus
}
#endif
#endif
