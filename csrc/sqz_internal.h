/* sqz_internal.h - declarations that the engine's files share.
 *
 * Every static function has the prefix of its file (`decode_`, `plan_`, ...), because `squeezenet export` joins the files
 * into one. A file calls only files that come later in this list: sqz_abi, sqz_model, sqz_batch, sqz_run, sqz_coded,
 * sqz_parse, sqz_pack, sqz_plan, sqz_schedule, sqz_decode, sqz_unknown, sqz_threads, kernels, kernels_*, sqz_hash. */
#ifndef SQZ_INTERNAL_H
#define SQZ_INTERNAL_H

#include "squeezenet.h"

#ifdef SQZ_FREESTANDING
void *memcpy(void *to, const void *from, size_t count);
void *memset(void *to, int value, size_t count);
int memcmp(const void *a, const void *b, size_t count);
#else
#include <string.h>
#endif

#ifdef __FAST_MATH__
#error "build without -ffast-math: results must be bit-identical everywhere"
#endif

#include <float.h>
#if FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16 /* 16: as 0, but for types narrower than float */
#error "floats must be rounded after each operation: on 32-bit x86 build with -msse2 -mfpmath=sse"
#endif

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF /* for GCC and MSVC, compiler flags do this */
#endif

#if defined(__GNUC__)
#define SQZ_INLINE static inline __attribute__((always_inline, unused))
#elif defined(_MSC_VER)
#define SQZ_INLINE static __forceinline
#else
#define SQZ_INLINE static inline
#endif

#if defined(_MSC_VER) || defined(__cplusplus)
#define SQZ_RESTRICT __restrict
#else
#define SQZ_RESTRICT restrict
#endif

/* Placed at the beginning of a struct. */
#if defined(__cplusplus)
#define SQZ_ZEROS {}
#else
#define SQZ_ZEROS {0}
#endif

/* Unrolls loops over registers, whose bounds are constant. */
#if defined(SQZ_KEEP_LOOPS)
#define SQZ_UNROLL
#elif defined(__clang__)
#define SQZ_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define SQZ_UNROLL _Pragma("GCC unroll 16")
#else
#define SQZ_UNROLL
#endif

enum {
    SQZ_LANES = 16,       /* outputs of a panel */
    SQZ_ALIGN = 64,       /* of every block of memory */
    SQZ_MAX_NAME = 64,    /* bytes */
    SQZ_MAX_SIZE = 1024,  /* limits of a spec, as in spec.py */
    SQZ_MAX_CHANNELS = 4096,
    SQZ_HEAD_PIXELS = 28, /* positions of the head at a time, at most, */
    SQZ_WIDE_HEAD_PIXELS = 24, /* for kernel sets that read rows in 16 bits, six positions at a time, */
    SQZ_HEAD_PANELS = 8,  /* and panels */
    SQZ_WIDE_BYTES = 1 << 14, /* of input in 16 bits, for kernel sets that gain from more than one row */
    SQZ_WINDOW_PIXELS = 4, /* of SQZ_WIDE_WINDOWS */
    SQZ_SLACK = 64        /* bytes behind a tensor that may be read but are never used */
};

/* Range of scales and multipliers, as in spec.py; multipliers end at 2^20. */
#define SQZ_MIN_SCALE (1.0f / (float)((int64_t)1 << 40))
#define SQZ_MAX_SCALE ((float)((int64_t)1 << 40))
#define SQZ_MAX_MULTIPLIER ((float)(1 << 20))

/* Sets rounding to nearest without flushing of small numbers, whatever other code of the process has set, and returns the
 * previous mode for `sqz_restore_floats`. On processors without code here, the caller must ensure this mode. */
