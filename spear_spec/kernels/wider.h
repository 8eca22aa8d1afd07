/* Which vectors the machine has: one build serves every x86-64. */

#ifndef SPEAR_WIDER_H
#define SPEAR_WIDER_H

#ifndef WIDER /* vectors that not every machine has; -DWIDER=0 leaves them out */
#if defined(__x86_64__) && defined(__GNUC__)
#define WIDER 1
#else
#define WIDER 0
#endif
#endif

#if defined(__GNUC__)
#define UNROLL_ALL _Pragma("GCC unroll 16")
#define PREFETCH(at) __builtin_prefetch(at)
#else
#define UNROLL_ALL
#define PREFETCH(at)
#endif

/* Floats in the widest vector: 16, 8, or 4 where neither is known. */
INLINE int spear_lanes(void)
{
#if WIDER
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return 16;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) return 8;
#endif
    return 4;
}

#endif
