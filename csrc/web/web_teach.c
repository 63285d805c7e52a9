/* web_teach.c - a new head for the open model, from photos: docs/teaching.md.
 *
 *     after web_run, web_codes() has the photo's feature vector as web_channels() bytes, which the page stores
 *     at = web_teach_room(photos, classes, kept), kept being how many of the model's first classes stay: write web_channels()
 *     codes for each photo there, class by class, and at web_teach_classes() the class of each (int32, ascending from 0);
 *     web_teach() -> status
 *     web_teach_rule(codes, n) -> bytes of the body of an unkn chunk, computed from these photos and n photos of none
 *     of the classes, at web_teach_chunk(); 0 if there is none
 *     web_teach_scores(): (photos, classes) doubles, each photo left out, until the next photo is read
 *     web_teach_logits() after web_run: the new head's answer, kept + classes doubles
 *     at = web_alloc(n), write JSON in UTF-8 there, likewise the body of an unkn chunk (or 0 bytes),
 *     web_teach_file(at, n, rule, m) -> status; web_teach_bytes() at web_teach_data()
 *     web_digest() -> 32 bytes that name the frozen network */
#include "web.h"

static struct {
    int classes, photos, kept, shift, is_signed, positions, room; /* room: rows of the head's memory */
    int8_t *base_weight; /* the model's own head, decoded on first use */
    int32_t *base_bias;
    float *base_multiplier;
    uint8_t *codes, *code;
    int32_t *classes_of, *bias;
    float *multiplier;
    int8_t *weight;
    double *logits;
    sqz_taught taught;
    uint8_t *file;
    size_t file_bytes;
} teach;

static size_t teach_width(void) { return (size_t)web_channels(); }

static void teach_measure(void) {
    const int side = web_map_size(), border = web_map_border();
    teach.positions = side * side;
    teach.is_signed = web_head_zero() != 0;
    teach.shift = sqz_code_shift((side - 2 * border) * (side - 2 * border), teach.is_signed);
}

WEB_EXPORT(web_codes) uint8_t *web_codes(void) {
    teach_measure();
    if (!teach.code) teach.code = web_keep(SQZ_MAX_CHANNELS);
    if (teach.code) sqz_code_features(web_features(), teach_width(), teach.shift, teach.is_signed, teach.code);
    return teach.code;
}

/* The first stream. */
static const uint8_t *teach_streams(void) {
    const int convs = web_convs();
    sqz_stream stream;
    size_t at = 0;
    for (int i = 0; i < convs; i++) {
        sqz_next_stream(web_file_header(), web_file_start(), &at, &stream); /* checked when the file was opened */
    }
    return web_file_start() + web_file_header()->weights_offset + at;
}

/* Decodes the model's streams up to `last`; the coder is then ready for the next one, and has the last one's integers. */
typedef struct {
    sqz_decoder *coder;
    int8_t *weight;
    int32_t *bias;
    float *multiplier;
    const uint8_t *streams, *next; /* the first, and the one after the last */
} teach_walk;

static int teach_decode(teach_walk *walk, int last, int head_rows) {
    sqz_conv_shape *shapes = web_alloc((size_t)web_convs() * sizeof *shapes);
    size_t largest = 0, most = 0, size, bytes, entry = 0;
    const int convs = web_convs();
    sqz_stream stream;
    void *memory;
    int status;
    for (int i = 0; i < convs; i++) {
        if (!shapes || sqz_conv_shape_of(web_opened(), (size_t)i, &shapes[i])) return SQZ_BAD_ARGUMENT;
    }
    if (head_rows > shapes[convs - 1].out_channels) shapes[convs - 1].out_channels = head_rows;
    for (int i = 0; i < convs; i++) {
        size = (size_t)shapes[i].in_channels * (size_t)(shapes[i].kernel * shapes[i].kernel) * (size_t)shapes[i].out_channels;
        if (size > largest) largest = size;
        if ((size_t)shapes[i].out_channels > most) most = (size_t)shapes[i].out_channels;
    }
    bytes = sqz_decoder_bytes(shapes, (size_t)convs);
    memory = web_alloc(bytes);
    walk->weight = web_alloc(largest);
    walk->bias = web_alloc(most * sizeof *walk->bias);
    walk->multiplier = web_alloc(most * sizeof *walk->multiplier);
    if (!memory || !walk->weight || !walk->bias || !walk->multiplier) return SQZ_NO_MEMORY;
    status = sqz_decoder_create(shapes, (size_t)convs, memory, bytes, &walk->coder);
    walk->streams = walk->next = teach_streams();
    for (int i = 0; !status; i++) {
        sqz_next_stream(web_file_header(), web_file_start(), &entry, &stream);
        if (stream.is_fresh) status = sqz_decoder_create(shapes, (size_t)convs, memory, bytes, &walk->coder);
        if (status || i > last) break;
        sqz_conv_shape_of(web_opened(), (size_t)i, &shapes[i]);
        status = sqz_decode_conv(walk->coder, walk->next, (size_t)stream.bytes, &shapes[i], walk->weight, walk->bias,
                                 walk->multiplier);
        walk->next += stream.bytes;
        if (i == convs - 1) break;
    }
    return status;
}

