/* squeezenet.h - run `.sqz` image classifiers: the integer network of docs/format.md in C99.
 *
 * Nothing here allocates, keeps global state, prints, or aborts. The caller owns all memory: query the sizes, pass
 * blocks of memory, and keep them alive while they are in use. Functions check all bytes of a file before they use
 * them. Results are bit-identical on every processor, for every kernel set and any number of threads.
 *
 *     sqz_header header;                       sqz_sizes sizes;
 *     sqz_read_header(data, n, NULL, &header);          // container, checksums, architecture
 *     sqz_measure(&header.spec, NULL, &sizes);          // how much memory the rest needs
 *     sqz_create(&header.spec, NULL, block, sizes.model_bytes, &model);
 *     sqz_load(model, &header, data, scratch, sizes.load_bytes);        // decode and pack the weights
 *     sqz_run(model, NULL, arena, sizes.arena_bytes, pixels, 1, logits, NULL);
 *
 * A loaded model is read-only: any number of threads may run it, each with an arena of its own.
 */
#ifndef SQUEEZENET_H
#define SQUEEZENET_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef SQZ_API
#if defined(_WIN32) && defined(SQZ_BUILD_SHARED)
#define SQZ_API __declspec(dllexport)
#elif defined(__GNUC__)
#define SQZ_API __attribute__((visibility("default")))
#else
#define SQZ_API
#endif
#endif

/* Increased whenever a function or a status changes its meaning. `sqz_abi` covers changes of structs. */
#define SQZ_ABI_VERSION 4

typedef enum {
    SQZ_OK = 0,
    SQZ_BAD_MAGIC,           /* not a `.sqz` file */
    SQZ_TRUNCATED,           /* shorter than its own length fields state */
    SQZ_CHECKSUM_MISMATCH,   /* the file is damaged: its bytes differ from those that were written */
    SQZ_UNSUPPORTED_VERSION, /* a newer format, or an unknown critical chunk */
    SQZ_LIMIT_EXCEEDED,      /* asks for more than the limits allow */
    SQZ_BAD_TABLE,           /* fields that contradict each other or lie outside their range */
    SQZ_BAD_ARGUMENT,        /* an error of the caller: a null pointer, a wrong index, an incomplete model */
    SQZ_NO_MEMORY,           /* a block is smaller than `sqz_measure` requires */
    SQZ_NO_KERNEL            /* the requested kernel set is not in this build or not supported by the processor */
} sqz_status;

/* Largest sizes that a reader accepts. */
typedef struct {
    size_t file_bytes; /* default 64 MiB */
    size_t weights;    /* default 2^24 */
} sqz_limits;

enum { SQZ_MAX_FIRES = 64, SQZ_MAX_TENSORS = 2 + 4 * SQZ_MAX_FIRES };

enum { SQZ_BYPASS_NONE = 0, SQZ_BYPASS_SIMPLE = 1, SQZ_BYPASS_COMPLEX = 2 };

typedef struct {
    float scale;
    uint8_t zero_point;
} sqz_tensor;

typedef struct {
    uint16_t squeeze_channels, expand1x1_channels, expand3x3_channels;
} sqz_fire_spec;

/* An architecture and the quantisation of its activations: the whole network except its weights. */
typedef struct {
    uint16_t input_size; /* height and width in pixels */
    uint16_t num_classes;
    uint16_t stem_channels;
    uint8_t stem_kernel, stem_stride, stem_padding;
    uint8_t bypass; /* SQZ_BYPASS_* */
    uint8_t pool_ceil_mode, squeeze_relu, head_relu, head_padding;
    uint8_t n_fires;
    uint8_t has_pool[SQZ_MAX_FIRES + 2]; /* by paper number: [1] follows conv1, [2] fire2, ... */
    sqz_fire_spec fires[SQZ_MAX_FIRES];
    uint16_t n_tensors;
    sqz_tensor tensors[SQZ_MAX_TENSORS]; /* in file order: input, conv1; of each Fire squeeze, expand, bypass, add */
} sqz_spec;

