/* sqz_abi.c - what a program that mirrors squeezenet.h in another language must agree on, as one number. */
#include "sqz_internal.h"

#define ABI_FIELD(type, field) (uint32_t)offsetof(type, field), (uint32_t)sizeof(((type *)0)->field)

uint32_t sqz_abi(void) {
    static const uint32_t numbers[] = {
        SQZ_ABI_VERSION,
        sizeof(sqz_tensor),
        ABI_FIELD(sqz_tensor, scale),
        ABI_FIELD(sqz_tensor, zero_point),
        sizeof(sqz_fire_spec),
        ABI_FIELD(sqz_fire_spec, squeeze_channels),
        ABI_FIELD(sqz_fire_spec, expand1x1_channels),
        ABI_FIELD(sqz_fire_spec, expand3x3_channels),
        sizeof(sqz_spec),
        ABI_FIELD(sqz_spec, input_size),
        ABI_FIELD(sqz_spec, num_classes),
        ABI_FIELD(sqz_spec, stem_channels),
        ABI_FIELD(sqz_spec, stem_kernel),
        ABI_FIELD(sqz_spec, stem_stride),
        ABI_FIELD(sqz_spec, stem_padding),
        ABI_FIELD(sqz_spec, bypass),
        ABI_FIELD(sqz_spec, pool_ceil_mode),
        ABI_FIELD(sqz_spec, squeeze_relu),
        ABI_FIELD(sqz_spec, head_relu),
        ABI_FIELD(sqz_spec, head_padding),
        ABI_FIELD(sqz_spec, n_fires),
        ABI_FIELD(sqz_spec, has_pool),
        ABI_FIELD(sqz_spec, fires),
        ABI_FIELD(sqz_spec, n_tensors),
        ABI_FIELD(sqz_spec, tensors),
        sizeof(sqz_options),
        ABI_FIELD(sqz_options, kernels),
        ABI_FIELD(sqz_options, threads),
        ABI_FIELD(sqz_options, band_rows),
        ABI_FIELD(sqz_options, streamed),
        sizeof(sqz_sizes),
        ABI_FIELD(sqz_sizes, model_bytes),
        ABI_FIELD(sqz_sizes, load_bytes),
        ABI_FIELD(sqz_sizes, arena_bytes),
        ABI_FIELD(sqz_sizes, n_convs),
        ABI_FIELD(sqz_sizes, n_weights),
        ABI_FIELD(sqz_sizes, n_macs),
        ABI_FIELD(sqz_sizes, map_size),
        sizeof(sqz_conv_shape),
        ABI_FIELD(sqz_conv_shape, in_channels),
        ABI_FIELD(sqz_conv_shape, out_channels),
        ABI_FIELD(sqz_conv_shape, kernel),
    };
    return sqz_crc32((const uint8_t *)numbers, sizeof numbers);
}
