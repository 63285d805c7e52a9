/* sqz_novelty.c - computes the rule that recognises photos of none of the classes: docs/format.md, "Unknown". */
#include "sqz_internal.h"

enum { NOVELTY_ONE = 1 << 16, NOVELTY_UNIT = 1 << 15, NOVELTY_LARGEST = 15, NOVELTY_LOST_PERCENT = 5 };

/* Working memory while a rule is computed. */
typedef struct {
    const sqz_novelty *photos;
    int64_t *sums; /* (classes, channels), of the roots of the photos' directions */
    int32_t *counts; /* photos of a class */
    uint8_t *vectors, *own; /* (classes, channels), and one more */
    int32_t *features, *unit;
    int32_t *known, *foreign; /* scores */
} novelty_work;

static void novelty_decode(const sqz_novelty *photos, const uint8_t *codes, int32_t *features) {
    for (int c = 0; c < photos->channels; c++) {
        const int32_t root = codes[c] - (photos->is_signed ? 128 : 0);
        features[c] = root * (root < 0 ? -root : root) * (1 << photos->shift);
    }
}

static uint64_t novelty_norm(const int32_t *features, int channels) {
    uint64_t norm = 0;
    for (int c = 0; c < channels; c++) norm += (uint64_t)((int64_t)features[c] * features[c]);
    return norm;
}

/* The largest whole number whose square is at most `value`. */
static uint64_t novelty_root(uint64_t value) {
    uint64_t root = 0;
    for (int bit = 31; bit >= 0; bit--) {
        const uint64_t next = root | (uint64_t)1 << bit;
        if (next * next <= value) root = next;
    }
    return root;
}

/* Scales a feature vector to a length of 2^15, and takes square roots. */
static void novelty_direct(const int32_t *features, int channels, int32_t *unit) {
    const uint64_t root = novelty_root(novelty_norm(features, channels));
    const int64_t length = root ? (int64_t)root : 1;
    for (int c = 0; c < channels; c++) {
        const int64_t value = features[c] > 0 ? (int64_t)features[c] * NOVELTY_UNIT / length : 0;
        unit[c] = (int32_t)novelty_root((uint64_t)value * NOVELTY_UNIT);
    }
}

/* The vector of a class from its sum of roots, `sums` minus `left_out`; the latter may be NULL. */
static void novelty_vector(const int64_t *sums, const int32_t *left_out, int channels, uint8_t *vector) {
    int64_t largest = 0;
    for (int c = 0; c < channels; c++) {
        const int64_t sum = sums[c] - (left_out ? left_out[c] : 0);
        if (sum > largest) largest = sum;
    }
    for (int c = 0; c < channels; c++) {
        const int64_t part = largest ? (sums[c] - (left_out ? left_out[c] : 0)) * NOVELTY_UNIT / largest : 0;
        vector[c] = (uint8_t)((2 * NOVELTY_LARGEST * part * part + (1 << 30)) >> 31);
    }
}

/* The squared cosine times 2^16, rounded down, or `least` if that is larger. */
static int32_t novelty_nearer(const int32_t *features, uint64_t norm, const uint8_t *vector, int channels, int32_t least) {
    int64_t dot = 0;
    uint32_t size = 0;
    int32_t low, high = NOVELTY_ONE + 1;
    for (int c = 0; c < channels; c++) {
        dot += (int64_t)features[c] * vector[c];
        size += (uint32_t)(vector[c] * vector[c]);
    }
    if (dot <= 0 || !sqz_unknown_is_near((uint64_t)dot, norm, size, (uint32_t)(least + 1))) return least;
    for (low = least + 1; high - low > 1;) { /* near at low, not at high */
        const int32_t middle = low + (high - low) / 2;
        if (sqz_unknown_is_near((uint64_t)dot, norm, size, (uint32_t)middle)) low = middle;
        else high = middle;
    }
    return low;
}

/* The score of a photo of class `label`, whose own part of that class's vector is left out; or of no class (-1). */
static int32_t novelty_score(novelty_work *work, const uint8_t *codes, int32_t label) {
    const int channels = work->photos->channels;
    uint64_t norm;
    int32_t score = -1;
    novelty_decode(work->photos, codes, work->features);
    norm = novelty_norm(work->features, channels);
    if (label >= 0) {
        novelty_direct(work->features, channels, work->unit);
        novelty_vector(work->sums + (size_t)label * (size_t)channels, work->unit, channels, work->own);
    }
    for (int32_t k = 0; k < work->photos->classes; k++) {
        const uint8_t *vector = k == label ? work->own : work->vectors + (size_t)k * (size_t)channels;
        if (work->counts[k]) score = novelty_nearer(work->features, norm, vector, channels, score);
    }
    return score;
}

static void novelty_sort(int32_t *values, size_t count) {
    for (size_t gap = count / 2; gap; gap /= 2) {
        for (size_t i = gap; i < count; i++) {
            const int32_t value = values[i];
            size_t at = i;
            for (; at >= gap && values[at - gap] > value; at -= gap) values[at] = values[at - gap];
            values[at] = value;
        }
    }
}