typedef struct {
    sqz_spec spec;
    size_t weights_offset, weights_bytes; /* the WGHT chunk's data within the file */
    size_t meta_offset, meta_bytes;       /* the META chunk's data (deflated JSON), or 0 bytes */
    size_t unknown_offset, unknown_bytes; /* the unkn chunk's data, or 0 bytes; see `sqz_unknown_rule` */
    uint8_t version;                      /* of the format, 1 or 2 */
} sqz_header;

/* Shape of one convolution, in the order weights are stored in. */
typedef struct {
    int in_channels, out_channels, kernel;
} sqz_conv_shape;

/* Options for running a network; NULL means all zeros. They influence memory and speed, but not results. */
typedef struct {
    const char *kernels; /* a name, or NULL for the best set of this processor */
    int threads;         /* number of threads that `arena_bytes` and `load_bytes` are computed for; 0 means 1 */
    int band_rows;       /* rows of a layer computed at a time: 0 for the fastest number, 1 for the least memory */
    int streamed;        /* number of Fire modules, from the first on, that keep only a few rows of their input; they run
                          * on one thread. -1 for the number that needs the least memory */
} sqz_options;

typedef struct {
    size_t model_bytes; /* for `sqz_create` */
    size_t load_bytes;  /* scratch for `sqz_load`, free afterwards */
    size_t arena_bytes; /* for `sqz_run`: peak of all activations for that number of threads */
    size_t n_convs;
    size_t n_weights; /* weights and biases */
    uint64_t n_macs;  /* multiply-accumulates per image */
    int map_size;     /* height and width of the class activation map */
} sqz_sizes;

typedef struct sqz_model sqz_model;
typedef struct sqz_pool sqz_pool;
typedef struct sqz_decoder sqz_decoder;

/* CRC-32 of SQZ_ABI_VERSION and of the sizes and offsets above, as compiled: a program in another language that loads
 * the library compares it with those of its own structs. `sqz_abi.c` lists them. */
SQZ_API uint32_t sqz_abi(void);

/* One short English sentence for a status. */
SQZ_API const char *sqz_status_text(sqz_status status);

/* Check a whole file's frame, checksums and architecture. `limits` may be NULL for the defaults. Allocates nothing and
 * takes time linear in `size`. */
SQZ_API sqz_status sqz_read_header(const void *data, size_t size, const sqz_limits *limits, sqz_header *header);

/* Memory needs of a network. */
SQZ_API sqz_status sqz_measure(const sqz_spec *spec, const sqz_options *options, sqz_sizes *sizes);

/* Set up a model without weights in `memory` (any alignment), which must outlive it. `options` as for `sqz_measure`,
 * except for the number of threads. */
SQZ_API sqz_status sqz_create(const sqz_spec *spec, const sqz_options *options, void *memory, size_t bytes,
                              sqz_model **model);

/* Shape of convolution `index` (0 to n_convs - 1). */
SQZ_API sqz_status sqz_conv_shape_of(const sqz_model *model, size_t index, sqz_conv_shape *shape);

/* Decode and pack all weights of the file that `header` was read from. */
SQZ_API sqz_status sqz_load(sqz_model *model, const sqz_header *header, const void *data, void *scratch, size_t bytes);

/* The same with two threads of a pool, if `load_bytes` was measured for at least two threads and the file has two parts
 * that can be decoded at the same time. Most files of version 2 have. */
SQZ_API sqz_status sqz_load_shared(sqz_model *model, sqz_pool *pool, const sqz_header *header, const void *data,
                                   void *scratch, size_t bytes);

/* Set the integers of one convolution; they are copied: weight (O, I, k, k), bias (O), multiplier (O).
 * SQZ_BAD_TABLE if a value is out of range or a sum could leave int32. */
SQZ_API sqz_status sqz_set_conv(sqz_model *model, size_t index, const int8_t *weight, const int32_t *bias,
                                const float *multiplier);

/* Decode streams one by one, in the order of the network, because the adaptive state is carried from stream to stream;
 * a stream that a file marks as a new start needs a new decoder.
 * `shapes` are those of all convolutions that will be decoded; a result of 0 bytes means that they are impossible. */
