/* sqz_decode.c - weight streams */
#include "sqz_internal.h"
size_t sqz_decode_scratch_bytes(const sqz_spec *spec) { (void)spec; return 0; }
sqz_status sqz_decode_conv(const void *stream, size_t size, const sqz_conv_shape *shape, int8_t *weight,
                                   int32_t *bias, float *multiplier) { (void)stream,(void)size,(void)shape,(void)weight,(void)bias,(void)multiplier; return SQZ_BAD_ARGUMENT; }
