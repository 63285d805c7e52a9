/* @name@.c - written by `squeezenet export`: the engine (C99, portable), then the model. See @name@.h.
 *
 * The engine is Apache-2.0; the model has the licence that its author chose. */
#include "@name@.h"

#define SQZ_PORTABLE_ONLY 1
#define SQZ_SMALL_ONLY 1
#define SQZ_NO_THREADS 1
#define SQZ_API

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off") /* -std=c99 does it too; for those who build without */
#endif
