/* Compares the scaling of results and the additions in integers, for chips without a floating-point unit, with the rule in floats.
 * Prints how many results were compared; returns 1 at the first difference. */
#include <stdio.h>
#include <stdlib.h>

#define SQZ_SMALL_INTEGER 1
#include "../../csrc/kernels_rows.c"
#include "../../csrc/kernels_small.c"

static uint64_t state = 88172645463325252u;
static unsigned long compared;

static uint32_t random_bits(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 16);
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static void compare(int32_t sum, float multiplier, int zero) {
    const float scaled = (float)sum * multiplier, low = (float)-zero, high = (float)(255 - zero);
    const int expected = sqz_round(scaled < low ? low : scaled > high ? high : scaled) + zero;
    const small_factor factor = small_factor_of(multiplier);
    const int got = small_scale(sum, &factor, zero);
    const uint32_t magnitude = sum < 0 ? 0u - (uint32_t)sum : (uint32_t)sum, sign = sum < 0 ? UINT32_MAX : 0;
    const uint32_t slowly = small_scale_exactly(magnitude, factor.mantissa, factor.shift);
    const int also = sqz_max(0, sqz_min(255, (int)((slowly ^ sign) - sign) + zero));
    compared++;
    if (got != expected || also != expected) {
        printf("%ld * %.9g, zero %d: expected %d, got %d and %d\n", (long)sum, (double)multiplier, zero, expected, got, also);
        exit(1);
    }
}

/* Sums around those whose result is a tie, or is made one by the rounding of the product. */
static void compare_around(float multiplier, int zero) {
    for (int tie = -256; tie < 512; tie++) {
        const double sum = (tie + 0.5) / (double)multiplier;
        if (sum < -2147483000.0 || sum > 2147483000.0) continue;
        for (int near = -2; near <= 2; near++) compare((int32_t)(sum + near), multiplier, zero);
    }
}

/* A bypass addition of every byte to every byte. */
static void compare_addition(float first, float second) {
    sqz_add add = {{first, second}, {(int)(random_bits() & 255), (int)(random_bits() & 255)}, (int)(random_bits() & 255)};
    uint8_t other[256], expected[256], got[256];
    for (int a = 0; a < 256; a++) {
        for (int b = 0; b < 256; b++) other[b] = (uint8_t)b;
        memset(expected, a, 256);
        memcpy(got, expected, 256);
        sqz_add_row(&add, other, 256, expected);
        small_add_row(&add, other, 256, got);
        compared += 256;
        if (memcmp(got, expected, 256)) {
            printf("addition of %d with factors %.9g and %.9g differs", a, (double)first, (double)second);
            exit(1);
        }
    }
}

int main(void) {
    const uint32_t highest = 147u << 23; /* 2^20 */
    for (uint32_t exponent = 87; exponent <= 147; exponent++) {
        for (int k = 0; k < 40; k++) {
            uint32_t mantissa = k < 8 ? (uint32_t)k : k < 16 ? 0x7FFFFF - (uint32_t)(k - 8) : random_bits() & 0x7FFFFF;
            uint32_t bits = exponent << 23 | mantissa;
            if (bits > highest) continue;
            compare_around(float_of(bits), k % 2 ? 0 : (int)(random_bits() & 255));
            for (int n = 0; n < 2000; n++) {
                const int32_t sum = (int32_t)random_bits() >> (random_bits() & 31);
                compare(sum == INT32_MIN ? INT32_MAX : sum, float_of(bits), (int)(random_bits() & 255));
            }
        }
    }
    for (int n = 0; n < 3000000; n++) { /* typical ones */
        const float multiplier = float_of((110 + random_bits() % 16) << 23 | (random_bits() & 0x7FFFFF));
        const double most = 300.0 / (double)multiplier;
        compare((int32_t)((double)(int32_t)random_bits() / 2147483648.0 * (most < 2e9 ? most : 2e9)), multiplier, 0);
    }
    for (int n = 0; n < 100; n++) { /* from 2^-10 to 2^5 */
        compare_addition(float_of((117 + random_bits() % 15) << 23 | (random_bits() & 0x7FFFFF)),
                         float_of((117 + random_bits() % 15) << 23 | (random_bits() & 0x7FFFFF)));
    }
    compare_addition(1.0f, 1.0f);
    compare_addition(0.5f, 15.99f);
    printf("%lu", compared);
    return 0;
}
