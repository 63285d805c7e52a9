/* sqz_teach.c - a head from feature vectors: docs/teaching.md, to the bit. `squeezenet.teaching.solver` is the same in NumPy.
 *
 * Every sum of fractions is computed in the order that this page states, and no operations are fused. So loops may be split
 * into panels, but sums never regrouped. n photos, d features, C classes, m the smaller of n and d. */
#include "sqz_internal.h"

enum {
    TEACH_MOST = 2, /* exponents of the regularisation */
    TEACH_LEAST = -8,
    TEACH_FIRST = -1,
    TEACH_DEFAULT_GAIN = 8,
    TEACH_PANEL = 64 /* photos at a time, so that they stay in the cache */
};
static const int teach_gains[] = {2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64};

typedef struct {
    size_t n, d, c, m, w; /* w: columns, one more than classes if there are levels */
    const double *levels;
    double mean_level;
    const int32_t *classes;
    double *z, *gram, *matrix, *right, *sums, *share, *root, *leverage, *column;
    double *fitted;    /* (n, w); turned into the residuals */
    double *errors;    /* (n, w), of the current solution */
    double *residuals; /* (n, w), of the best so far */
    double *best;      /* (n, w), its errors */
    double *off_mean;  /* (n), levels */
    double *products;
    int32_t *counts;
    double trace;
} teach_problem;

int sqz_code_shift(int positions, int is_signed) {
    int bits = 0;
    while ((int64_t)255 * positions >> bits) bits++;
    return sqz_max(0, bits - (is_signed ? 14 : 16));
}

void sqz_code_features(const int32_t *features, size_t count, int shift, int is_signed, uint8_t *codes) {
    for (size_t i = 0; i < count; i++) {
        const int32_t magnitude = (features[i] < 0 ? -features[i] : features[i]) >> shift;
        const int root = sqz_min((int)(sqz_sqrt((double)magnitude) + 0.5), is_signed ? 127 : 255);
        codes[i] = (uint8_t)(is_signed ? 128 + (features[i] < 0 ? -root : root) : root);
    }
}

/* Rounds |value| < 2^51 half to even. */
static double teach_round(double value) { return (value + 6755399441055744.0) - 6755399441055744.0; }

static double teach_power_of_two(int exponent) {
    const uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double value;
    memcpy(&value, &bits, 8);
    return value;
}

static void *teach_take(uint8_t **at, size_t bytes) {
    void *taken = *at;
    *at += sqz_round_up(bytes, 8);
    return taken;
}

/* Assigns a problem's arrays from `memory` on, or only counts their bytes if that is NULL. */
static size_t teach_layout(teach_problem *p, uint8_t *memory) {
    uint8_t *at = memory;
    const size_t most = p->d > p->m ? p->d : p->m, big = most > p->c ? most : p->c + 1;
    p->z = teach_take(&at, p->n * p->d * 8);
    p->gram = teach_take(&at, p->m * p->m * 8);
    p->matrix = teach_take(&at, p->m * p->m * 8);
    p->right = teach_take(&at, p->m * p->n * 8);
    p->sums = teach_take(&at, (p->c + 1) * p->m * 8);
    p->share = teach_take(&at, p->c * 8);
    p->root = teach_take(&at, p->c * 8);
    p->leverage = teach_take(&at, p->n * 8);
    p->column = teach_take(&at, big * 8);
    p->fitted = teach_take(&at, p->n * (p->c + 1) * 8);
    p->errors = teach_take(&at, p->n * (p->c + 1) * 8);
    p->residuals = teach_take(&at, p->n * (p->c + 1) * 8);
    p->best = teach_take(&at, p->n * (p->c + 1) * 8);
    p->off_mean = teach_take(&at, p->n * 8);
    p->products = teach_take(&at, p->d * p->c * 8);
    p->counts = teach_take(&at, p->c * 4);
    return (size_t)(at - memory);
}