SQZ_API size_t sqz_decoder_bytes(const sqz_conv_shape *shapes, size_t count);
SQZ_API sqz_status sqz_decoder_create(const sqz_conv_shape *shapes, size_t count, void *memory, size_t bytes,
                                      sqz_decoder **decoder);

/* Decode the next convolution's stream into (O, I, k, k), (O) and (O). After an error, create a new decoder. */
SQZ_API sqz_status sqz_decode_conv(sqz_decoder *decoder, const void *stream, size_t size, const sqz_conv_shape *shape,
                                   int8_t *weight, int32_t *bias, float *multiplier);

/* Encode the next convolution instead, with the state after all streams decoded or encoded so far. The stream is
 * written to the beginning of `memory`, which must have `sqz_encode_bytes`. Without `bias` and `multiplier`, the stream
 * has only weights, as in exported C, which decodes them row by row; such streams do not occur in files. SQZ_BAD_TABLE
 * if a multiplier is negative, or a bias or weight is the lowest of its type. */
SQZ_API size_t sqz_encode_bytes(const sqz_conv_shape *shape);
SQZ_API sqz_status sqz_encode_conv(sqz_decoder *coder, const sqz_conv_shape *shape, const int8_t *weight,
                                   const int32_t *bias, const float *multiplier, void *memory, size_t bytes,
                                   size_t *size);

/* Classify `count` images.
 *   pool    NULL to use the calling thread alone
 *   arena   at least `arena_bytes` measured for the pool's number of threads
 *   pixels  raw RGB, (count, H, W, 3)
 *   logits  (count, classes), or NULL
 *   map     (count, h, w, classes), the tensor whose mean over positions is the logit, or NULL */
SQZ_API sqz_status sqz_run(const sqz_model *model, sqz_pool *pool, void *arena, size_t arena_bytes,
                           const uint8_t *pixels, size_t count, double *logits, double *map);

/* The same; also computes the feature vectors: the head's input, minus its zero-point, summed over positions.
 *   features  (count, channels), or NULL; channels are those of the last convolution's `sqz_conv_shape_of` */
SQZ_API sqz_status sqz_run_features(const sqz_model *model, sqz_pool *pool, void *arena, size_t arena_bytes,
                                    const uint8_t *pixels, size_t count, double *logits, double *map,
                                    int32_t *features);

/* Writes row `row` of the input, W * 3 bytes of RGB, to `rgb`; returns 0, or anything else to end the run. */
typedef int sqz_row_source(void *context, int row, uint8_t *rgb);

/* Classify one image whose rows a function supplies. It is called at most once per row, from the top down, and only
 * for rows that the network reads. `arena`, `logits`, `map` and `features` as for `sqz_run_features`. SQZ_TRUNCATED if
 * the source ended the run. */
SQZ_API sqz_status sqz_run_rows(const sqz_model *model, void *arena, size_t arena_bytes, sqz_row_source *source,
                                void *context, double *logits, double *map, int32_t *features);

/* The rule for photos that show none of the classes: one vector of features per class, and a threshold. A photo is
 * known if its squared cosine to one of the vectors, times 2^16, is at least the threshold. */
typedef struct {
    const uint8_t *vectors; /* (count, channels), two numbers of 0 to 15 per byte; each vector starts at a whole byte */
    int count, channels;
    uint32_t threshold;
} sqz_unknown;

/* The rule of the file that `header` was read from; its vectors point into `data`. SQZ_BAD_ARGUMENT if the file has no
 * rule. */
SQZ_API sqz_status sqz_unknown_rule(const sqz_header *header, const void *data, sqz_unknown *rule);

enum { SQZ_MAX_UNKNOWN = 64 /* vectors of a rule */ };