/* Of the scores up to `highest`, the threshold that is right most often; the largest of equally good ones. */
static int32_t novelty_balance(const int32_t *known, size_t count, const int32_t *foreign, size_t n_foreign,
                               int32_t highest) {
    uint64_t most = 0;
    int32_t best = highest;
    size_t below = 0, caught = 0;
    for (size_t i = 0; i <= count; i++) { /* ascending; `highest` itself last */
        const int32_t score = i < count && known[i] < highest ? known[i] : highest;
        uint64_t worth;
        if (score < 0) continue;
        while (below < count && known[below] < score) below++;
        while (caught < n_foreign && foreign[caught] < score) caught++;
        worth = (uint64_t)(count - below) * n_foreign + (uint64_t)caught * count;
        if (worth >= most) most = worth, best = score;
        if (score == highest) break;
    }
    return best;
}

static size_t novelty_layout(const sqz_novelty *photos, uint8_t *memory, novelty_work *work) {
    const size_t channels = (size_t)photos->channels, classes = (size_t)photos->classes;
    const size_t sizes[] = {
        classes * channels * sizeof *work->sums, classes * sizeof *work->counts, classes * channels, channels,
        channels * sizeof *work->features, channels * sizeof *work->unit, photos->photos * sizeof *work->known,
        photos->foreign * sizeof *work->foreign,
    };
    size_t at = 0, starts[8];
    for (int i = 0; i < 8; i++) {
        starts[i] = at;
        at += sqz_round_up(sizes[i], 8);
    }
    if (memory) {
        work->photos = photos;
        work->sums = (int64_t *)(void *)(memory + starts[0]);
        work->counts = (int32_t *)(void *)(memory + starts[1]);
        work->vectors = memory + starts[2];
        work->own = memory + starts[3];
        work->features = (int32_t *)(void *)(memory + starts[4]);
        work->unit = (int32_t *)(void *)(memory + starts[5]);
        work->known = (int32_t *)(void *)(memory + starts[6]);
        work->foreign = (int32_t *)(void *)(memory + starts[7]);
    }
    return at + 8;
}

size_t sqz_novelty_bytes(const sqz_novelty *photos) {
    if (!photos || photos->channels < 1 || photos->channels > SQZ_MAX_CHANNELS || photos->classes < 1 ||
        photos->classes > SQZ_MAX_UNKNOWN || photos->shift < 0 || photos->shift > 14 || !photos->photos ||
        photos->photos > (size_t)1 << 22 || photos->foreign > (size_t)1 << 22) {
        return 0;
    }
    return novelty_layout(photos, NULL, NULL);
}

size_t sqz_fit_unknown(const sqz_novelty *photos, void *memory, size_t bytes, uint8_t *chunk) {
    const size_t needed = sqz_novelty_bytes(photos);
    novelty_work work;
    size_t count = 0, written = 3;
    int32_t threshold;
    if (!needed || bytes < needed || !memory || !chunk || !photos->codes || !photos->labels) return 0;
    novelty_layout(photos, (uint8_t *)memory + (8 - (uintptr_t)memory % 8) % 8, &work);
    memset(work.sums, 0, (size_t)photos->classes * (size_t)photos->channels * sizeof *work.sums);
    memset(work.counts, 0, (size_t)photos->classes * sizeof *work.counts);
    for (size_t i = 0; i < photos->photos; i++) {
        const int32_t label = photos->labels[i];
        if (label < 0 || label >= photos->classes) return 0;
        novelty_decode(photos, photos->codes + i * (size_t)photos->channels, work.features);
        novelty_direct(work.features, photos->channels, work.unit);
        for (int c = 0; c < photos->channels; c++) work.sums[(size_t)label * (size_t)photos->channels + (size_t)c] += work.unit[c];
        work.counts[label]++;
    }
    chunk[0] = 0;
    for (int k = 0; k < photos->classes; k++) {
        uint8_t *vector = work.vectors + (size_t)k * (size_t)photos->channels;
        novelty_vector(work.sums + (size_t)k * (size_t)photos->channels, NULL, photos->channels, vector);
        if (!work.counts[k]) continue;
        chunk[0]++;
        for (int c = 0; c < photos->channels; c += 2, written++) {
            chunk[written] = (uint8_t)(vector[c] | (c + 1 < photos->channels ? vector[c + 1] << 4 : 0));
        }
    }
    for (int pass = 0; pass < 2 && !count; pass++) { /* photos that count; all if none does */
        for (size_t i = 0; i < photos->photos; i++) {
            if (!pass && photos->counts && !photos->counts[i]) continue;
            work.known[count++] = novelty_score(&work, photos->codes + i * (size_t)photos->channels, photos->labels[i]);
        }
    }
    novelty_sort(work.known, count);
    threshold = work.known[count * NOVELTY_LOST_PERCENT / 100];
    if (threshold < 0) threshold = 0;
    if (photos->foreign) {
        for (size_t i = 0; i < photos->foreign; i++) {
            work.foreign[i] = novelty_score(&work, photos->foreign_codes + i * (size_t)photos->channels, -1);
        }
        novelty_sort(work.foreign, photos->foreign);
        threshold = novelty_balance(work.known, count, work.foreign, photos->foreign, threshold);
    }
    if (threshold > NOVELTY_ONE - 1) threshold = NOVELTY_ONE - 1;
    chunk[1] = (uint8_t)threshold;
    chunk[2] = (uint8_t)(threshold >> 8);
    return written;
}
