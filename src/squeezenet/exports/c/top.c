/* @name@.c - written by `squeezenet export`: the engine (C99, portable), then the model. See @name@.h.
 *
 * The licence of the engine is Apache-2.0; that of the model is its author's choice. For several networks in one program,
 * include their .c files into one file: the engine is then compiled only once. */
#include "@name@.h"

