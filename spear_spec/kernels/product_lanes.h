/* Matrix products for vectors of LANES floats: product.c includes this once for each width, with TARGET (an attribute),
   the names NAMED(x), HALVES (LANES halves at an address as floats) and ROWS: so many rows share what is read of the
   weights, as many as leave their sums in registers, two vectors a row. */

typedef float NAMED(lanes) __attribute__((vector_size(4 * LANES)));

INLINE TARGET NAMED(lanes) NAMED(weights)(const char *at, int half)
{
    NAMED(lanes) w;
    if (half) return HALVES(at);
    memcpy(&w, at, sizeof w);
    return w;
}

/* Sums of `rows` rows for `vectors` vectors of outputs (constants, once inlined) from output `from` on. */
INLINE TARGET void NAMED(sums)(const struct matrix *w, int half, int vectors, int64_t from, int rows, const float *x,
                               const float *add, int64_t add_step, float *y)
{
    const int64_t in = w->in, out = w->out, size = half ? 2 : 4;
    const char *at[4];
    NAMED(lanes) sum[ROWS][4];
    UNROLL_ALL
    for (int v = 0; v < vectors; v++) {
        const int64_t output = from + v * LANES;
        at[v] = (const char *)w->weights + (output / STRIP * STRIP * in + output % STRIP) * size;
    }
    UNROLL_ALL
    for (int r = 0; r < rows; r++)
        UNROLL_ALL
        for (int v = 0; v < vectors; v++) sum[r][v] = (NAMED(lanes)){0};
    for (int64_t i = 0; i < in; i++) {
        NAMED(lanes) weight[4];
        UNROLL_ALL
        for (int v = 0; v < vectors; v++) weight[v] = NAMED(weights)(at[v] + i * STRIP * size, half);
        UNROLL_ALL
        for (int r = 0; r < rows; r++)
            UNROLL_ALL
            for (int v = 0; v < vectors; v++) sum[r][v] += x[r * in + i] * weight[v];
    }
    UNROLL_ALL
    for (int r = 0; r < rows; r++)
        UNROLL_ALL
        for (int v = 0; v < vectors; v++) {
            const int64_t output = from + v * LANES, left = out - output;
            const float *more = add ? add + r * add_step + output : NULL;
            float *to = y + r * out + output;
            if (left >= LANES) {
                NAMED(lanes) other = {0};
                if (more) memcpy(&other, more, sizeof other);
                other += sum[r][v];
                memcpy(to, &other, sizeof other);
            } else {
                float own[LANES];
                memcpy(own, &sum[r][v], sizeof own);
                for (int64_t j = 0; j < left; j++) to[j] = own[j] + (more ? more[j] : 0);
            }
        }
}

/* Strips first to last for 1 to ROWS rows. Few rows have few sums under way: they take four vectors at a time. */
INLINE TARGET void NAMED(strips)(const struct matrix *w, int half, int64_t first, int64_t last, int rows, const float *x,
                                 const float *add, int64_t add_step, float *y)
{
    int64_t from = first * STRIP;
    const int64_t end = last * STRIP < w->out ? last * STRIP : w->out;
    const int64_t covered = last * STRIP;
    if (rows <= 2)
        for (; from < end && from + 4 * LANES <= covered; from += 4 * LANES)
            NAMED(sums)(w, half, 4, from, rows, x, add, add_step, y);
    for (; from < end; from += 2 * LANES) NAMED(sums)(w, half, 2, from, rows, x, add, add_step, y);
}

#define CASE(n)                                                                      \
    case n:                                                                          \
        if (w->half) NAMED(strips)(w, 1, first, last, n, x, add, add_step, y);       \
        else NAMED(strips)(w, 0, first, last, n, x, add, add_step, y);               \
        break;

TARGET static void NAMED(block)(const struct matrix *w, int64_t first, int64_t last, int64_t rows, const float *x,
                                const float *add, int64_t add_step, float *y)
{
    switch (rows) {
        CASE(1) CASE(2) CASE(3) CASE(4)
#if ROWS > 4
        CASE(5) CASE(6)
#endif
#if ROWS > 6
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
    }
}

/* A strip at a time, so that its weights are near when the next rows come; rows in blocks of nearly equal size. */
TARGET static void NAMED(product)(const struct matrix *w, int64_t first, int64_t last, int64_t rows, const float *x,
                                  const float *add, int64_t add_step, float *y)
{
    const int64_t blocks = (rows + ROWS - 1) / ROWS, wide = blocks > 1 ? 2 : last - first;
    for (int64_t strip = first; strip < last; strip += wide) {
        const int64_t end = strip + wide < last ? strip + wide : last;
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t r = b * rows / blocks, next = (b + 1) * rows / blocks;
            NAMED(block)(w, strip, end, next - r, x + r * w->in, add ? add + r * add_step : NULL, add_step,
                         y + r * w->out);
        }
    }
}

#undef CASE
#undef ROWS
#undef HALVES
#undef LANES
#undef NAMED
#undef TARGET
