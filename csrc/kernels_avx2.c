#include "sqz_internal.h"
#if defined(SQZ_X86)
static int no(void){return 0;}
const sqz_kernels sqz_avx2_kernels = {"avx2", SQZ_PACK_S8, 0, NULL, no};
#endif
