#define SQZ_PORTABLE_ONLY 1
#define SQZ_SMALL_ONLY 1
#define SQZ_NO_THREADS 1
#define SQZ_SMALL 1
#define SQZ_API

#if defined(__GNUC__)
#define SQZ_UNUSED __attribute__((unused))
#define SQZ_ALIGNED __attribute__((aligned(16)))
#else
#define SQZ_UNUSED
#define SQZ_ALIGNED
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off") /* for builds without -std=c99, which implies it */
#endif