/* Photos from which a rule is computed: their features, coded by `sqz_code_features`. */
typedef struct {
    const uint8_t *codes;         /* (photos, channels) */
    const int32_t *labels;        /* (photos), 0 to classes - 1 */
    const uint8_t *counts;        /* (photos), 1 for those that the network classifies correctly; or NULL */
    const uint8_t *foreign_codes; /* (foreign, channels), of photos that show none of the classes */
    size_t photos, foreign;
    int channels, classes, shift, is_signed;
} sqz_novelty;

/* Memory for `sqz_fit_unknown`; 0 if the numbers are out of range, such as more than SQZ_MAX_UNKNOWN classes. */
SQZ_API size_t sqz_novelty_bytes(const sqz_novelty *photos);

/* Make a rule: write the body of an unkn chunk, at most 3 + classes * (channels + 1) / 2 bytes, and return its size; 0
 * if an argument is wrong. */
SQZ_API size_t sqz_fit_unknown(const sqz_novelty *photos, void *memory, size_t bytes, uint8_t *chunk);

/* Whether an image with these `rule->channels` features shows none of the classes: 1 or 0. */
SQZ_API int sqz_is_unknown(const sqz_unknown *rule, const int32_t *features);

/* Teach a new head: docs/teaching.md. A feature vector is stored as one byte per channel, whose unit is 2^shift. */
SQZ_API int sqz_code_shift(int positions, int is_signed); /* is_signed: the zero-point of the head's input is not 0 */
SQZ_API void sqz_code_features(const int32_t *features, size_t count, int shift, int is_signed, uint8_t *codes);

/* A head before it is rounded, in memory of the caller. */
typedef struct {
    double *weight;  /* (channels, classes); with levels, one more column */
    int32_t *centre; /* (channels) */
    double *scores;  /* (photos, classes): leave-one-out scores; about 1 for a photo's class, 0 for others */
    int exponent, gain;
    double base; /* used with levels only */
    int has_levels;
} sqz_taught;

/* Fit a head to photos: codes (photos, channels), the class of each photo in ascending order, at least one photo per
 * class. `levels` are each photo's largest logit of the kept classes, or NULL if none are kept. `memory` must have
 * `sqz_teach_bytes`, which is 0 if the numbers are out of range. */
SQZ_API size_t sqz_teach_bytes(int photos, int channels, int classes);
SQZ_API sqz_status sqz_teach(const uint8_t *codes, int is_signed, const int32_t *classes_of, const double *levels,
                             int photos, int channels, int classes, void *memory, size_t bytes, sqz_taught *taught);

/* Compute these levels from a head's integers, without its ReLU. */
SQZ_API void sqz_teach_levels(const uint8_t *codes, int is_signed, int shift, int photos, int channels,
                              const int8_t *weight, const int32_t *bias, const float *multiplier, int classes,
                              int positions, double *levels);

/* Round a head to the integers of a file: weight (classes, channels), bias and multiplier (classes). A logit is the
 * mean over `positions` positions. */
SQZ_API void sqz_teach_round(const sqz_taught *taught, int channels, int classes, int shift, int positions, int8_t *weight,
                             int32_t *bias, float *multiplier);

/* Name of a model's kernel set; and of the sets in this build that this processor can run, best first, or NULL. */
SQZ_API const char *sqz_kernels_of(const sqz_model *model);
SQZ_API const char *sqz_kernels_name(int index);

/* Multiply in registers only, as fast as the kernel set's instructions allow, and return the number of
 * multiply-accumulates: timed, this gives the processor's peak. 0 if the set has no such loop. */
SQZ_API uint64_t sqz_peak(const char *kernels, uint32_t rounds);

/* Threads that wait for work. `memory` must outlive the pool; `sqz_pool_destroy` joins the threads.
 * SQZ_NO_MEMORY also if the system refuses a thread. A pool serves one call at a time. */
SQZ_API size_t sqz_pool_bytes(int threads);
SQZ_API sqz_status sqz_pool_create(int threads, void *memory, size_t bytes, sqz_pool **pool);
SQZ_API void sqz_pool_destroy(sqz_pool *pool);
SQZ_API int sqz_pool_threads(const sqz_pool *pool);

#ifdef __cplusplus
}
#endif
#endif
