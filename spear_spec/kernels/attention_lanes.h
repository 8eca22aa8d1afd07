/* Attention for vectors of LANES floats: attention.c includes this once for each width, with TARGET (an attribute), the
   names NAMED(x) and INDEX: 0, 1, ... LANES - 1. */

#include "lanes.h"

/* Of lanes that differ in bit `step`, one holds the sum of both of a, the other that of b. */
INLINE TARGET NAMED(lanes) NAMED(fold)(NAMED(lanes) a, NAMED(lanes) b, int step)
{
    const NAMED(integers) index = INDEX, second = (index & step) / step * LANES;
    return SHUFFLE(a, b, index + second) + SHUFFLE(a, b, (index ^ step) + second);
}

/* Products of q with LANES keys; each is summed in LANES parts, which are then added in halves. parts: vectors in a key,
   where that is known at compile time; 0: dim says it. */
INLINE TARGET NAMED(lanes) NAMED(dots)(const float *q, const float *k, int64_t dim, int parts, const int32_t *at)
{
    NAMED(lanes) sum[LANES];
    UNROLL_ALL
    for (int j = 0; j < LANES; j++) {
        const float *key = k + at[j] * dim;
        sum[j] = NAMED(load)(q) * NAMED(load)(key);
        if (parts)
            UNROLL_ALL /* a loop of a few turns costs as much as what is in it */
            for (int p = 1; p < parts; p++) sum[j] += NAMED(load)(q + p * LANES) * NAMED(load)(key + p * LANES);
        else
            for (int64_t d = LANES; d < dim; d += LANES) sum[j] += NAMED(load)(q + d) * NAMED(load)(key + d);
    }
#if LANES > 8
    UNROLL_ALL
    for (int j = 0; j < 8; j++) sum[j] = NAMED(fold)(sum[j], sum[j + 8], 8);
#endif
#if LANES > 4
    UNROLL_ALL
    for (int j = 0; j < 4; j++) sum[j] = NAMED(fold)(sum[j], sum[j + 4], 4);
#endif
    UNROLL_ALL
    for (int j = 0; j < 2; j++) sum[j] = NAMED(fold)(sum[j], sum[j + 2], 2);
    return NAMED(fold)(sum[0], sum[1], 1);
}

/* Scores of a row for positions first to last of its list. */
INLINE TARGET void NAMED(scores)(const float *q, const float *k, int64_t dim, float root, const int32_t *at,
                                 int64_t first, int64_t last, float *weight, struct ahead *ahead)
{
    if (dim % LANES) {
        for (int64_t i = first; i < last; i++) {
            float sum = 0;
            for (int64_t d = 0; d < dim; d++) sum += q[d] * k[at[i] * dim + d];
            weight[i] = root * sum;
        }
        return;
    }
    for (int64_t i = first; i < last; i += LANES) {
        const int32_t *here = at + i;
        int32_t own[LANES]; /* the last ones, and behind them the first of these again: what it gives is not used */
        if (i + LANES > last) {
            for (int j = 0; j < LANES; j++) own[j] = here[i + j < last ? j : 0];
            here = own;
        }
        const NAMED(lanes) sum = root * (dim == 64 ? NAMED(dots)(q, k, 64, 64 / LANES, here) : NAMED(dots)(q, k, dim, 0, here));
        memcpy(weight + i, &sum, sizeof sum);
        bring(ahead, 3 * LANES / 4);
    }
}

/* Scores to weights that are not yet divided by their sum, which is returned. What lies behind the last score, up to a
   multiple of LANES, becomes 0. */
INLINE TARGET float NAMED(weigh)(float *weight, int64_t count)
{
    const NAMED(integers) index = INDEX;
    const NAMED(lanes) none = (NAMED(lanes)){0} - INFINITY;
    NAMED(lanes) most = none, all = {0};
    for (int64_t i = 0; i < count; i += LANES) {
        const NAMED(integers) there = index < (int32_t)(count - i);
        NAMED(lanes) here = NAMED(load)(weight + i);
        here = (NAMED(lanes))((there & (NAMED(integers))here) | (~there & (NAMED(integers))none));
        const NAMED(integers) more = here > most;
        most = (NAMED(lanes))((more & (NAMED(integers))here) | (~more & (NAMED(integers))most));
    }
    UNROLL_ALL
    for (int step = LANES / 2; step; step /= 2) {
        const NAMED(lanes) other = SHUFFLE(most, most, index ^ step);
        const NAMED(integers) more = other > most;
        most = (NAMED(lanes))((more & (NAMED(integers))other) | (~more & (NAMED(integers))most));
    }
    for (int64_t i = 0; i < count; i += LANES) {
        const NAMED(integers) there = index < (int32_t)(count - i);
        NAMED(lanes) here = NAMED(exp_below)(NAMED(load)(weight + i) - most);
        here = (NAMED(lanes))(there & (NAMED(integers))here);
        memcpy(weight + i, &here, sizeof here);
        all += here;
    }
    UNROLL_ALL
    for (int step = LANES / 2; step; step /= 2) all += SHUFFLE(all, all, index ^ step);
    return all[0];
}