static int teach_shape(teach_problem *p, int photos, int channels, int classes) {
    if (photos < 1 || channels < 1 || channels > SQZ_MAX_CHANNELS || classes < 1 || classes > 65535) return 0;
    if (photos > (1 << 19)) return 0; /* sums of whole numbers stay below 2^53 */
    p->n = (size_t)photos;
    p->d = (size_t)channels;
    p->c = (size_t)classes;
    p->m = p->n < p->d ? p->n : p->d;
    return 1;
}

size_t sqz_teach_bytes(int photos, int channels, int classes) {
    teach_problem p = SQZ_ZEROS;
    return teach_shape(&p, photos, channels, classes) ? teach_layout(&p, NULL) + 8 : 0;
}

/* The codes' values, minus the mean of the classes' means, rounded. */
static void teach_centre(teach_problem *p, const uint8_t *codes, int is_signed, int32_t *centre) {
    double *mean = p->column, *sum = p->products;
    size_t i = 0;
    for (size_t k = 0; k < p->d; k++) mean[k] = 0.0;
    for (size_t c = 0; c < p->c; c++) {
        for (size_t k = 0; k < p->d; k++) sum[k] = 0.0;
        for (size_t last = i + (size_t)p->counts[c]; i < last; i++) {
            for (size_t k = 0; k < p->d; k++) {
                const int root = codes[i * p->d + k] - (is_signed ? 128 : 0);
                p->z[i * p->d + k] = root * (root < 0 ? -root : root);
                sum[k] += p->z[i * p->d + k];
            }
        }
        for (size_t k = 0; k < p->d; k++) mean[k] += sum[k] / p->counts[c];
    }
    for (size_t k = 0; k < p->d; k++) {
        mean[k] = teach_round(mean[k] / (double)p->c);
        centre[k] = (int32_t)mean[k];
    }
    for (i = 0; i < p->n; i++) {
        for (size_t k = 0; k < p->d; k++) p->z[i * p->d + k] -= mean[k];
    }
}

/* Lower triangles only. */
static void teach_gram_of_photos(teach_problem *p) {
    for (size_t i = 0; i < p->n; i++) {
        const double *a = p->z + i * p->d, root = p->root[p->classes[i]];
        for (size_t j = 0; j <= i; j++) {
            const double *b = p->z + j * p->d;
            double sums[8] = {0}; /* of whole numbers: exact in any order */
            size_t k = 0;
            for (; k + 8 <= p->d; k += 8) {
                for (int lane = 0; lane < 8; lane++) sums[lane] += a[k + (size_t)lane] * b[k + (size_t)lane];
            }
            for (; k < p->d; k++) sums[0] += a[k] * b[k];
            for (int lane = 1; lane < 8; lane++) sums[0] += sums[lane];
            p->gram[i * p->m + j] = root * p->root[p->classes[j]] * sums[0];
        }
    }
}

static void teach_gram_of_features(teach_problem *p) {
    const size_t d = p->d;
    size_t i = 0;
    memset(p->gram, 0, d * d * 8);
    for (size_t c = 0; c < p->c; c++) {
        memset(p->matrix, 0, d * d * 8);
        for (size_t last = i + (size_t)p->counts[c]; i < last; i++) {
            const double *z = p->z + i * d;
            for (size_t a = 0; a < d; a++) {
                for (size_t b = 0; z[a] != 0 && b <= a; b++) p->matrix[a * d + b] += z[a] * z[b];
            }
        }
        for (size_t a = 0; a < d; a++) {
            for (size_t b = 0; b <= a; b++) p->gram[a * d + b] += p->share[c] * p->matrix[a * d + b];
        }
    }
}

