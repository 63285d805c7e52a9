/* kernels_rows.c - pools and additions in plain C, for kernel sets that have no better. */
#include "sqz_internal.h"

void sqz_pool_row(const uint8_t *const rows[3], int size, int out_size, size_t pixel, uint8_t *y) {
    sqz_pool_row_body(rows, size, out_size, pixel, y);
}

void sqz_add_row(const sqz_add *add, const uint8_t *a, const uint8_t *b, size_t count, uint8_t *y) {
    sqz_add_row_body(add, a, b, count, y);
}