#if !defined(SQZ_PORTABLE_ONLY) && (defined(__x86_64__) || defined(_M_X64))
#include <xmmintrin.h>
SQZ_INLINE void sqz_restore_floats(uint64_t floats) { _mm_setcsr((unsigned)floats); }
SQZ_INLINE uint64_t sqz_usual_floats(void) {
    const unsigned before = _mm_getcsr();
    _mm_setcsr(0x1F80);
    return before;
}
#elif !defined(SQZ_PORTABLE_ONLY) && defined(__aarch64__)
SQZ_INLINE void sqz_restore_floats(uint64_t floats) { __asm__ volatile("msr fpcr, %0" : : "r"(floats)); }
SQZ_INLINE uint64_t sqz_usual_floats(void) {
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    sqz_restore_floats(0);
    return before;
}
#else
SQZ_INLINE void sqz_restore_floats(uint64_t floats) { (void)floats; }
SQZ_INLINE uint64_t sqz_usual_floats(void) { return 0; }
#endif

/* Correctly rounded, without errno. */
#if defined(__GNUC__)
SQZ_INLINE double sqz_sqrt(double value) { return __builtin_sqrt(value); }
#else
#include <math.h>
SQZ_INLINE double sqz_sqrt(double value) { return sqrt(value); }
#endif

SQZ_INLINE size_t sqz_round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }
/* Bytes up to the next address where a block of memory may begin. */
SQZ_INLINE size_t sqz_padding(const void *memory) { return (SQZ_ALIGN - (uintptr_t)memory % SQZ_ALIGN) % SQZ_ALIGN; }
SQZ_INLINE int sqz_abs(int a) { return a < 0 ? -a : a; }
SQZ_INLINE int sqz_min(int a, int b) { return a < b ? a : b; }
SQZ_INLINE int sqz_max(int a, int b) { return a > b ? a : b; }
SQZ_INLINE uint8_t sqz_max_u8(uint8_t a, uint8_t b) { return a > b ? a : b; }

/* Rounds |value| < 2^22 half to even: adding 1.5 * 2^23 leaves no bits for a fraction. */
SQZ_INLINE int sqz_round(float value) { return (int)((value + 12582912.0f) - 12582912.0f); }

/* Bytes from one pixel of a tensor to the next: a whole number of groups of products. */
SQZ_INLINE size_t sqz_pixel_bytes(int channels) { return sqz_round_up((size_t)channels, 4); }

/* --- kernels ----------------------------------------------------------------------------------------------------- */

/* Layouts of weights in memory. Outputs are grouped in panels of 16, products in groups of 4, padded with zero weights.
 *   SQZ_PACK_S8   int8 [panel][group][16][4]
 *   SQZ_PACK_S16  int16 [panel][group][2][16][2]: products 0 and 1, then 2 and 3
 *   SQZ_PACK_MIX  a panel of either, S8 where pair sums cannot leave int16 (`sqz_conv.kinds`), in S16's space
 *   SQZ_PACK_TWOS int8 [panel][8][product][2]: pairs of outputs; up to SQZ_SLACK bytes behind the last may be read */
enum { SQZ_PACK_S8, SQZ_PACK_S16, SQZ_PACK_MIX, SQZ_PACK_TWOS };

/* Memory that a kernel set needs for input in 16 bits: none, rows, or all products of a few pixels. */
enum { SQZ_WIDE_NONE, SQZ_WIDE_ROWS, SQZ_WIDE_WINDOWS };

/* Kinds of panels in SQZ_PACK_MIX: S16, or S8 where the sums of pairs, of as many groups of a run, fit int16. */
enum { SQZ_PANEL_WIDE = 0, SQZ_PANEL_PAIRS = 1, SQZ_PANEL_PAIRS_OF_2 = 2, SQZ_PANEL_PAIRS_OF_4 = 4 };

