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
#define PREFETCH_L2(at) __builtin_prefetch(at, 0, 2)
#else
#define UNROLL_ALL
#define PREFETCH(at)
#define PREFETCH_L2(at)
#endif

/* Lane i of the result is lane mask[i] of a and, behind it, b. Clang takes no mask that is a vector. */
#if defined(__clang__)
#define SHUFFLE(a, b, mask)                                                                            \
    ({                                                                                                 \
        const __typeof__(a) one_ = (a), two_ = (b);                                                    \
        const __typeof__(mask) mask_ = (mask);                                                         \
        __typeof__((a) + (b)) to_;                                                                     \
        const int lanes_ = (int)(sizeof to_ / sizeof to_[0]);                                          \
        UNROLL_ALL                                                                                     \
        for (int i_ = 0; i_ < lanes_; i_++)                                                            \
            to_[i_] = mask_[i_] < lanes_ ? one_[mask_[i_] % lanes_] : two_[mask_[i_] % lanes_];        \
        to_;                                                                                           \
    })
#elif defined(__GNUC__)
#define SHUFFLE(a, b, mask) __builtin_shuffle(a, b, mask)
#endif

/* Floats in the widest vector: 16, 8, or 4 where neither is known. */
INLINE int spear_lanes(void)
{
#if WIDER
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return 16;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 8; /* f16c is older than these */
#endif
    return 4;
}

#endif