static void teach_build(teach_problem *p) {
    for (size_t c = 0; c < p->c; c++) {
        p->share[c] = 1.0 / (double)(p->c * (size_t)p->counts[c]);
        p->root[c] = sqz_sqrt(p->share[c]);
    }
    if (p->n <= p->d) {
        teach_gram_of_photos(p);
    } else {
        teach_gram_of_features(p);
    }
    p->trace = 0.0;
    for (size_t k = 0; k < p->m; k++) p->trace += p->gram[k * p->m + k];
    p->mean_level = 0.0;
    for (size_t i = 0; p->levels && i < p->n; i++) p->mean_level += p->share[p->classes[i]] * p->levels[i];
    for (size_t i = 0; p->levels && i < p->n; i++) {
        p->off_mean[i] = p->root[p->classes[i]] * (p->levels[i] - p->mean_level);
    }
}

/* Cholesky, right-looking: each step subtracts its products from the rest of the matrix. */
static void teach_factor(teach_problem *p) {
    const size_t m = p->m;
    for (size_t k = 0; k < m; k++) {
        const double pivot = sqz_sqrt(p->matrix[k * m + k]);
        p->matrix[k * m + k] = pivot;
        for (size_t i = k + 1; i < m; i++) p->column[i] = p->matrix[i * m + k] /= pivot;
        for (size_t i = k + 1; i < m; i++) {
            double *SQZ_RESTRICT row = p->matrix + i * m;
            const double *SQZ_RESTRICT column = p->column, factor = column[i];
            for (size_t j = k + 1; j <= i; j++) row[j] -= factor * column[j];
        }
    }
}

/* Multiplies the right-hand side, for some photos, by L^-1. */
static void teach_substitute(teach_problem *p, size_t first, size_t last, int is_triangular) {
    for (size_t k = is_triangular ? first : 0; k < p->m; k++) {
        double *SQZ_RESTRICT row = p->right + k * p->n;
        const size_t end = is_triangular && k + 1 < last ? k + 1 : last;
        const double pivot = p->matrix[k * p->m + k];
        for (size_t j = first; j < end; j++) row[j] /= pivot;
        for (size_t i = k + 1; i < p->m; i++) {
            double *SQZ_RESTRICT below = p->right + i * p->n;
            const double factor = p->matrix[i * p->m + k];
            for (size_t j = first; j < end; j++) below[j] -= factor * row[j];
        }
    }
}

static double teach_ridge(const teach_problem *p, int exponent) {
    const double ridge = p->trace / (double)p->n * teach_power_of_two(exponent);
    return ridge > 0.0 ? ridge : 1.0;
}

static void teach_solve(teach_problem *p, int exponent) {
    const size_t n = p->n, m = p->m, classes = p->c, width = p->w;
    const int is_dual = n <= p->d;
    const double ridge = teach_ridge(p, exponent);
    memcpy(p->matrix, p->gram, m * m * 8);
    for (size_t k = 0; k < m; k++) p->matrix[k * m + k] += ridge;
    for (size_t k = 0; k < m; k++) {
        for (size_t i = 0; i < n; i++) {
            p->right[k * n + i] = is_dual ? (double)(i == k) : p->root[p->classes[i]] * p->z[i * p->d + k];
        }
    }
    teach_factor(p);
    for (size_t first = 0; first < n; first += TEACH_PANEL) {
        teach_substitute(p, first, first + TEACH_PANEL < n ? first + TEACH_PANEL : n, is_dual);
    }
    for (size_t i = 0; i < n; i++) p->leverage[i] = 0.0;
    memset(p->sums, 0, width * m * 8);
    for (size_t k = 0; k < m; k++) {
        const double *row = p->right + k * n;
        double total = 0.0;
        for (size_t i = 0; i < n; i++) {
            p->leverage[i] += row[i] * row[i];
            p->sums[(size_t)p->classes[i] * m + k] += p->root[p->classes[i]] * row[i];
            if (p->levels) p->sums[classes * m + k] += p->off_mean[i] * row[i];
        }
        for (size_t c = 0; c < classes; c++) total += p->sums[c * m + k];
        for (size_t c = 0; c < classes; c++) p->sums[c * m + k] -= total / (double)classes;
    }
    memset(p->fitted, 0, n * width * 8);
    for (size_t k = 0; k < m; k++) {
        for (size_t c = 0; c < width; c++) p->column[c] = p->sums[c * m + k];
        for (size_t i = 0; i < n; i++) {
            double *SQZ_RESTRICT fitted = p->fitted + i * width;
            const double *SQZ_RESTRICT column = p->column, factor = p->right[k * n + i];
            for (size_t c = 0; c < width; c++) fitted[c] += factor * column[c];
        }
    }
    for (size_t i = 0; i < n; i++) {
        const double share = p->share[p->classes[i]], root = p->root[p->classes[i]];
        double rest = (is_dual ? ridge * p->leverage[i] : 1.0 - p->leverage[i]) - share;
        if (!(rest > teach_power_of_two(-30))) rest = teach_power_of_two(-30);
        for (size_t c = 0; c < width; c++) {
            double *fitted = p->fitted + i * width + c;
            const double target =
                c == classes ? p->off_mean[i] : root * ((double)((size_t)p->classes[i] == c) - 1.0 / (double)classes);
            *fitted = is_dual ? ridge * *fitted : target - *fitted;
            p->errors[i * width + c] = *fitted / rest;
        }
    }
}

