/* @name@.h - an image classifier in one C file, written by `squeezenet export`.
 *
 *     static unsigned char arena[@NAME@_ARENA_BYTES];
 *     double logits[@NAME@_CLASSES];
 *     if (@name@_open(arena, sizeof arena)) return 1;
 *     @name@_run(arena, pixels, logits, NULL);
 *
 * No malloc, no files, no threads, no global state. Compile with -std=c99 (or as C++) and link nothing. Do not use
 * -ffast-math, and where the compiler fuses products and sums, add -ffp-contract=off: the logits are then bit-identical
 * to those of every other engine. */
#ifndef @NAME@_CLASSIFIER_H
#define @NAME@_CLASSIFIER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_INPUT_SIZE @size@ /* height and width of the input */
#define @NAME@_CLASSES @classes@
#define @NAME@_FEATURES @features@ /* numbers of an image's feature vector */
#define @NAME@_MAP_SIZE @map@ /* height and width of the class activation map */

/* Memory. Weights: @weights_are@.
 * RAM is the arena, which is all but the stack, and the caller's logits. The stack is what GCC and clang take at -O1 or
 * more on any processor; the code is at most what they make of it for an Arm Cortex-M at -Os. */
#define @NAME@_ARENA_BYTES @arena@
#define @NAME@_STACK_BYTES @stack@
#define @NAME@_RAM_BYTES @ram@
#define @NAME@_CONSTANT_BYTES @constants@
#define @NAME@_CODE_BYTES @code@
#define @NAME@_FLASH_BYTES @flash@

/* Readies `arena` (any alignment, at least @NAME@_ARENA_BYTES), which must then stay as it is. Returns 0, or a
 * positive number if the arena is too small@damaged@. */
int @name@_open(void *arena, size_t bytes);

/* Classifies one image in an opened arena. Returns 0.
 *   pixels  RGB, @size@ rows of @size@: @preprocessing@
 *   logits  @NAME@_CLASSES scores, the highest wins
 *   map     where it sees each class: @map@ rows of @map@ positions of @classes@ values; or NULL */
int @name@_run(void *arena, const uint8_t *pixels, double *logits, double *map);

/* Does the same, and computes the image's feature vector as well: @NAME@_FEATURES whole numbers, the same on every engine,
 * which are alike for photos that look alike. `logits` may be NULL. */
int @name@_features(void *arena, const uint8_t *pixels, double *logits, int32_t *features);

/* Does all of this with rows from a function, so that the image need not be in memory. The function writes row `row`,
 * @NAME@_INPUT_SIZE * 3 bytes, to `rgb` and returns 0, or another number to end the run. It is asked for rows from the
 * top down, for each at most once. Any of the results may be NULL. */
typedef int @name@_row_source(void *context, int row, uint8_t *rgb);
int @name@_run_rows(void *arena, @name@_row_source *source, void *context, double *logits, double *map,
                    int32_t *features);

/* Classifies a picture that it computes, and compares with the logits of the engine that wrote this file. Returns 0 if
 * every bit is right. `logits` is memory for @NAME@_CLASSES numbers. */
int @name@_selftest(void *arena, double *logits);

/* Logits are to be divided by this before a softmax makes probabilities of them. */
#define @NAME@_TEMPERATURE @temperature@
@below@
/* Whether an image with these features shows none of the classes, by the model's own rule: 1 or 0; 0 without a rule. */
#define @NAME@_HAS_UNKNOWN @has_unknown@
int @name@_is_unknown(const int32_t *features);

/* Name of a class, UTF-8; NULL for a number that is not a class. */
const char *@name@_label(int index);

#ifdef __cplusplus
}
#endif
#endif
