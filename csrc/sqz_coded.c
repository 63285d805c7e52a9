/* sqz_coded.c - weights that stay coded in memory: they are decoded again for each image, in the order of the file, row by
 * row into the panels that kernels read. Only the previous row is available, so streams refer to no other row.
 *
 * Only exported C uses this, with SQZ_PACK_TWOS. Streams are part of the program; a damaged one ends the run. */
#include "sqz_internal.h"

#if defined(SQZ_CODED)
#include "sqz_weights.h"

/* In the trunk, it is followed by coefficients, columns and two rows. */
typedef struct {
    sqz_decoder decoder;
    decode_stream stream;
    decode_layer layer;
    int conv, row;  /* that are decoded next */
    int n_values, zero; /* of the codebook, if there is one */
    int8_t values[256];
    int8_t *rows[2];
} coded_decoder;

/* The size that the exporter reserves for it. */
typedef char coded_decoder_fits[sizeof(coded_decoder) <= 9728 ? 1 : -1];

static coded_decoder *coded_decoder_of(const sqz_worker *worker) {
    return (coded_decoder *)(void *)(worker->trunk + worker->model->coded.decoder_at);
}

void sqz_coded_begin(const sqz_worker *worker) {
    const sqz_model *model = worker->model;
    coded_decoder *coded = coded_decoder_of(worker);
    uint8_t *at = (uint8_t *)coded + sqz_round_up(sizeof *coded, 8);
    memset(coded, 0, sizeof *coded);
    for (size_t kernel = 1; kernel <= DECODE_MAX_KERNEL; kernel++) {
        if (!(model->needs.kernels >> kernel & 1)) continue;
        coded->decoder.predictors[kernel] = (decode_predictor *)(void *)at;
        at += sizeof(decode_predictor) * kernel * kernel;
    }
    coded->decoder.columns = (decode_column *)(void *)at;
    at += sizeof(decode_column) * model->needs.products;
    coded->rows[0] = (int8_t *)at;
    coded->rows[1] = (int8_t *)at + model->needs.products;
    decode_reset(&coded->decoder);
}

/* Decodes the next rows of the stream, those of a panel, to `to`. */
static void coded_next_panel(const sqz_worker *worker, const sqz_conv *conv, int panel, uint8_t *to) {
    const int outputs = panel + 1 == conv->panels ? conv->last_outputs : SQZ_LANES;
    coded_decoder *coded = coded_decoder_of(worker);
    decode_stream *stream = &coded->stream;
    const sqz_source *source = &worker->model->coded.sources[coded->conv];
    const int products = conv->in_channels * conv->kernel * conv->kernel;
    if (coded->row == 0) {
        decode_relax(&coded->decoder);
        decode_start(stream, source->stream, source->bytes);
        coded->n_values = decode_codebook(stream, &coded->decoder, coded->values, &coded->zero);
        decode_begin_rows(stream, &coded->decoder, products, &coded->layer);
        memset(coded->rows[1], 0, (size_t)products); /* the row that the first one refers to */
    }
    memset(to, 0, conv->panel_bytes);
    for (int lane = 0; lane < outputs && !stream->status; lane++, coded->row++) {
        int8_t *row = coded->rows[coded->row & 1], *before = coded->rows[~coded->row & 1];
        decode_next_row(stream, &coded->decoder, conv->kernel, products, &coded->layer, coded->row, before, row);
        if (coded->n_values) { /* symbols are places in the codebook, counted from that of 0 */
            const unsigned zero = (unsigned)coded->zero, count = (unsigned)coded->n_values;
            int is_wrong = 0;
            for (int i = 0; i < products; i++) {
                const unsigned place = (unsigned)row[i] + zero;
                is_wrong |= place >= count;
                before[i] = coded->values[place & 255];
            }
            if (is_wrong) decode_fail(stream, SQZ_BAD_TABLE);
            row = before;
        }
        sqz_pack_output(conv, row, lane, to);
    }
    if (coded->row == conv->out_channels) {
        if (!stream->status) decode_finish(stream);
        coded->conv++;
        coded->row = 0;
    }
    if (stream->status) worker->input->status = stream->status;
}

void sqz_coded_hold(const sqz_worker *worker, int step) {
    const sqz_model *model = worker->model;
    coded_decoder *coded = coded_decoder_of(worker);
    while (coded->conv < (int)model->n_convs && model->coded.sources[coded->conv].step == step &&
           !worker->input->status) {
        const sqz_conv *conv = &model->convs[coded->conv];
        uint8_t *to = worker->trunk + model->coded.sources[coded->conv].at;
        for (int panel = 0; panel < conv->panels; panel++) {
            coded_next_panel(worker, conv, panel, to + (size_t)panel * conv->panel_bytes);
        }
    }
}

uint8_t *sqz_coded_weights(const sqz_worker *worker, const sqz_conv *conv) {
    const sqz_source *source = &worker->model->coded.sources[conv - worker->model->convs];
    return source->step < 0 ? NULL : worker->trunk + source->at;
}

uint8_t *sqz_coded_panel(const sqz_worker *worker, const sqz_conv *conv, int panel) {
    uint8_t *to = worker->trunk + worker->model->coded.panel_at;
    coded_next_panel(worker, conv, panel, to);
    return to;
}
#endif