static int teach_is_judged(const teach_problem *p, size_t photo) { return p->counts[p->classes[photo]] > 1; }

static double teach_error(const teach_problem *p, const double *errors) {
    double total = 0.0;
    for (size_t i = 0; i < p->n; i++) {
        double square = 0.0;
        for (size_t c = 0; c < p->c; c++) square += errors[i * p->w + c] * errors[i * p->w + c];
        if (teach_is_judged(p, i)) total += square;
    }
    return total;
}

static void teach_keep(teach_problem *p) {
    memcpy(p->residuals, p->fitted, p->n * p->w * 8);
    memcpy(p->best, p->errors, p->n * p->w * 8);
}

/* Searches up or down from the first exponent, as long as the leave-one-out error falls. */
static int teach_search(teach_problem *p) {
    int exponent = TEACH_FIRST, judged = 0;
    double best;
    teach_solve(p, exponent);
    teach_keep(p);
    best = teach_error(p, p->best);
    for (size_t i = 0; i < p->n; i++) judged |= teach_is_judged(p, i);
    for (int step = 1; judged && step >= -1 && exponent == TEACH_FIRST; step -= 2) {
        while (exponent + step >= TEACH_LEAST && exponent + step <= TEACH_MOST) {
            double error;
            teach_solve(p, exponent + step);
            error = teach_error(p, p->errors);
            if (!(error < best)) break;
            teach_keep(p);
            best = error;
            exponent += step;
        }
    }
    return exponent;
}

/* Approximates e^x for x <= 0. */
static double teach_power_of_e(double x) {
    double power = 1.0 + x / 1024.0;
    if (!(power > 0.0)) return 0.0;
    for (int i = 0; i < 10; i++) power = power * power;
    return power;
}

/* Chooses the factor with the smallest mean squared error of probabilities. */
static int teach_gain(teach_problem *p, const double *scores) {
    const size_t classes = p->c;
    int best = TEACH_DEFAULT_GAIN, has_best = 0;
    double least = 0.0;
    for (size_t g = 0; g < sizeof teach_gains / sizeof *teach_gains; g++) {
        double score = 0.0;
        int judged = 0;
        for (size_t i = 0; i < p->n; i++) {
            const double *row = scores + i * classes;
            double highest = row[0], total = 0.0, square = 0.0, *powers = p->errors;
            if (!teach_is_judged(p, i)) continue;
            judged = 1;
            for (size_t c = 1; c < classes; c++) highest = row[c] > highest ? row[c] : highest;
            for (size_t c = 0; c < classes; c++) total += powers[c] = teach_power_of_e(teach_gains[g] * (row[c] - highest));
            for (size_t c = 0; c < classes; c++) {
                const double error = powers[c] / total - (double)((size_t)p->classes[i] == c);
                square += error * error;
            }
            score += p->share[p->classes[i]] * square;
        }
        if (judged && (!has_best || score < least)) best = teach_gains[g], least = score, has_best = 1;
    }
    return best;
}

