/* kernels.c - which kernel sets this build has, and which of them this processor can run. */
#include "sqz_internal.h"

#if defined(SQZ_X86)
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif

static void kernels_cpuid(unsigned leaf, unsigned sub, unsigned out[4]) {
#if defined(_MSC_VER)
    __cpuidex((int *)out, (int)leaf, (int)sub);
#else
    __cpuid_count(leaf, sub, out[0], out[1], out[2], out[3]);
#endif
}

/* What the operating system saves on a switch: bit 2 ymm, bits 5 to 7 zmm. */
static unsigned kernels_saved_state(void) {
    unsigned r[4];
    kernels_cpuid(1, 0, r);
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
    kernels_cpuid(0x80000000, 0, r);
    if (r[0] < 0x80000001) return 0;
    kernels_cpuid(0x80000001, 0, r);
    has_lzcnt = r[2] >> 5 & 1;
    kernels_cpuid(0, 0, r);
    if (r[0] < 7) return 0;
    kernels_cpuid(7, 0, r);
    return (r[1] >> 3 & 1) && (r[1] >> 8 & 1) && has_lzcnt;
}

int sqz_has_avx2(void) {
    unsigned r[4];
    kernels_cpuid(0, 0, r);
    if (r[0] < 7) return 0;
    kernels_cpuid(7, 0, r);
    return (r[1] >> 5 & 1) && (kernels_saved_state() & 6) == 6;
}

int sqz_has_avxvnni(void) {
    unsigned r[4];
    if (!sqz_has_avx2()) return 0;
    kernels_cpuid(7, 0, r);
    if (r[0] < 1) return 0;
    kernels_cpuid(7, 1, r);
    return r[0] >> 4 & 1;
}

int sqz_has_avx512vnni(void) {
    unsigned r[4];
    if (!sqz_has_avx2()) return 0;
    kernels_cpuid(7, 0, r);
    return (r[1] >> 16 & 1) && (r[1] >> 30 & 1) && (r[1] >> 31 & 1) && (r[2] >> 11 & 1) &&
           (kernels_saved_state() & 0xE6) == 0xE6;
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

static const sqz_kernels *const kernels_of_build[] = {
#if defined(SQZ_X86)
    &sqz_avx512vnni_kernels, &sqz_avxvnni_kernels, &sqz_avx2_kernels,
#endif
#if defined(SQZ_DOTPROD)
    &sqz_neon_dotprod_kernels,
#endif
#if defined(SQZ_ARM64)
    &sqz_neon_kernels,
#endif
#if defined(SQZ_WASM)
    &sqz_wasm_kernels,
#else
    &sqz_scalar_kernels,
#endif
};

enum { KERNELS_COUNT = sizeof kernels_of_build / sizeof *kernels_of_build };

static int kernels_same_name(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

const sqz_kernels *sqz_find_kernels(const char *name) {
    for (int i = 0; i < KERNELS_COUNT; i++) {
        const sqz_kernels *set = kernels_of_build[i];
        if ((!name || kernels_same_name(name, set->name)) && (!set->is_supported || set->is_supported())) return set;
    }
    return NULL;
}

const char *sqz_kernels_name(int index) {
    for (int i = 0; i < KERNELS_COUNT; i++) {
        const sqz_kernels *set = kernels_of_build[i];
        if (!set->is_supported || set->is_supported()) {
            if (index-- == 0) return set->name;
        }
    }
    return NULL;
}

uint64_t sqz_peak(const char *kernels, uint32_t rounds) {
    const sqz_kernels *set = sqz_find_kernels(kernels);
    return set && set->peak ? set->peak(rounds) : 0;
}