/* One row, or several, of one convolution. Product k of run r of pixel p is x[r * x_run + p * x_pixel + k]. */
typedef struct {
    const uint8_t *x;
    size_t x_pixel, x_run, x_row; /* bytes from one pixel, run, row to the next */
    int rows, pixels;
    int runs, groups; /* products of a sum: runs * groups * 4 */
    const uint8_t *weights;
    size_t panel_bytes;
    const uint8_t *kinds;
    const int32_t *bias;
    const float *multiplier;
    int panels, last_outputs; /* outputs of the last panel: 1 to 16 */
    int zero;                 /* zero-point of the result */
    int is_plain;             /* it is 0, and no product of a sum and its multiplier leaves int32 */
    uint8_t *y;               /* result, or NULL to store the sums in `raw` */
    size_t y_pixel, y_row;
    int32_t *raw; /* [pixels of all rows][panels * 16] */
    uint16_t *wide; /* memory for input in 16 bits, for kernel sets that need it, */
    int wide_rows;  /* and how many rows of x_row it holds, at least `runs` */
} sqz_conv_job;

/* A bypass addition: y = (a - zero[0]) * factor[0] + (b - zero[1]) * factor[1], rounded, plus `sum_zero`. */
typedef struct {
    float factor[2];
    int zero[2], sum_zero;
} sqz_add;

typedef struct {
    const char *name;
    int pack;
    int x_offset; /* the kernel multiplies x - x_offset */
    int wide; /* SQZ_WIDE_* */
    void (*conv)(const sqz_conv_job *job);
    void (*pool_row)(const uint8_t *x, int size, int out_size, size_t pixel, int is_first, uint8_t *y);
    void (*add_row)(const sqz_add *add, const uint8_t *other, size_t count, uint8_t *y);
    uint64_t (*peak)(uint32_t rounds); /* see `sqz_peak`; or NULL */
    int (*is_supported)(void);
} sqz_kernels;

/* One input row of a 3x3/2 max pool, which kernel sets compile with their own instructions: its maxima become the row `y`,
 * or raise the maxima that other rows of the window stored there. A window that extends beyond the edge reads the last
 * column twice, which does not change the maximum. */
SQZ_INLINE void sqz_pool_row_body(const uint8_t *x, int size, int out_size, size_t pixel, int is_first,
                                  uint8_t *SQZ_RESTRICT y) {
    for (int out = 0; out < out_size; out++, x += 2 * pixel, y += pixel) {
        const uint8_t *middle = x + pixel, *right = 2 * out + 2 < size ? middle + pixel : middle;
        if (is_first) {
            for (size_t i = 0; i < pixel; i++) y[i] = sqz_max_u8(sqz_max_u8(x[i], middle[i]), right[i]);
        } else {
            for (size_t i = 0; i < pixel; i++) {
                y[i] = sqz_max_u8(sqz_max_u8(y[i], x[i]), sqz_max_u8(middle[i], right[i]));
            }
        }
    }
}

/* Adds the bypass to `y`: two float products, one sum, one rounding. */
SQZ_INLINE void sqz_add_row_body(const sqz_add *add, const uint8_t *other, size_t count, uint8_t *SQZ_RESTRICT y) {
    const float factor_a = add->factor[0], factor_b = add->factor[1];
    const int zero_a = add->zero[0], zero_b = add->zero[1], zero = add->sum_zero;
    const float low = (float)-zero, high = (float)(255 - zero);
    for (size_t i = 0; i < count; i++) {
        float term_a = (float)(y[i] - zero_a) * factor_a, term_b = (float)(other[i] - zero_b) * factor_b;
        float sum = term_a + term_b;
        y[i] = (uint8_t)(sqz_round(sum < low ? low : sum > high ? high : sum) + zero);
    }
}

/* Products that one row of a job reads in each run. */
SQZ_INLINE size_t sqz_wide_run(int pixels, size_t x_pixel, int groups) {
    return (size_t)(pixels - 1) * x_pixel + (size_t)groups * 4;
}

void sqz_pool_row(const uint8_t *x, int size, int out_size, size_t pixel, int is_first, uint8_t *y);
void sqz_add_row(const sqz_add *add, const uint8_t *other, size_t count, uint8_t *y);

const sqz_kernels *sqz_find_kernels(const char *name);

SQZ_INLINE int sqz_head_pixels(const sqz_kernels *kernels) {
    return kernels && kernels->wide == SQZ_WIDE_ROWS ? (int)SQZ_WIDE_HEAD_PIXELS : (int)SQZ_HEAD_PIXELS;
}

