/* sqz_web.c - the engine as a WebAssembly module without imports: one model per instance, memory never shrinks.
 *
 *     web_use_relaxed(pack, conv, has_dot) with places in this module's table, if the browser supports web_relaxed.c
 *     p = web_alloc(n), write the file there, web_open(p, n) -> status
 *     web_input_size(), web_classes(), web_map_size(), web_meta(), web_meta_bytes()
 *     write pixels at web_pixels() (or see web_pixels.c), web_run(wants_map) -> status, read doubles at web_logits() and web_map(),
 *     and web_channels() int32 at web_features(); web_unknown() */
#include "web.h"

/* The compiler turns these into memory.copy and memory.fill. */
void *memcpy(void *to, const void *from, size_t count) { return __builtin_memcpy(to, from, count); }
void *memset(void *to, int value, size_t count) { return __builtin_memset(to, value, count); }
int memcmp(const void *a, const void *b, size_t count) {
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < count; i++) {
        if (x[i] != y[i]) return x[i] - y[i];
    }
    return 0;
}

extern uint8_t __heap_base;
static uintptr_t web_top, web_kept;
static sqz_header web_header;
static sqz_sizes web_sizes;
static sqz_model *web_model;
static const uint8_t *web_file;
static uint8_t *web_arena, *web_image;
static double *web_scores, *web_maps;
static int32_t *web_sums;
static int web_width; /* number of features of an image */

static int (*web_relaxed_pack)(uint8_t *panel, int runs, int groups, int32_t *bias);
static void (*web_relaxed_conv)(const sqz_conv_job *job, int has_dot);
static int web_has_dot;
static sqz_kernels web_kernels;

WEB_EXPORT(web_alloc) void *web_alloc(size_t bytes) {
    enum { PAGE = 65536 };
    uintptr_t at = (web_top ? web_top : (uintptr_t)&__heap_base) + (SQZ_ALIGN - 1);
    size_t have = __builtin_wasm_memory_size(0) * (size_t)PAGE, end;
    at -= at % SQZ_ALIGN;
    end = at + bytes;
    if (end < at) return NULL;
    if (end > have && __builtin_wasm_memory_grow(0, (end - have + PAGE - 1) / PAGE) == (size_t)-1) return NULL;
    web_top = end;
    return (void *)at;
}

void web_release(void) { web_top = web_kept; }

static void web_conv(const sqz_conv_job *job) {
    int wide = 0;
    for (int panel = 0; panel < job->panels; panel++) wide += job->kinds[panel] == SQZ_PANEL_WIDE;
    if (wide < job->panels) web_relaxed_conv(job, web_has_dot);
    if (wide) sqz_wasm_kernels.conv(job);
}

WEB_EXPORT(web_use_relaxed) void web_use_relaxed(int (*pack)(uint8_t *panel, int runs, int groups, int32_t *bias),
                                                 void (*conv)(const sqz_conv_job *job, int has_dot), int has_dot) {
    web_relaxed_pack = pack;
    web_relaxed_conv = conv;
    web_has_dot = has_dot;
}

static void web_relax(sqz_model *model) {
    if (!web_relaxed_pack) return;
    for (size_t i = 0; i < model->n_convs; i++) {
        sqz_conv *conv = &model->convs[i];
        for (int panel = 0; panel < conv->panels; panel++) {
            conv->kinds[panel] = (uint8_t)web_relaxed_pack(conv->weights + (size_t)panel * conv->panel_bytes, conv->runs,
                                                           conv->groups, conv->bias + panel * SQZ_LANES);
        }
    }
    web_kernels = sqz_wasm_kernels;
    web_kernels.conv = web_conv;
    model->kernels = &web_kernels;
}

void *web_keep(size_t bytes) {
    void *memory;
    web_release();
    memory = web_alloc(bytes);
    web_kept = web_top;
    return memory;
}

