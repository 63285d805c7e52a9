/* @name@.h - an image classifier in one C file, written by `squeezenet export`.
 *
 *     static unsigned char arena[@NAME@_ARENA_BYTES];
 *     double logits[@NAME@_CLASSES];
 *     if (@name@_open(arena, sizeof arena)) return 1;
 *     @name@_run(arena, pixels, logits, NULL);
 *
 * No malloc, no files, no threads, no global state; at most @stack@ bytes of stack, compiled with -O1 or more. Compile
 * with -std=c99 (or as C++) and link nothing. Do not use -ffast-math, and where the compiler fuses products and sums, add
 * -ffp-contract=off: the logits are then bit-identical to those of every other engine. */
#ifndef SQZ_API_H
#define SQZ_API_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_INPUT_SIZE @size@ /* height and width of the input */
#define @NAME@_CLASSES @classes@
#define @NAME@_FEATURES @features@ /* numbers of an image's feature vector */
#define @NAME@_MAP_SIZE @map@ /* height and width of the class activation map */
#define @NAME@_ARENA_BYTES @arena@ /* all memory there is, weights and activations */

/* Decodes the model into `arena` (any alignment, at least @NAME@_ARENA_BYTES), which must then stay as it is.
 * Returns 0, or a positive number if the arena is too small or the program's copy of the model is damaged. */
int @name@_open(void *arena, size_t bytes);

/* Classifies one image in an opened arena. Returns 0.
 *   pixels  RGB, @size@ rows of @size@: @preprocessing@
 *   logits  @NAME@_CLASSES scores, the highest wins
 *   map     where it sees each class: @map@ rows of @map@ positions of @classes@ values; or NULL */
int @name@_run(void *arena, const uint8_t *pixels, double *logits, double *map);

/* Does the same, and computes the image's feature vector as well: @NAME@_FEATURES whole numbers, the same on every engine,
 * which are alike for photos that look alike. `logits` may be NULL. */
int @name@_features(void *arena, const uint8_t *pixels, double *logits, int32_t *features);

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