/* Kernel sets of this build; each file defines its table under the same condition. */
extern const sqz_kernels sqz_scalar_kernels, sqz_small_kernels;
#if !defined(SQZ_PORTABLE_ONLY)
#if defined(__x86_64__) || defined(_M_X64)
#define SQZ_X86 1
extern const sqz_kernels sqz_avx2_kernels, sqz_avxvnni_kernels, sqz_avx512vnni_kernels;
int sqz_has_bmi2(void); /* and BMI1, LZCNT */
int sqz_has_avx2(void);
int sqz_has_avxvnni(void);
int sqz_has_avx512vnni(void);
#endif
#if defined(__aarch64__) || defined(_M_ARM64)
#define SQZ_ARM64 1
extern const sqz_kernels sqz_neon_kernels;
#if !defined(__clang__) || defined(__ARM_FEATURE_DOTPROD) || __clang_major__ >= 16 /* older ones hide the intrinsics */
#define SQZ_DOTPROD 1
extern const sqz_kernels sqz_neon_dotprod_kernels;
int sqz_has_dotprod(void);
#endif
#endif
#if defined(__wasm_simd128__)
#define SQZ_WASM 1
extern const sqz_kernels sqz_wasm_kernels;
#endif
#endif

/* --- decoder; `sqz_decode.c` -------------------------------------------------------------------------------------- */

/* The largest sizes that a decoder has to support. */
typedef struct {
    size_t rows, products; /* largest of all convolutions: outputs, weights per output */
    unsigned kernels;      /* bit k: there is a k x k convolution */
} sqz_decoder_needs;

/* Adds a convolution; returns 0 if its shape is impossible. */
int sqz_decoder_need(sqz_decoder_needs *needs, const sqz_conv_shape *shape);
size_t sqz_decoder_bytes_for(const sqz_decoder_needs *needs);
/* Creates a decoder in memory of that many bytes. */
sqz_decoder *sqz_decoder_begin(const sqz_decoder_needs *needs, void *memory);

/* --- model ------------------------------------------------------------------------------------------------------- */

typedef struct {
    int in_channels, out_channels, kernel, stride, padding;
    int runs, groups; /* as the kernel sees the products of one sum */
    int panels, last_outputs;
    size_t panel_bytes;
    int in_zero, out_zero;
    int is_set;
    int is_bounded;      /* whether no product of a sum and its multiplier leaves int32 */
    int64_t largest_sum; /* bound on |sum| */
    uint8_t *weights;
    uint8_t *kinds;
    int32_t *bias; /* with the input's zero-point folded in; padded to whole panels */
    float *multiplier;
    int32_t *plain_bias; /* as stored; kept for the head, where it is the sum at a padding position */
} sqz_conv;

typedef struct {
    sqz_conv *squeeze, *expand1x1, *expand3x3, *bypass; /* the last may be NULL */
    int has_add;
    sqz_add add;
} sqz_fire;

/* A stage computes the rows of one tensor, the output of conv1 or of a Fire module, and passes them on at once: squeezed
 * into the map that the next Fire module reads, or to the head. Stage 0 is conv1, stage i is Fire i - 1. `sqz_schedule.c`
 * assigns the memory. */
typedef struct {
    int channels, map_channels; /* of the tensor; of the map, 0 for the last stage */
    int size, out_size;  /* of a row, before and after the pool */
    int has_pool, rows;  /* rows before the pool that are needed */
    int is_added;        /* whether the next Fire's bypass reads the tensor as well */
    size_t window_bytes; /* scratch memory per computed row: conv1's windows, or a row of the bypass */
    int step;            /* number of rows computed at a time */
    int map_rows;        /* of the map: all, border included, or a window of 3; 0 for the last stage */
    int kept_rows;       /* of the tensor, in the trunk: all, or the most recent few, or 0 */
    int band_rows;       /* of the tensor, in scratch memory, where it is pooled and not kept */
    size_t map_at, kept_at;   /* in the trunk */
    size_t band_at, spare_at; /* in scratch memory, behind the computed rows: the band; memory used in turns */
} sqz_stage;