static int teach_read_base(void) {
    const size_t rows = (size_t)web_classes();
    teach_walk walk = SQZ_ZEROS;
    int status;
    if (teach.base_weight) return SQZ_OK;
    teach.base_bias = web_keep(rows * sizeof *teach.base_bias);
    teach.base_multiplier = web_keep(rows * sizeof *teach.base_multiplier);
    teach.base_weight = web_keep(rows * teach_width());
    if (!teach.base_bias || !teach.base_multiplier || !teach.base_weight) return SQZ_NO_MEMORY;
    status = teach_decode(&walk, web_convs() - 1, 0);
    if (status) {
        teach.base_weight = NULL;
        return status;
    }
    memcpy(teach.base_weight, walk.weight, rows * teach_width());
    memcpy(teach.base_bias, walk.bias, rows * sizeof *teach.base_bias);
    memcpy(teach.base_multiplier, walk.multiplier, rows * sizeof *teach.base_multiplier);
    return SQZ_OK;
}

WEB_EXPORT(web_teach_room) uint8_t *web_teach_room(int photos, int classes, int kept) {
    web_release();
    teach.photos = teach.classes = teach.kept = 0;
    if (photos < 1 || photos > 1 << 19 || kept < 0 || kept > web_classes() || classes < 1 || classes > 65535 - kept) return NULL;
    if (kept && teach_read_base()) return NULL;
    web_release();
    if (classes + kept > teach.room) { /* stays allocated, since the new head classifies later photos */
        const size_t count = (size_t)kept + (classes < 8 ? 8 : (size_t)classes * 2);
        teach.room = 0;
        teach.weight = web_keep(count * teach_width());
        teach.bias = web_keep(count * sizeof *teach.bias);
        teach.multiplier = web_keep(count * sizeof *teach.multiplier);
        teach.logits = web_keep(count * sizeof *teach.logits);
        if (!teach.weight || !teach.bias || !teach.multiplier || !teach.logits) return NULL;
        teach.room = (int)count;
    }
    teach.codes = web_alloc((size_t)photos * teach_width());
    teach.classes_of = web_alloc((size_t)photos * sizeof *teach.classes_of);
    if (!teach.codes || !teach.classes_of) return NULL;
    teach.photos = photos;
    teach.classes = classes;
    teach.kept = kept;
    memcpy(teach.weight, teach.base_weight, (size_t)kept * teach_width());
    memcpy(teach.bias, teach.base_bias, (size_t)kept * sizeof *teach.bias);
    memcpy(teach.multiplier, teach.base_multiplier, (size_t)kept * sizeof *teach.multiplier);
    return teach.codes;
}

WEB_EXPORT(web_teach) int web_teach(void) {
    const size_t bytes = sqz_teach_bytes(teach.photos, web_channels(), teach.classes);
    const size_t kept = (size_t)teach.kept;
    sqz_taught *taught = &teach.taught;
    double *levels = NULL;
    void *memory;
    int status;
    if (!bytes) return SQZ_BAD_ARGUMENT;
    teach_measure();
    taught->weight = web_alloc(teach_width() * (size_t)(teach.classes + 1) * sizeof(double));
    taught->centre = web_alloc(teach_width() * sizeof(int32_t));
    taught->scores = web_alloc((size_t)teach.photos * (size_t)teach.classes * sizeof(double));
    memory = web_alloc(bytes);
    if (!taught->weight || !taught->centre || !taught->scores || !memory) return SQZ_NO_MEMORY;
    if (kept) {
        levels = web_alloc((size_t)teach.photos * sizeof *levels);
        if (!levels) return SQZ_NO_MEMORY;
        sqz_teach_levels(teach.codes, teach.is_signed, teach.shift, teach.photos, web_channels(), teach.weight, teach.bias,
                         teach.multiplier, teach.kept, teach.positions, levels);
    }
    status = sqz_teach(teach.codes, teach.is_signed, teach.classes_of, levels, teach.photos, web_channels(), teach.classes,
                       memory, bytes, taught);
    if (!status) {
        sqz_teach_round(taught, web_channels(), teach.classes, teach.shift, teach.positions,
                        teach.weight + kept * teach_width(), teach.bias + kept, teach.multiplier + kept);
    }
    return status;
}