static void teach_weight(teach_problem *p, int exponent, double *weight) {
    const double ridge = teach_ridge(p, exponent);
    memset(weight, 0, p->d * p->w * 8);
    for (size_t i = 0; i < p->n; i++) {
        const double *residuals = p->residuals + i * p->w, root = p->root[p->classes[i]];
        for (size_t c = 0; c < p->w; c++) p->errors[c] = root * residuals[c];
        for (size_t k = 0; k < p->d; k++) {
            double *SQZ_RESTRICT row = weight + k * p->w;
            const double value = p->z[i * p->d + k];
            for (size_t c = 0; c < p->w; c++) row[c] += value * p->errors[c];
        }
    }
    for (size_t j = 0; j < p->d * p->w; j++) weight[j] /= ridge;
}

/* The constant to add to the new classes' logits, so that kept classes win about a tenth of the left-out photos. */
static double teach_base(teach_problem *p, int gain, const double *scores) {
    double *above = p->leverage;
    size_t count = 0, wanted;
    for (int all = 0; !count; all = 1) {
        for (size_t i = 0; i < p->n; i++) {
            const double *row = scores + i * p->c;
            double highest = row[0];
            if (!all && !teach_is_judged(p, i)) continue;
            for (size_t c = 1; c < p->c; c++) highest = row[c] > highest ? row[c] : highest;
            above[count++] = gain * highest - p->best[i * p->w + p->c] / p->root[p->classes[i]];
        }
    }
    wanted = count * 10 / 100;
    for (size_t i = 0; i < count; i++) {
        size_t below = 0, equal = 0;
        for (size_t j = 0; j < count; j++) below += above[j] < above[i], equal += above[j] == above[i];
        if (below <= wanted && wanted < below + equal) return p->mean_level - above[i];
    }
    return p->mean_level;
}

void sqz_teach_levels(const uint8_t *codes, int is_signed, int shift, int photos, int channels, const int8_t *weight,
                      const int32_t *bias, const float *multiplier, int classes, int positions, double *levels) {
    const uint64_t floats = sqz_usual_floats();
    const size_t d = (size_t)channels;
    for (int i = 0; i < photos; i++) {
        for (int c = 0; c < classes; c++) {
            int64_t sum = 0;
            double logit;
            for (size_t k = 0; k < d; k++) {
                const int root = codes[(size_t)i * d + k] - (is_signed ? 128 : 0);
                sum += (int64_t)weight[(size_t)c * d + k] * (root * (root < 0 ? -root : root));
            }
            sum = sum * ((int64_t)1 << shift) + (int64_t)positions * bias[c];
            logit = (double)sum * (double)multiplier[c] / (double)positions;
            if (!c || logit > levels[i]) levels[i] = logit;
        }
    }
    sqz_restore_floats(floats);
}

