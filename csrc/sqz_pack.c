/* sqz_pack.c - weights in the order in which a kernel set multiplies them: `SQZ_PACK_*` in sqz_internal.h. */
#include "sqz_internal.h"

/* Position of a product among the groups of its sum. */
static size_t pack_product(const sqz_conv *conv, size_t place, size_t channel) {
    int is_stem = conv->runs == 1 && conv->kernel > 1;
    return is_stem ? place * 3 + channel : place * sqz_pixel_bytes(conv->in_channels) + channel;
}

/* The kind of a panel already packed as S8. It depends on the weights only, so it holds for any activations. */
static int pack_kind(const sqz_conv *conv, const uint8_t *panel) {
    int kind = SQZ_PANEL_PAIRS_OF_4;
    for (int lane = 0; lane < SQZ_LANES; lane++) {
        for (int pair = 0; pair < 2; pair++) {
            for (int run = 0; run < conv->runs; run++) {
                int recent[4] = {0, 0, 0, 0}; /* |w| + |w'| of the last four groups */
                for (int group = 0; group < conv->groups; group++) {
                    const uint8_t *at = panel + (size_t)(run * conv->groups + group) * 64 + lane * 4 + pair * 2;
                    int a = (int8_t)at[0], b = (int8_t)at[1];
                    recent[group & 3] = (a < 0 ? -a : a) + (b < 0 ? -b : b);
                    if (recent[group & 3] > 128) return SQZ_PANEL_WIDE; /* 128 * 255 < 2^15 */
                    if ((group & 1) && recent[group & 3] + recent[(group - 1) & 3] > 128) kind = SQZ_PANEL_PAIRS;
                    if (kind == SQZ_PANEL_PAIRS_OF_4 && (group & 3) == 3 &&
                        recent[0] + recent[1] + recent[2] + recent[3] > 128) {
                        kind = SQZ_PANEL_PAIRS_OF_2;
                    }
                }
            }
        }
    }
    return kind;
}

static void pack_panel(const sqz_conv *conv, const int8_t *weight, int first, int outputs, int is_wide,
                            uint8_t *panel) {
    const size_t area = (size_t)(conv->kernel * conv->kernel), channels = (size_t)conv->in_channels;
    int16_t *wide = (int16_t *)(void *)panel;
    memset(panel, 0, (size_t)(conv->runs * conv->groups) * 64 * (is_wide ? 2 : 1));
    for (size_t place = 0; place < area; place++) {
        for (size_t channel = 0; channel < channels; channel++) {
            const size_t product = pack_product(conv, place, channel), group = product / 4, within = product % 4;
            const int8_t *w = weight + ((size_t)first * channels + channel) * area + place;
            int16_t *wide_to = wide + group * 64 + within / 2 * 32 + within % 2;
            uint8_t *to = panel + group * 64 + within;
            for (int lane = 0; lane < outputs; lane++, w += channels * area) {
                if (is_wide) {
                    wide_to[2 * lane] = *w;
                } else {
                    to[4 * lane] = (uint8_t)*w;
                }
            }
        }
    }
}

void sqz_pack_output(const sqz_conv *conv, const int8_t *weight, int lane, uint8_t *panel) {
    const size_t area = (size_t)(conv->kernel * conv->kernel), channels = (size_t)conv->in_channels;
    const size_t step = 2 * pack_product(conv, 1, 0); /* from one place to the next */
    uint8_t *to = panel + (size_t)(lane / 2) * 8 * (size_t)(conv->runs * conv->groups) + lane % 2;
    for (size_t channel = 0; channel < channels; channel++, to += 2) {
        for (size_t at = 0; at < step * area; at += step) to[at] = (uint8_t)*weight++;
    }
}

static void pack_twos(const sqz_conv *conv, const int8_t *weight, int first, int outputs, uint8_t *panel) {
    const size_t products = (size_t)conv->in_channels * (size_t)(conv->kernel * conv->kernel);
    memset(panel, 0, conv->panel_bytes);
    for (int lane = 0; lane < outputs; lane++) {
        sqz_pack_output(conv, weight + (size_t)(first + lane) * products, lane, panel);
    }
}

void sqz_pack_conv(const sqz_conv *conv, int pack, const int8_t *weight) {
    for (int panel = 0; panel < conv->panels; panel++) {
        int first = panel * SQZ_LANES, outputs = sqz_min(SQZ_LANES, conv->out_channels - first);
        uint8_t *to = conv->weights + (size_t)panel * conv->panel_bytes;
        if (pack == SQZ_PACK_TWOS) {
            pack_twos(conv, weight, first, outputs, to);
        } else {
            pack_panel(conv, weight, first, outputs, pack == SQZ_PACK_S16, to);
        }
        conv->kinds[panel] = (uint8_t)(pack == SQZ_PACK_MIX ? pack_kind(conv, to) : (int)SQZ_PANEL_WIDE);
        if (pack == SQZ_PACK_MIX && conv->kinds[panel] == SQZ_PANEL_WIDE) {
            pack_panel(conv, weight, first, outputs, 1, to);
        }
    }
}
