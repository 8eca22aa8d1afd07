/* Elementary functions of LANES floats, to float32 rounding (relative, or of the largest value where that is 1), and
   the transpose. vocoder.c includes this once for each width of a vector. A NaN stays one. */

#include "lanes.h"

typedef double NAMED(doubles) __attribute__((vector_size(4 * LANES)));    /* half as many */
typedef float NAMED(fewer) __attribute__((vector_size(2 * LANES)));       /* as floats */
typedef int32_t NAMED(fewer_integers) __attribute__((vector_size(2 * LANES)));

INLINE TARGET NAMED(lanes) NAMED(between)(NAMED(lanes) x, float low, float high)
{
    const NAMED(lanes) zero = {0}, least = zero + low, most = zero + high;
    x = NAMED(where)(x < least, least, x);
    return NAMED(where)(x > most, most, x);
}

/* The nearest whole number. */
INLINE TARGET NAMED(integers) NAMED(nearest)(NAMED(lanes) x)
{
    const NAMED(lanes) zero = {0}, half = zero + 0.5f;
    return __builtin_convertvector(x + NAMED(where)(x < zero, -half, half), NAMED(integers));
}

/* e^x for -87 <= x <= 87: 2^n times a series of the remainder, at most .35. */
INLINE TARGET NAMED(lanes) NAMED(exponential)(NAMED(lanes) x)
{
    const NAMED(integers) whole = NAMED(nearest)(x * 1.44269504f);
    const NAMED(lanes) n = __builtin_convertvector(whole, NAMED(lanes));
    const NAMED(lanes) r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts */
    NAMED(lanes) series = r * (1.f / 5040) + 1.f / 720;
    series = series * r + 1.f / 120;
    series = series * r + 1.f / 24;
    series = series * r + 1.f / 6;
    series = series * r + 0.5f;
    series = series * r + 1;
    series = series * r + 1;
    return series * (NAMED(lanes))((whole + 127) << 23);
}

/* x (1 + tanh(s)) / 2 = x / (1 + e^(-2 s)), s = sqrt(2 / pi) (x + .044715 x^3). */
INLINE TARGET NAMED(lanes) NAMED(gelu)(NAMED(lanes) x)
{
    const NAMED(lanes) s = x * (x * x * 0.044715f + 1) * -1.5957691216057308f;
    return x / (NAMED(exponential)(NAMED(between)(s, -87, 87)) + 1);
}

INLINE TARGET NAMED(lanes) NAMED(tangent)(NAMED(lanes) x) /* hyperbolic */
{
    return 1 - 2 / (NAMED(exponential)(NAMED(between)(2 * x, -30, 30)) + 1);
}

/* Sine and cosine. Multiples of pi / 2 are taken away in three parts, of which the first two have so few bits that
   their products are exact; an angle for which that would not hold goes through double precision first. */
INLINE TARGET void NAMED(circle)(NAMED(lanes) x, NAMED(lanes) *sine, NAMED(lanes) *cosine)
{
    const NAMED(lanes) zero = {0}, far = zero + 8192;
    const NAMED(integers) wild = (x > far) | (x < -far);
    int32_t any = 0;
    for (int j = 0; j < LANES; j++) any |= wild[j];
    if (any)
        for (int j = 0; j < LANES; j++)
            if (wild[j]) x[j] = (float)remainder((double)x[j], 6.283185307179586);
    const NAMED(integers) whole = NAMED(nearest)(x * 0.636619772f);
    const NAMED(lanes) n = __builtin_convertvector(whole, NAMED(lanes));
    const NAMED(lanes) r = ((x - n * 1.5703125f) - n * 4.837512969970703125e-4f) - n * 7.549789948768648e-8f;
    const NAMED(lanes) q = r * r;
    NAMED(lanes) s = q * (1.f / 362880) - 1.f / 5040, c = q * (-1.f / 3628800) + 1.f / 40320;
    s = s * q + 1.f / 120;
    c = c * q - 1.f / 720;
    s = s * q - 1.f / 6;
    c = c * q + 1.f / 24;
    s = s * q * r + r;
    c = c * q - 0.5f;
    c = c * q + 1;
    const NAMED(integers) odd = -(whole & 1); /* every quarter turn, sine and cosine change places */
    const NAMED(integers) down = (whole & 2) << 30, turned = ((whole + 1) & 2) << 30;
    *sine = (NAMED(lanes))((NAMED(integers))NAMED(where)(odd, c, s) ^ down);
    *cosine = (NAMED(lanes))((NAMED(integers))NAMED(where)(odd, s, c) ^ turned);
}

INLINE TARGET NAMED(lanes) NAMED(root)(NAMED(lanes) x)
{
    for (int j = 0; j < LANES; j++) x[j] = sqrtf(x[j]);
    return x;
}

/* Halves of neighbouring blocks of `step` lanes change places between rows that are `step` apart. */
#define LEFT(j, step) ((j) & (step) ? LANES + (j) - (step) : (j))
#define RIGHT(j, step) ((j) & (step) ? LANES + (j) : (j) + (step))
#define EXCHANGE(step)                                                                                 \
    UNROLL_ALL                                                                                         \
    for (int i = 0; i < LANES; i++)                                                                    \
        if (!(i & (step))) {                                                                           \
            const NAMED(lanes) a = x[i], b = x[i + (step)];                                            \
            x[i] = SHUFFLE(a, b, (NAMED(integers)){EACH(LEFT, step)});                       \
            x[i + (step)] = SHUFFLE(a, b, (NAMED(integers)){EACH(RIGHT, step)});             \
        }

INLINE TARGET void NAMED(transpose)(NAMED(lanes) x[LANES])
{
    EXCHANGE(1)
    EXCHANGE(2)
#if LANES > 4
    EXCHANGE(4)
#endif
#if LANES > 8
    EXCHANGE(8)
#endif
}
#undef EXCHANGE
#undef LEFT
#undef RIGHT
