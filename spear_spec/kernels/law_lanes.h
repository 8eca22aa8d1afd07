/* Laws for vectors of LANES floats: law.c includes this once for each width, see lanes.h. */

#include "lanes.h"

/* What stands at `at`, of which there are only so many: `other` behind them. */
INLINE TARGET NAMED(lanes) NAMED(some)(const float *at, int64_t count, float other)
{
    float own[LANES];
    for (int64_t i = 0; i < LANES; i++) own[i] = i < count ? at[i] : other;
    return NAMED(load)(own);
}

INLINE TARGET void NAMED(put)(float *at, int64_t count, NAMED(lanes) x)
{
    for (int64_t i = 0; i < LANES && i < count; i++) at[i] = x[i];
}

/* law = softmax of logits * by; returns 0, or NO_NUMBER. */
TARGET static int NAMED(soften)(const float *logits, int64_t size, float by, float *law)
{
    const NAMED(lanes) none = (NAMED(lanes)){0} - INFINITY;
    const int64_t whole = size / LANES * LANES, left = size - whole;
    const NAMED(lanes) tail = left ? NAMED(some)(logits + whole, left, logits[0]) : none;
    NAMED(integers) widest = {0}; /* sizes are ordered as their bits are, infinity and NaN above all numbers */
    NAMED(lanes) tops = none, sum = {0};
    for (int64_t i = 0; i < whole; i += LANES) {
        const NAMED(lanes) x = NAMED(load)(logits + i);
        const NAMED(integers) bits = (NAMED(integers))x & 0x7fffffff, wider = bits > widest;
        widest = (wider & bits) | (~wider & widest);
        tops = NAMED(where)(x > tops, x, tops);
    }
    if (left) {
        const NAMED(integers) bits = (NAMED(integers))tail & 0x7fffffff, wider = bits > widest;
        widest = (wider & bits) | (~wider & widest);
        tops = NAMED(where)(tail > tops, tail, tops);
    }
    float top = tops[0];
    for (int i = 0; i < LANES; i++) {
        if (widest[i] >= 0x7f800000) return NO_NUMBER;
        top = tops[i] > top ? tops[i] : top;
    }
    for (int64_t i = 0; i < size; i += LANES) {
        const int part = i == whole;
        const NAMED(lanes) x = ((part ? tail : NAMED(load)(logits + i)) - top) * by; /* so it cannot overflow upwards */
        const NAMED(lanes) share = NAMED(where)(x < -87, (NAMED(lanes)){0}, NAMED(exp_below)(x));
        if (part) {
            NAMED(put)(law + i, left, share);
            sum += NAMED(some)(law + i, left, 0);
        } else {
            NAMED(store)(law + i, share);
            sum += share;
        }
    }
    const float share = 1 / NAMED(total)(sum);
    for (int64_t i = 0; i < whole; i += LANES) NAMED(store)(law + i, NAMED(load)(law + i) * share);
    for (int64_t i = whole; i < size; i++) law[i] *= share;
    return 0;
}

/* Values of at least FLOOR, in order, to `values` [size + LANES], if they hold more than `mass` of all; else 0. */
TARGET static int64_t NAMED(near)(const float *law, int64_t size, double mass, float *values)
{
    const int64_t whole = size / LANES * LANES;
    NAMED(lanes) sums = {0};
    int64_t count = 0;
    for (int64_t i = 0; i < whole; i += LANES) {
        const NAMED(lanes) x = NAMED(load)(law + i);
#if LANES == 16
        const __mmask16 there = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(FLOOR), _CMP_GE_OQ);
        if (!there) continue;
        sums += (NAMED(lanes))_mm512_maskz_mov_ps(there, (__m512)x);
        _mm512_storeu_ps(values + count, _mm512_maskz_compress_ps(there, (__m512)x));
        count += __builtin_popcount(there);
#else
        const NAMED(integers) there = x >= FLOOR;
        int32_t any = 0;
        for (int j = 0; j < LANES; j++) any |= there[j];
        if (!any) continue;
        sums += (NAMED(lanes))(there & (NAMED(integers))x);
        for (int j = 0; j < LANES; j++)
            if (there[j]) values[count++] = x[j];
#endif
    }
    float sum = NAMED(total)(sums);
    for (int64_t i = whole; i < size; i++)
        if (law[i] >= FLOOR) sum += values[count++] = law[i];
    return (double)sum > mass + 1e-4 ? count : 0; /* more than a sum of floats is off by */
}

#undef LANES
#undef NAMED
#undef TARGET