WEB_EXPORT(web_teach_logits) double *web_teach_logits(void) {
    for (int c = 0; c < teach.kept + teach.classes; c++) {
        int64_t sum = (int64_t)teach.positions * teach.bias[c];
        for (size_t k = 0; k < teach_width(); k++) {
            sum += (int64_t)teach.weight[(size_t)c * teach_width() + k] * web_features()[k];
        }
        teach.logits[c] = (double)sum * (double)teach.multiplier[c] / (double)teach.positions;
    }
    return teach.logits;
}

/* --- the file ------------------------------------------------------------------------------------------------------ */

static void teach_put(const void *data, size_t bytes) {
    memcpy(teach.file + teach.file_bytes, data, bytes);
    teach.file_bytes += bytes;
}

static void teach_put_u32(uint32_t value) {
    uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24)};
    teach_put(bytes, 4);
}

static void teach_put_varint(size_t value) {
    uint8_t byte;
    for (; value > 127; value >>= 7) {
        byte = (uint8_t)(value | 128);
        teach_put(&byte, 1);
    }
    byte = (uint8_t)value;
    teach_put(&byte, 1);
}

static size_t teach_begin_chunk(const char *type) {
    teach_put_u32(0);
    teach_put(type, 4);
    return teach.file_bytes;
}

static void teach_end_chunk(size_t start) {
    const size_t end = teach.file_bytes;
    const uint32_t crc = sqz_crc32(teach.file + start - 4, end - start + 4);
    teach.file_bytes = start - 8;
    teach_put_u32((uint32_t)(end - start));
    teach.file_bytes = end;
    teach_put_u32(crc);
}

/* One zlib stream without compression, so that the bytes do not depend on a library. */
static void teach_put_meta(const uint8_t *text, size_t bytes) {
    uint32_t a = 1, b = 0;
    const uint8_t start[2] = {0x78, 0x01};
    size_t at = 0;
    teach_put(start, 2);
    do {
        const size_t step = bytes - at < 65535 ? bytes - at : 65535;
        const uint8_t block[5] = {at + step == bytes, (uint8_t)step, (uint8_t)(step >> 8), (uint8_t)~step, (uint8_t)(~step >> 8)};
        teach_put(block, 5);
        teach_put(text + at, step);
        at += step;
    } while (at < bytes);
    for (at = 0; at < bytes; at++) a = (a + text[at]) % 65521, b = (b + a) % 65521;
    for (int shift = 24; shift >= 0; shift -= 8) {
        const uint8_t byte = (uint8_t)((b << 16 | a) >> shift);
        teach_put(&byte, 1);
    }
}

/* The model's streams unchanged, then the new head's. */
static int teach_put_weights(void) {
    teach_walk walk = SQZ_ZEROS;
    const int convs = web_convs(), rows = teach.kept + teach.classes;
    const sqz_header *header = web_file_header();
    sqz_conv_shape head;
    sqz_stream stream;
    size_t size, bytes, entry = 0;
    void *memory;
    int status = teach_decode(&walk, convs - 2, rows);
    if (!status) status = sqz_conv_shape_of(web_opened(), (size_t)convs - 1, &head);
    if (status) return status;
    head.out_channels = rows;
    bytes = sqz_encode_bytes(&head);
    memory = web_alloc(bytes);
    if (!memory) return SQZ_NO_MEMORY;
    status = sqz_encode_conv(walk.coder, &head, teach.weight, teach.bias, teach.multiplier, memory, bytes, &size);
    if (status) return status;
    for (int i = 0; i < convs; i++) { /* each written anew, because a file may have longer entries than needed */
        sqz_next_stream(header, web_file_start(), &entry, &stream);
        if (i == convs - 1) stream.bytes = size;
        teach_put_varint((size_t)(header->version > 1 ? 2 * stream.bytes + (uint64_t)stream.is_fresh : stream.bytes));
    }
    teach_put(walk.streams, (size_t)(walk.next - walk.streams));
    teach_put(memory, size);
    return SQZ_OK;
}

static const uint8_t *teach_arch(size_t *bytes) {
    const uint8_t *chunk = web_file_start() + 8;
    for (;;) {
        *bytes = chunk[0] | (size_t)chunk[1] << 8 | (size_t)chunk[2] << 16 | (size_t)chunk[3] << 24;
        if (!memcmp(chunk + 4, "ARCH", 4)) return chunk + 8;
        chunk += *bytes + 12;
    }
}

static void teach_put_arch(int classes) {
    size_t bytes, at = teach.file_bytes;
    const uint8_t *arch = teach_arch(&bytes);
    teach_put(arch, bytes);
    teach.file[at + 3] = (uint8_t)classes;
    teach.file[at + 4] = (uint8_t)(classes >> 8);
    teach.file[at + 5] &= (uint8_t)~4; /* no ReLU after the head */
}

