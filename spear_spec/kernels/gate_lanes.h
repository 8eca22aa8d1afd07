/* The gate for vectors of LANES floats: layer.c includes this once for each width, see lanes.h. */

#include "lanes.h"

/* value * gelu(g). The error function's complement has a relative error of 1.2e-7 (a Chebyshev fit: Press et al.,
   Numerical Recipes, 6.2). */
INLINE TARGET NAMED(lanes) NAMED(gated)(NAMED(lanes) value, NAMED(lanes) g)
{
    const NAMED(lanes) size = (NAMED(lanes))((NAMED(integers))g & 0x7fffffff) * 0.70710678f, t = 1 / (1 + 0.5f * size);
    NAMED(lanes) fit = 0.17087277f * t - 0.82215223f;
    fit = 1.48851587f + t * fit;
    fit = -1.13520398f + t * fit;
    fit = 0.27886807f + t * fit;
    fit = -0.18628806f + t * fit;
    fit = 0.09678418f + t * fit;
    fit = 0.37409196f + t * fit;
    fit = 1.00002368f + t * fit;
    fit = -1.26551223f + t * fit;
    const NAMED(lanes) beyond = 0.5f * t * NAMED(exp_below)(fit - size * size); /* the chance of more than |g| */
    return value * g * NAMED(where)(g > 0, 1 - beyond, beyond);
}

TARGET static void NAMED(gate)(const float *mapped, int64_t rows, int64_t inner, float *gated)
{
    for (int64_t r = 0; r < rows; r++, mapped += 2 * inner, gated += inner) {
        int64_t i = 0;
        for (; i + LANES <= inner; i += LANES)
            NAMED(store)(gated + i, NAMED(gated)(NAMED(load)(mapped + i), NAMED(load)(mapped + inner + i)));
        if (i < inner) {
            float value[LANES] = {0}, g[LANES] = {0};
            const size_t left = (size_t)(inner - i) * sizeof *value;
            memcpy(value, mapped + i, left);
            memcpy(g, mapped + inner + i, left);
            NAMED(store)(value, NAMED(gated)(NAMED(load)(value), NAMED(load)(g)));
            memcpy(gated + i, value, left);
        }
    }
}

#undef LANES
#undef NAMED
#undef TARGET