/* The progress of a streamed stage. */
typedef struct {
    int made;   /* rows before the pool */
    int mapped; /* rows of the map, its border included */
} sqz_progress;

#if defined(SQZ_CODED)
/* The source of a convolution's weights. They are decoded into the trunk, from `at` on, before step `step` of the image,
 * or, if `step` is -1, panel by panel while they are multiplied. */
typedef struct {
    const uint8_t *stream;
    size_t bytes;
    int step;
    size_t at;
} sqz_source;

/* The position of the decoder in the trunk, and of the panel that it decoded last. */
typedef struct {
    const sqz_source *sources;
    size_t decoder_at, panel_at;
} sqz_coded;
#endif

struct sqz_model {
    const sqz_kernels *kernels;
    sqz_conv *convs; /* all of them, in file order: stem, of each Fire squeeze, expand1x1, expand3x3, bypass; head */
    sqz_conv *stem, *head;
    sqz_fire *fires;
    sqz_stage *stages;     /* n_fires + 1 */
    size_t n_convs, n_set; /* n_set: those whose integers are set */
    int n_fires;
    int streamed; /* stages 0 to this one run together, row by row; of these, only the last has a whole map */
    int keeps_head_input;
    int input_size, stem_kernel, head_relu, head_padding;
    size_t input_at, progress_at; /* in the trunk: the last rows of input that came from a source; `sqz_progress` */
    size_t trunk_bytes;   /* arena: tensors between layers */
    size_t scratch_bytes; /* arena: each thread's own, of which the last `wide_bytes` are for kernels */
    size_t wide_bytes;
    int head_pixels, head_panels; /* positions and panels of the head at a time, */
    size_t sums_bytes;            /* and scratch memory for their sums */
    size_t integer_bytes; /* of the largest convolution, as decoded: (O, I, k, k), (O), (O) */
    sqz_decoder_needs needs;
    uint64_t n_macs;
    uint64_t shape_hash; /* of all convolutions, to check that a file has this architecture */
#if defined(SQZ_CODED)
    sqz_coded coded;
#endif
};

SQZ_INLINE size_t sqz_row_bytes(int size, int channels) { return (size_t)size * sqz_pixel_bytes(channels); }

/* Checks a spec completely and plans its network; `sqz_plan.c`.
 *   model   becomes a model without weights; its pointers are valid only if `memory` is given
 *   memory  the model itself is at its start; aligned, `sizes->model_bytes` long; or NULL to count only
 *   sizes   all except load_bytes and arena_bytes */
sqz_status sqz_plan(const sqz_spec *spec, const sqz_kernels *kernels, const sqz_options *options, sqz_model *model,
                    uint8_t *memory, sqz_sizes *sizes);

/* Decides how many rows are computed at a time and where everything is in memory. For a model whose shapes are known, it
 * sets the fields of stages from `step` on and the model's from `streamed` to `sums_bytes`; `sqz_schedule.c`. */
void sqz_schedule(sqz_model *model, int band_rows, int streamed);

/* --- running; `sqz_run.c` ---------------------------------------------------------------------------------------- */

/* Where an image comes from: memory, or a function that fills the rows of a window. */
typedef struct {
    const uint8_t *pixels; /* rows `first` to `end` - 1 */
    int first, end;
    size_t readable; /* their bytes, plus those behind them that may be read */
    sqz_row_source *source;
    void *context;
    sqz_status status;
} sqz_input;

/* The results that a run computes; any may be NULL. */
typedef struct {
    double *logits, *map;
    int32_t *features;
} sqz_result;

typedef struct {
    const sqz_model *model;
    uint8_t *trunk, *scratch;
    int part, parts; /* of a step */
    sqz_input *input;
    sqz_result result;
} sqz_worker;