WEB_EXPORT(web_digest) uint8_t *web_digest(void) {
    static uint8_t digest[32];
    size_t arch_bytes, entry = 0;
    const uint8_t *streams = teach_streams(), *end = streams;
    sqz_stream stream;
    for (int i = 0; i < web_convs() - 1; i++) {
        sqz_next_stream(web_file_header(), web_file_start(), &entry, &stream);
        end += stream.bytes;
    }
    teach_arch(&arch_bytes);
    teach.file = web_alloc(arch_bytes + (size_t)(end - streams));
    if (!teach.file) return NULL;
    teach.file_bytes = 0;
    teach_put_arch(0);
    teach_put(streams, (size_t)(end - streams));
    sqz_sha256(teach.file, teach.file_bytes, digest);
    return digest;
}

WEB_EXPORT(web_teach_file) int web_teach_file(const uint8_t *meta, size_t bytes, const uint8_t *rule, size_t rule_bytes) {
    size_t arch_bytes, at;
    uint8_t digest[32];
    int status;
    if (!teach.classes) return SQZ_BAD_ARGUMENT;
    teach_arch(&arch_bytes);
    teach.file = web_alloc(arch_bytes + web_file_header()->weights_bytes + bytes + bytes / 4096 + rule_bytes + 4096 +
                           (size_t)(teach.kept + teach.classes) * (teach_width() * 18 + 64));
    if (!teach.file) return SQZ_NO_MEMORY;
    teach.file_bytes = 0;
    teach_put(web_file_start(), 8);
    at = teach_begin_chunk("ARCH");
    teach_put_arch(teach.kept + teach.classes);
    teach_end_chunk(at);
    at = teach_begin_chunk("WGHT");
    status = teach_put_weights();
    if (status) return status;
    teach_end_chunk(at);
    at = teach_begin_chunk("META");
    teach_put_meta(meta, bytes);
    teach_end_chunk(at);
    if (rule_bytes) {
        at = teach_begin_chunk("unkn");
        teach_put(rule, rule_bytes);
        teach_end_chunk(at);
    }
    sqz_sha256(teach.file, teach.file_bytes, digest);
    at = teach_begin_chunk("HASH");
    teach_put(digest, 32);
    teach_end_chunk(at);
    return SQZ_OK;
}

WEB_EXPORT(web_teach_classes) int32_t *web_teach_classes(void) { return teach.classes_of; }
WEB_EXPORT(web_teach_scores) double *web_teach_scores(void) { return teach.taught.scores; }
WEB_EXPORT(web_teach_exponent) int web_teach_exponent(void) { return teach.taught.exponent; }
WEB_EXPORT(web_teach_gain) int web_teach_gain(void) { return teach.taught.gain; }
WEB_EXPORT(web_teach_data) uint8_t *web_teach_data(void) { return teach.file; }
WEB_EXPORT(web_teach_bytes) size_t web_teach_bytes(void) { return teach.file_bytes; }

static uint8_t *teach_chunk;
WEB_EXPORT(web_teach_chunk) uint8_t *web_teach_chunk(void) { return teach_chunk; }

/* Photos count if the head fitted to all others classifies them correctly. */
WEB_EXPORT(web_teach_rule) size_t web_teach_rule(const uint8_t *foreign_codes, size_t foreign) {
    sqz_novelty photos = SQZ_ZEROS;
    const double *scores = teach.taught.scores;
    uint8_t *right;
    size_t bytes;
    void *memory;
    photos.codes = teach.codes;
    photos.labels = teach.classes_of;
    photos.foreign_codes = foreign_codes;
    photos.foreign = foreign;
    photos.photos = (size_t)teach.photos;
    photos.channels = web_channels();
    photos.classes = teach.classes;
    photos.shift = teach.shift;
    photos.is_signed = teach.is_signed;
    bytes = sqz_novelty_bytes(&photos);
    if (!bytes) return 0;
    right = web_alloc(photos.photos);
    teach_chunk = web_alloc(3 + (size_t)teach.classes * (teach_width() + 1) / 2 + (size_t)teach.classes);
    memory = web_alloc(bytes);
    if (!right || !teach_chunk || !memory) return 0;
    for (size_t i = 0; i < photos.photos; i++, scores += teach.classes) {
        int best = 0;
        for (int c = 1; c < teach.classes; c++) best = scores[c] > scores[best] ? c : best;
        right[i] = best == teach.classes_of[i];
    }
    photos.counts = right;
    return sqz_fit_unknown(&photos, memory, bytes, teach_chunk);
}