sqz_status sqz_teach(const uint8_t *codes, int is_signed, const int32_t *classes_of, const double *levels, int photos,
                     int channels, int classes, void *memory, size_t bytes, sqz_taught *taught) {
    teach_problem p = SQZ_ZEROS;
    const size_t pad = (8 - (uintptr_t)memory % 8) % 8;
    uint64_t floats;
    if (!codes || !classes_of || !memory || !taught || !taught->weight || !taught->centre || !taught->scores) {
        return SQZ_BAD_ARGUMENT;
    }
    if (!teach_shape(&p, photos, channels, classes)) return SQZ_BAD_ARGUMENT;
    if (bytes < sqz_teach_bytes(photos, channels, classes)) return SQZ_NO_MEMORY;
    p.classes = classes_of;
    p.levels = levels;
    p.w = p.c + (levels ? 1 : 0);
    teach_layout(&p, (uint8_t *)memory + pad);
    for (int c = 0; c < classes; c++) p.counts[c] = 0;
    for (int i = 0; i < photos; i++) {
        if (classes_of[i] < (i ? classes_of[i - 1] : 0) || classes_of[i] >= classes) return SQZ_BAD_ARGUMENT;
        p.counts[classes_of[i]]++;
    }
    for (int c = 0; c < classes; c++) {
        if (!p.counts[c]) return SQZ_BAD_ARGUMENT;
    }
    floats = sqz_usual_floats();
    teach_centre(&p, codes, is_signed, taught->centre);
    teach_build(&p);
    taught->exponent = teach_search(&p);
    for (size_t i = 0; i < p.n; i++) {
        for (size_t c = 0; c < p.c; c++) {
            double *score = taught->scores + i * p.c + c;
            *score = (double)((size_t)classes_of[i] == c) - p.best[i * p.w + c] / p.root[classes_of[i]];
        }
    }
    taught->gain = teach_gain(&p, taught->scores);
    taught->has_levels = levels != NULL;
    taught->base = levels ? teach_base(&p, taught->gain, taught->scores) : 0.0;
    teach_weight(&p, taught->exponent, taught->weight);
    sqz_restore_floats(floats);
    return SQZ_OK;
}

/* Up to a number of nine binary digits. */
static float teach_round_multiplier(double value) {
    const uint64_t low = ((uint64_t)1 << 44) - 1;
    uint64_t bits;
    memcpy(&bits, &value, 8);
    if (bits & low) bits = (bits & ~low) + low + 1;
    memcpy(&value, &bits, 8);
    return (float)value;
}

static double teach_value(const sqz_taught *taught, size_t channel, size_t width, int class_of) {
    const double *row = taught->weight + channel * width;
    const double value = taught->gain * row[class_of];
    return taught->has_levels ? value + row[width - 1] : value;
}

void sqz_teach_round(const sqz_taught *taught, int channels, int classes, int shift, int positions, int8_t *weight,
                     int32_t *bias, float *multiplier) {
    const uint64_t floats = sqz_usual_floats();
    const double unit = (double)positions / teach_power_of_two(shift);
    const size_t width = (size_t)classes + (taught->has_levels ? 1 : 0);
    for (int c = 0; c < classes; c++) {
        double largest = 0.0, step, value;
        int64_t sum = 0;
        for (int k = 0; k < channels; k++) {
            value = teach_value(taught, (size_t)k, width, c) * unit;
            if (value < 0) value = -value;
            if (value > largest) largest = value;
        }
        step = largest / 127;
        if (step < teach_power_of_two(-40)) step = teach_power_of_two(-40);
        if (step > teach_power_of_two(19)) step = teach_power_of_two(19);
        multiplier[c] = largest > 0.0 ? teach_round_multiplier(step) : 1.0f / 65536;
        step = multiplier[c];
        for (int k = 0; k < channels; k++) {
            value = teach_round(teach_value(taught, (size_t)k, width, c) * unit / step);
            value = value > 127 ? 127 : value < -127 ? -127 : value;
            weight[(size_t)c * (size_t)channels + (size_t)k] = (int8_t)value;
            sum += (int64_t)value * ((int64_t)taught->centre[k] * ((int64_t)1 << shift));
        }
        value = taught->gain / (double)classes;
        if (taught->has_levels) value += taught->base;
        value = value / step - (double)sum / positions;
        value = value > 1073741824.0 ? 1073741824.0 : value < -1073741824.0 ? -1073741824.0 : value;
        bias[c] = (int32_t)teach_round(value);
    }
    sqz_restore_floats(floats);
}
