/* kernels_rows.c - pools and additions in plain C, for kernel sets without faster ones. */
#include "sqz_internal.h"

void sqz_pool_row(const uint8_t *x, int size, int out_size, size_t pixel, int is_first, uint8_t *y) {
    sqz_pool_row_body(x, size, out_size, pixel, is_first, y);
}

void sqz_add_row(const sqz_add *add, const uint8_t *other, size_t count, uint8_t *y) {
    sqz_add_row_body(add, other, count, y);
}
