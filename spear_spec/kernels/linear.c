/* Matrix products for the widest vectors that the machine has. */

#include "linear.h"

#ifndef WIDER /* vectors that not every machine has; -DWIDER=0 leaves them out */
#if defined(__x86_64__) && defined(__GNUC__)
#define WIDER 1
#else
#define WIDER 0
#endif
#endif

#define LANES 4
#define NAMED(name) name##_4
#define TARGET
#include "multiply.h"

#if WIDER
#define LANES 8
#define NAMED(name) name##_8
#define TARGET __attribute__((target("avx2,fma")))
#include "multiply.h"

#define LANES 16
#define NAMED(name) name##_16
#define TARGET __attribute__((target("avx512f,avx512vl,avx2,fma")))
#include "multiply.h"
#endif

void spear_multiply(const struct linear *w, int64_t rows, const float *x, const float *add, int64_t add_step, float *y)
{
#if WIDER
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) {
        multiply_16(w, rows, x, add, add_step, y);
        return;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        multiply_8(w, rows, x, add, add_step, y);
        return;
    }
#endif
    multiply_4(w, rows, x, add, add_step, y);
}
