/* sqz_parse.c - the container and its ARCH chunk, as docs/format.md specifies. Every byte is checked as hostile input. */
#include "sqz_internal.h"

enum { PARSE_VERSION = 2, PARSE_OVERHEAD = 12, PARSE_MAX_CHUNKS = 64, PARSE_CRITICAL = 4, PARSE_KNOWN = 5 };

/* Reads the fields of a chunk in order; after a read past its end, `failed` is set and all fields are 0. */
typedef struct {
    const uint8_t *data;
    size_t size, offset;
    int failed;
} parse_reader;

static const uint8_t *parse_take(parse_reader *reader, size_t count) {
    const uint8_t *at = reader->data + reader->offset;
    if (count > reader->size - reader->offset) {
        reader->failed = 1;
        return NULL;
    }
    reader->offset += count;
    return at;
}

static uint32_t parse_uint(parse_reader *reader, int bytes) {
    const uint8_t *at = parse_take(reader, (size_t)bytes);
    uint32_t value = 0;
    for (int i = 0; at && i < bytes; i++) value |= (uint32_t)at[i] << 8 * i;
    return value;
}

static uint32_t parse_uint32_at(const uint8_t *at) {
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static int parse_is_utf8(const uint8_t *text, size_t size) {
    size_t i = 0;
    while (i < size) {
        uint32_t code = text[i++];
        int more = code < 0x80 ? 0 : code >> 5 == 6 ? 1 : code >> 4 == 14 ? 2 : code >> 3 == 30 ? 3 : -1;
        static const uint32_t smallest[4] = {0, 0x80, 0x800, 0x10000};
        if (more < 0 || (size_t)more > size - i) return 0;
        if (more) code &= 0x3Fu >> more;
        for (int k = 0; k < more; k++) {
            if (text[i] >> 6 != 2) return 0;
            code = code << 6 | (text[i++] & 0x3F);
        }
        if (code < smallest[more] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return 0;
    }
    return 1;
}

/* Fields are read in the order of docs/format.md, and the first wrong one is reported. `left` is the number of bytes after
 * the tensors, which `sqz_plan` counts. */
static sqz_status parse_arch(const uint8_t *data, size_t size, sqz_spec *spec, size_t *left) {
    parse_reader reader = {data, size, 0, 0};
    uint32_t flags, n_fires, n_pools, name_bytes;
    const uint8_t *pools, *name;
    memset(spec, 0, sizeof *spec);
    if (size && (data[0] < 1 || data[0] > PARSE_VERSION)) return SQZ_UNSUPPORTED_VERSION;
    parse_uint(&reader, 1);
    spec->input_size = (uint16_t)parse_uint(&reader, 2);
    spec->num_classes = (uint16_t)parse_uint(&reader, 2);
    flags = parse_uint(&reader, 1);
    spec->pool_ceil_mode = flags & 1;
    spec->squeeze_relu = flags >> 1 & 1;
    spec->head_relu = flags >> 2 & 1;
    spec->head_padding = flags >> 3 & 1;
    spec->bypass = (uint8_t)(flags >> 4);
    spec->stem_channels = (uint16_t)parse_uint(&reader, 2);
    spec->stem_kernel = (uint8_t)parse_uint(&reader, 1);
    spec->stem_stride = (uint8_t)parse_uint(&reader, 1);
    spec->stem_padding = (uint8_t)parse_uint(&reader, 1);
    n_fires = parse_uint(&reader, 1);
    if (reader.failed) return SQZ_TRUNCATED;
    if (spec->bypass > SQZ_BYPASS_COMPLEX) return SQZ_BAD_TABLE;
    for (uint32_t i = 0; i < n_fires; i++) {
        sqz_fire_spec *fire = &spec->fires[i % SQZ_MAX_FIRES];
        fire->squeeze_channels = (uint16_t)parse_uint(&reader, 2);
        fire->expand1x1_channels = (uint16_t)parse_uint(&reader, 2);
        fire->expand3x3_channels = (uint16_t)parse_uint(&reader, 2);
    }
    n_pools = parse_uint(&reader, 1);
    pools = parse_take(&reader, n_pools);
    name_bytes = parse_uint(&reader, 1);
    if (reader.failed) return SQZ_TRUNCATED;
    if (name_bytes > SQZ_MAX_NAME) return SQZ_BAD_TABLE;
    name = parse_take(&reader, name_bytes);
    if (reader.failed) return SQZ_TRUNCATED;
    if (n_fires > SQZ_MAX_FIRES) return SQZ_BAD_TABLE;
    spec->n_fires = (uint8_t)n_fires;
    for (uint32_t i = 0; i < n_pools; i++) {
        if (pools[i] < 1 || pools[i] > spec->n_fires + 1 || (i && pools[i] <= pools[i - 1])) return SQZ_BAD_TABLE;
        spec->has_pool[pools[i]] = 1;
    }
    if (!parse_is_utf8(name, name_bytes)) return SQZ_BAD_TABLE;
    while (size - reader.offset >= 5 && spec->n_tensors < SQZ_MAX_TENSORS) {
        uint32_t bits = parse_uint(&reader, 4);
        memcpy(&spec->tensors[spec->n_tensors].scale, &bits, 4);
        spec->tensors[spec->n_tensors++].zero_point = (uint8_t)parse_uint(&reader, 1);
    }
    *left = size - reader.offset;
    return SQZ_OK;
}

static int parse_is_letter(uint8_t byte) { return (byte | 32) >= 'a' && (byte | 32) <= 'z'; }

sqz_status sqz_read_header(const void *data, size_t size, const sqz_limits *limits, sqz_header *header) {
    static const uint8_t signature[8] = {0x89, 'S', 'Q', 'Z', '\r', '\n', 0x1A, '\n'};
    static const char known[PARSE_KNOWN][5] = {"ARCH", "WGHT", "META", "HASH", "unkn"};
    static const sqz_limits defaults = {(size_t)64 << 20, (size_t)1 << 24};
    const uint8_t *bytes = (const uint8_t *)data, *seen[PARSE_MAX_CHUNKS];
    size_t left, offset = sizeof signature, lengths[PARSE_KNOWN] = {0}, offsets[PARSE_KNOWN] = {0};
    int n_seen = 0, last_known = -1, is_in_order = 1;
    sqz_sizes sizes;
    sqz_model model;
    sqz_status status;
    if (!limits) limits = &defaults;
    if (!header || (!data && size)) return SQZ_BAD_ARGUMENT;
    memset(header, 0, sizeof *header);
    if (size > limits->file_bytes) return SQZ_LIMIT_EXCEEDED;
    if (size < sizeof signature) return size && memcmp(bytes, signature, size) ? SQZ_BAD_MAGIC : SQZ_TRUNCATED;
    if (memcmp(bytes, signature, sizeof signature)) return SQZ_BAD_MAGIC;
    do {
        const uint8_t *chunk = bytes + offset;
        size_t length;
        int which = -1;
        if (size - offset < PARSE_OVERHEAD) return SQZ_TRUNCATED;
        length = parse_uint32_at(chunk);
        if (length > size - offset - PARSE_OVERHEAD) return SQZ_TRUNCATED;
        if (sqz_crc32(chunk + 4, length + 4) != parse_uint32_at(chunk + 8 + length)) return SQZ_CHECKSUM_MISMATCH;
        if (n_seen == PARSE_MAX_CHUNKS) return SQZ_LIMIT_EXCEEDED;
        for (int i = 0; i < n_seen; i++) {
            if (!memcmp(seen[i] + 4, chunk + 4, 4)) return SQZ_BAD_TABLE;
        }
        seen[n_seen++] = chunk;
        for (int i = 0; i < PARSE_KNOWN; i++) {
            if (!memcmp(chunk + 4, known[i], 4)) which = i;
        }
        if (which == 3) {
            uint8_t digest[32];
            sqz_sha256(bytes, offset, digest);
            if (length != 32 || memcmp(digest, chunk + 8, 32)) return SQZ_CHECKSUM_MISMATCH;
        }
        for (int i = 4; i < 8; i++) {
            if (!parse_is_letter(chunk[i])) return SQZ_BAD_TABLE;
        }
        if (which < 0 && !(chunk[4] & 32)) return SQZ_UNSUPPORTED_VERSION;
        if (which >= 0) {
            if (which < last_known) is_in_order = 0;
            if (which < PARSE_CRITICAL) last_known = which;
            offsets[which] = offset + 8;
            lengths[which] = length;
        }
        offset += PARSE_OVERHEAD + length;
    } while (last_known != 3);
    if (offset != size || !is_in_order || !offsets[0] || !offsets[1]) return SQZ_BAD_TABLE;
    status = parse_arch(bytes + offsets[0], lengths[0], &header->spec, &left);
    if (status) return status;
    status = sqz_plan(&header->spec, NULL, NULL, &model, NULL, &sizes);
    if (status || left) return status ? status : SQZ_BAD_TABLE;
    if (sizes.n_weights > limits->weights) return SQZ_LIMIT_EXCEEDED;
    header->version = bytes[offsets[0]];
    header->weights_offset = offsets[1];
    header->weights_bytes = lengths[1];
    header->meta_offset = offsets[2];
    header->meta_bytes = lengths[2];
    header->unknown_offset = offsets[4];
    header->unknown_bytes = lengths[4];
    return offsets[4] ? sqz_check_unknown(header, bytes) : SQZ_OK;
}

const char *sqz_status_text(sqz_status status) {
    switch (status) {
        case SQZ_OK: return "no error";
        case SQZ_BAD_MAGIC: return "not a .sqz file";
        case SQZ_TRUNCATED: return "the data ends before its own lengths say that it does";
        case SQZ_CHECKSUM_MISMATCH: return "the file is damaged: a checksum does not match";
        case SQZ_UNSUPPORTED_VERSION: return "the file is of a newer format";
        case SQZ_LIMIT_EXCEEDED: return "the file asks for more memory or time than the limits allow";
        case SQZ_BAD_TABLE: return "fields contradict each other or lie outside their range";
        case SQZ_BAD_ARGUMENT: return "an argument that the function cannot take";
        case SQZ_NO_MEMORY: return "a block of memory is smaller than needed";
        case SQZ_NO_KERNEL: return "this processor or build lacks the kernel set";
    }
    return "unknown status";
}
