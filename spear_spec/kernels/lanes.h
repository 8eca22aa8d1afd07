/* Vectors of LANES floats, for attention, laws, the gate and the vocoder: what includes this does so once for each width, with TARGET
   (an attribute) and the names NAMED(x). */

typedef float NAMED(lanes) __attribute__((vector_size(4 * LANES)));
typedef int32_t NAMED(integers) __attribute__((vector_size(4 * LANES)));

INLINE TARGET NAMED(lanes) NAMED(load)(const float *at)
{
    NAMED(lanes) x;
    memcpy(&x, at, sizeof x);
    return x;
}

INLINE TARGET void NAMED(store)(float *at, NAMED(lanes) x) { memcpy(at, &x, sizeof x); }

/* a where the mask is set, else b. */
INLINE TARGET NAMED(lanes) NAMED(where)(NAMED(integers) mask, NAMED(lanes) a, NAMED(lanes) b)
{
    return (NAMED(lanes))((mask & (NAMED(integers))a) | (~mask & (NAMED(integers))b));
}

INLINE TARGET float NAMED(total)(NAMED(lanes) x)
{
    float sum = 0;
    for (int j = 0; j < LANES; j++) sum += x[j];
    return sum;
}

/* e^x for x <= 0 or NaN, as common.h's. */
INLINE TARGET NAMED(lanes) NAMED(exp_below)(NAMED(lanes) x)
{
    x = NAMED(where)(x < -87, (NAMED(lanes)){0} - 87, x);
    const NAMED(integers) n = __builtin_convertvector(x * 1.44269504f - 0.5f, NAMED(integers));
    const NAMED(lanes) whole = __builtin_convertvector(n, NAMED(lanes));
    const NAMED(lanes) r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    NAMED(lanes) series = 1.0f / 720 + r * (1.0f / 5040);
    series = 1.0f / 120 + r * series;
    series = 1.0f / 24 + r * series;
    series = 1.0f / 6 + r * series;
    series = 0.5f + r * series;
    series = 1 + r * series;
    series = 1 + r * series;
    return series * (NAMED(lanes))((n + 127) << 23);
}