/* Four vectors of the outputs of `rows` rows (a constant, once inlined): the rows share what is read of the values. */
INLINE TARGET void NAMED(blend)(int rows, const struct seen *seen, const float *weight, int64_t most, const float *v,
                                int64_t dim, const float *by, float *out, int64_t out_step, struct ahead *ahead)
{
    NAMED(lanes) sum[4][4] = {{{0}}};
    int64_t common = seen[0].shared;
    UNROLL_ALL
    for (int r = 0; r < rows; r++) common = seen[r].count < common ? seen[r].count : common;
    for (int64_t i = 0; i < common; i++) {
        const float *value = v + seen[0].at[i] * dim;
        bring(ahead, 4);
        UNROLL_ALL
        for (int r = 0; r < rows; r++)
            UNROLL_ALL
            for (int c = 0; c < 4; c++) sum[r][c] += weight[r * most + i] * NAMED(load)(value + c * LANES);
    }
    UNROLL_ALL
    for (int r = 0; r < rows; r++) {
        for (int64_t i = common; i < seen[r].count; i++)
            UNROLL_ALL
            for (int c = 0; c < 4; c++)
                sum[r][c] += weight[r * most + i] * NAMED(load)(v + seen[r].at[i] * dim + c * LANES);
        UNROLL_ALL
        for (int c = 0; c < 4; c++) {
            const NAMED(lanes) seen_here = by[r] * sum[r][c];
            memcpy(out + r * out_step + c * LANES, &seen_here, sizeof seen_here);
        }
    }
}

TARGET static void NAMED(attend)(int64_t rows, const float *q, int64_t q_step, const float *k, const float *v,
                                 int64_t dim, const struct seen *seen, float *weight, int64_t most, float *out,
                                 int64_t out_step, struct ahead *ahead)
{
    const float root = 1 / sqrtf((float)dim);
    int64_t longest = 0;
    for (int64_t r = 0; r < rows; r++) longest = seen[r].count > longest ? seen[r].count : longest;
    for (int64_t first = 0; first < longest; first += TILE)
        for (int64_t r = 0; r < rows; r++) {
            const int64_t last = seen[r].count < first + TILE ? seen[r].count : first + TILE;
            NAMED(scores)(q + r * q_step, k, dim, root, seen[r].at, first, last, weight + r * most,
                          ahead);
        }
    float by[4];
    for (int64_t r = 0; r < rows; r += 4) {
        const int group = rows - r < 4 ? (int)(rows - r) : 4;
        for (int g = 0; g < group; g++) by[g] = 1 / NAMED(weigh)(weight + (r + g) * most, seen[r + g].count);
        int64_t j = 0;
        for (; j + 4 * LANES <= dim; j += 4 * LANES) {
            const float *w = weight + r * most;
            float *to = out + r * out_step + j;
            switch (group) {
            case 1: NAMED(blend)(1, seen + r, w, most, v + j, dim, by, to, out_step, ahead); break;
            case 2: NAMED(blend)(2, seen + r, w, most, v + j, dim, by, to, out_step, ahead); break;
            case 3: NAMED(blend)(3, seen + r, w, most, v + j, dim, by, to, out_step, ahead); break;
            default: NAMED(blend)(4, seen + r, w, most, v + j, dim, by, to, out_step, ahead);
            }
        }
        for (int g = 0; g < group && j < dim; g++)
            for (int64_t d = j; d < dim; d++) {
                float sum = 0;
                for (int64_t i = 0; i < seen[r + g].count; i++)
                    sum += weight[(r + g) * most + i] * v[seen[r + g].at[i] * dim + d];
                out[(r + g) * out_step + d] = by[g] * sum;
            }
    }
}

#undef INDEX
#undef LANES
#undef NAMED
#undef TARGET
