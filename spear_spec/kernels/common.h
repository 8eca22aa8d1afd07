/* What every C file here may use; it includes none of them. Who includes whom:
   common.h <- law.h <- judge.h; attention.h <- layer.h; law.h, layer.h, product.h <- draft.h; layer.h, product.h <-
   step.h, encoder.h; draft.h, judge.h, step.h <- round.h; philox.h stands alone; each .c its own .h.
   common.h <- tiles.h <- bytes.h. What ends in _lanes.h is included once for each width of a vector, lanes.h by these. */

#ifndef SPEAR_COMMON_H
#define SPEAR_COMMON_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* One build serves every x86-64: the loader picks the widest vectors that the machine has. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__)
#define EVERY_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EVERY_CPU
#endif
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 4")
#else
#define INLINE static inline
#define UNROLL
#endif

enum { NO_MEMORY = 1, NO_TOKEN = 2, NO_NUMBER = 3, NO_TREE = 4 }; /* what a call returns where it does not return 0 */

/* e^x for x <= 0 or NaN: 2^n times a series of the remainder, which is below .35; the error is that of float32. */
INLINE float exp_below(float x)
{
    x = x < -87 ? -87 : x;
    const int32_t n = x == x ? (int32_t)(x * 1.44269504f - 0.5f) : 0;
    const float r = (x - (float)n * 0.693359375f) + (float)n * 2.12194440e-4f; /* ln 2 in two parts */
    float series = 1.0f / 720 + r * (1.0f / 5040); /* factors, not quotients: a division costs ten times as much */
    series = 1.0f / 120 + r * series;
    series = 1.0f / 24 + r * series;
    series = 1.0f / 6 + r * series;
    series = 0.5f + r * series;
    series = 1 + r * series;
    series = 1 + r * series;
    const uint32_t bits = (uint32_t)(n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return power * series;
}

#endif