WEB_EXPORT(web_open) int web_open(const uint8_t *file, size_t bytes) {
    sqz_status status = sqz_read_header(file, bytes, NULL, &web_header);
    sqz_conv_shape head = SQZ_ZEROS;
    size_t size, map;
    void *memory, *scratch;
    web_model = NULL;
    if (!status) status = sqz_measure(&web_header.spec, NULL, &web_sizes);
    if (status) return status;
    size = web_header.spec.input_size;
    map = (size_t)web_sizes.map_size * (size_t)web_sizes.map_size;
    web_file = file;
    memory = web_alloc(web_sizes.model_bytes);
    web_image = web_alloc(size * size * 3);
    web_scores = web_alloc(sizeof(double) * web_header.spec.num_classes);
    web_maps = web_alloc(sizeof(double) * web_header.spec.num_classes * map);
    web_sums = web_alloc(sizeof(int32_t) * SQZ_MAX_CHANNELS);
    /* The weights are unpacked before the activations are needed: one block serves both. */
    scratch = web_alloc(web_sizes.load_bytes > web_sizes.arena_bytes ? web_sizes.load_bytes : web_sizes.arena_bytes);
    web_arena = scratch;
    if (!memory || !web_image || !web_scores || !web_maps || !web_sums || !scratch) return SQZ_NO_MEMORY;
    status = sqz_create(&web_header.spec, NULL, memory, web_sizes.model_bytes, &web_model);
    if (!status) status = sqz_load(web_model, &web_header, file, scratch, web_sizes.load_bytes);
    if (!status) status = sqz_conv_shape_of(web_model, web_sizes.n_convs - 1, &head);
    web_width = head.in_channels;
    if (status) {
        web_model = NULL;
    } else {
        web_relax(web_model);
    }
    web_kept = web_top;
    return status;
}

WEB_EXPORT(web_run) int web_run(int wants_map) {
    if (!web_model) return SQZ_BAD_ARGUMENT;
    return sqz_run_features(web_model, NULL, web_arena, web_sizes.arena_bytes, web_image, 1, web_scores,
                            wants_map ? web_maps : NULL, web_sums);
}

/* Whether the last image shows none of the classes by the body of an unkn chunk, as from `web_teach_rule`: 1 or 0. */
WEB_EXPORT(web_is_unknown) int web_is_unknown(const uint8_t *chunk) {
    const sqz_unknown rule = {chunk + 3, chunk[0], web_width, chunk[1] | (uint32_t)chunk[2] << 8};
    return sqz_is_unknown(&rule, web_sums);
}

/* Whether the last image shows none of the classes: 1 or 0, or -1 if the file has no rule for it. */
WEB_EXPORT(web_unknown) int web_unknown(void) {
    sqz_unknown rule;
    return sqz_unknown_rule(&web_header, web_file, &rule) ? -1 : sqz_is_unknown(&rule, web_sums);
}

const sqz_model *web_opened(void) { return web_model; }
const uint8_t *web_file_start(void) { return web_file; }
const sqz_header *web_file_header(void) { return &web_header; }
int web_convs(void) { return (int)web_sizes.n_convs; }
int web_head_zero(void) { return web_model->head->in_zero; }

WEB_EXPORT(web_input_size) int web_input_size(void) { return web_header.spec.input_size; }
WEB_EXPORT(web_classes) int web_classes(void) { return web_header.spec.num_classes; }
WEB_EXPORT(web_map_size) int web_map_size(void) { return web_sizes.map_size; }
WEB_EXPORT(web_map_border) int web_map_border(void) { return web_header.spec.head_padding; }
WEB_EXPORT(web_meta) const uint8_t *web_meta(void) { return web_file + web_header.meta_offset; }
WEB_EXPORT(web_meta_bytes) size_t web_meta_bytes(void) { return web_header.meta_bytes; }
WEB_EXPORT(web_pixels) uint8_t *web_pixels(void) { return web_image; }
WEB_EXPORT(web_logits) double *web_logits(void) { return web_scores; }
WEB_EXPORT(web_map) double *web_map(void) { return web_maps; }
WEB_EXPORT(web_features) int32_t *web_features(void) { return web_sums; }
WEB_EXPORT(web_channels) int web_channels(void) { return web_width; }
