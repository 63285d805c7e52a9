/* kernels_cpu.c - which instructions this processor has. */
#include "sqz_internal.h"

#if defined(SQZ_X86)
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif

static void cpu_id(unsigned leaf, unsigned sub, unsigned out[4]) {
#if defined(_MSC_VER)
    __cpuidex((int *)out, (int)leaf, (int)sub);
#else
    __cpuid_count(leaf, sub, out[0], out[1], out[2], out[3]);
#endif
}

/* The registers that the operating system saves on a context switch: bit 2 ymm, bits 5 to 7 zmm. */
static unsigned cpu_saved_state(void) {
    unsigned r[4];
    cpu_id(1, 0, r);
    if (!(r[2] >> 27 & 1)) return 0;
#if defined(_MSC_VER)
    return (unsigned)_xgetbv(0);
#else
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
#endif
}

int sqz_has_bmi2(void) {
    unsigned r[4];
    int has_lzcnt;
    cpu_id(0x80000000, 0, r);
    if (r[0] < 0x80000001) return 0;
    cpu_id(0x80000001, 0, r);
    has_lzcnt = r[2] >> 5 & 1;
    cpu_id(0, 0, r);
    if (r[0] < 7) return 0;
    cpu_id(7, 0, r);
    return (r[1] >> 3 & 1) && (r[1] >> 8 & 1) && has_lzcnt;
}

int sqz_has_avx2(void) {
    unsigned r[4];
    cpu_id(0, 0, r);
    if (r[0] < 7) return 0;
    cpu_id(7, 0, r);
    return (r[1] >> 5 & 1) && (cpu_saved_state() & 6) == 6;
}

int sqz_has_avxvnni(void) {
    unsigned r[4];
    if (!sqz_has_avx2()) return 0;
    cpu_id(7, 0, r);
    if (r[0] < 1) return 0;
    cpu_id(7, 1, r);
    return r[0] >> 4 & 1;
}

int sqz_has_avx512vnni(void) {
    unsigned r[4];
    if (!sqz_has_avx2()) return 0;
    cpu_id(7, 0, r);
    return (r[1] >> 16 & 1) && (r[1] >> 30 & 1) && (r[1] >> 31 & 1) && (r[2] >> 11 & 1) &&
           (cpu_saved_state() & 0xE6) == 0xE6;
}
#endif

#if defined(SQZ_DOTPROD)
#if defined(__linux__)
#include <sys/auxv.h>
int sqz_has_dotprod(void) { return getauxval(AT_HWCAP) >> 20 & 1; }
#elif defined(__APPLE__)
int sqz_has_dotprod(void) { return 1; } /* every 64-bit Mac has it */
#elif defined(_WIN32)
#include <windows.h>
int sqz_has_dotprod(void) { return IsProcessorFeaturePresent(43) != 0; } /* PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE */
#else
int sqz_has_dotprod(void) { return 0; }
#endif
#endif
