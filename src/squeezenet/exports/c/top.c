/* @name@.c - written by `squeezenet export`: the engine (C99, portable), then the model. See @name@.h.
 *
 * The engine is Apache-2.0; the model is whatever its author says. For several networks in one program include their
 * files into one: what they share of the engine is then compiled once. */
#include "@name@.h"