/* The steps of an image: the streamed stages or the first one, each of the others, and the head if its input is kept. */
int sqz_steps(const sqz_model *model);
int sqz_step_items(const sqz_model *model, int step); /* rows, or panels of classes, that it can be split into */
void sqz_run_step(const sqz_worker *worker, int step);
/* Runs all steps on this thread. */
sqz_status sqz_run_image(const sqz_model *model, void *arena, size_t arena_bytes, sqz_input *input,
                         const sqz_result *result);

/* Lays weights (O, I, k, k) out for a kernel set; `sqz_pack.c`. */
void sqz_pack_conv(const sqz_conv *conv, int pack, const int8_t *weight);
/* Packs the weights of one output, (I, k, k), as SQZ_PACK_TWOS into its panel; the gaps must already be 0. */
void sqz_pack_output(const sqz_conv *conv, const int8_t *weight, int lane, uint8_t *panel);

/* One entry of the WGHT chunk's table. */
typedef struct {
    uint64_t bytes; /* length of the stream */
    int is_fresh;   /* needs a new decoder, and no earlier stream */
} sqz_stream;

/* Reads the entry at `*offset` of the table and moves to the next one. */
sqz_status sqz_next_stream(const sqz_header *header, const void *data, size_t *offset, sqz_stream *stream);

enum { SQZ_MAX_LOADERS = 2 }; /* threads that share a load */

/* A load in progress, and the outcome of each share. */
typedef struct {
    sqz_model *model;
    const sqz_header *header;
    const void *data;
    const uint8_t *streams;
    int shares;
    size_t starts[SQZ_MAX_LOADERS + 1]; /* first stream of each share; the last entry is the number of streams */
    sqz_status status[SQZ_MAX_LOADERS]; /* of the first bad stream */
    sqz_status late[SQZ_MAX_LOADERS];   /* of the first integers out of range */
} sqz_loading;

/* `sqz_begin_loading` checks the table and divides the streams into at most `threads` shares. `sqz_load_share` decodes one
 * of them, with `sqz_loader_bytes` of memory; shares may be decoded in any order or at the same time. `sqz_end_loading`
 * returns the first error. */
sqz_status sqz_begin_loading(sqz_loading *loading, sqz_model *model, const sqz_header *header, const void *data,
                             int threads);
size_t sqz_loader_bytes(const sqz_model *model);
void sqz_load_share(sqz_loading *loading, int share, void *scratch);
sqz_status sqz_end_loading(sqz_loading *loading);

#if defined(SQZ_CODED)
/* `sqz_coded.c`: called before the first step of an image; before each step; for the weights of a convolution, NULL if
 * they are decoded panel by panel; and for each of these panels in turn. */
void sqz_coded_begin(const sqz_worker *worker);
void sqz_coded_hold(const sqz_worker *worker, int step);
uint8_t *sqz_coded_weights(const sqz_worker *worker, const sqz_conv *conv);
uint8_t *sqz_coded_panel(const sqz_worker *worker, const sqz_conv *conv, int panel);
#endif

/* Whether dot^2 * 2^16 >= threshold * norm * size; `sqz_unknown.c`. */
int sqz_unknown_is_near(uint64_t dot, uint64_t norm, uint64_t size, uint32_t threshold);

/* Whether the unkn chunk of a file is well-formed. */
sqz_status sqz_check_unknown(const sqz_header *header, const uint8_t *data);

/* `sqz_hash.c` */
uint32_t sqz_crc32(const uint8_t *data, size_t size);
void sqz_sha256(const uint8_t *data, size_t size, uint8_t digest[32]);

/* --- threads ------------------------------------------------------------------------------------------------------ */

enum { SQZ_MAX_STAGES = 2 + SQZ_MAX_FIRES, SQZ_MAX_PARTS = 0xFFFF };

typedef void sqz_task(void *context, int thread, int stage, int part);
/* Calls `task` once for each of the `parts[stage]` parts of each stage, and returns when all are done. A stage begins
 * when the one before it is done. Wakes up to `threads` - 1 threads, but any thread that is awake may take parts. */
void sqz_pool_run(sqz_pool *pool, int threads, int stages, const int *parts, sqz_task *task, void *context);

#endif
