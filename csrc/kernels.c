/* kernels.c - the kernel sets of this build, and the choice among those that this processor can run. */
#include "sqz_internal.h"

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
#if !defined(SQZ_SMALL_ONLY)
    &sqz_scalar_kernels,
#endif
    &sqz_small_kernels,
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
