/* Matrix products for vectors of LANES floats: product.c includes this once for each width, with TARGET (an attribute),
   the names NAMED(x), OF_HALVES (LANES halves at an address as floats) and ROWS: so many rows share what is read of the
   weights, as many as leave their sums in registers, two vectors a row. */

typedef float NAMED(lanes) __attribute__((vector_size(4 * LANES)));

INLINE TARGET NAMED(lanes) NAMED(weights)(const char *at, int format)
{
    NAMED(lanes) w;
    if (format == HALVES) return OF_HALVES(at);
    memcpy(&w, at, sizeof w);
    return w;
}

/* Sums of `rows` rows for `vectors` vectors of outputs (constants, once inlined) from output `from` on. packed: x is
   [in, rows]. */
INLINE TARGET void NAMED(sums)(const struct matrix *w, int format, int vectors, int64_t from, int rows, int packed,
                               const float *x, const float *add, int64_t add_step, float *y)
{
    const int64_t in = w->in, size = format == HALVES ? 2 : 4, left = w->out - from;
    const int64_t width = left < vectors * LANES ? left : vectors * LANES;
    const char *at[4];
    NAMED(lanes) sum[ROWS][4];
    float sums[ROWS][4 * LANES];
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
        PREFETCH(at[0] + (i + AHEAD) * STRIP * size);
        PREFETCH_L2(at[0] + (i + FAR) * STRIP * size);
        if (vectors * LANES > STRIP) PREFETCH(at[vectors - 1] + (i + AHEAD) * STRIP * size);
        UNROLL_ALL
        for (int v = 0; v < vectors; v++) weight[v] = NAMED(weights)(at[v] + i * STRIP * size, format);
        UNROLL_ALL
        for (int r = 0; r < rows; r++)
            UNROLL_ALL
            for (int v = 0; v < vectors; v++) sum[r][v] += (packed ? x[i * rows + r] : x[r * in + i]) * weight[v];
    }
    UNROLL_ALL
    for (int r = 0; r < rows; r++)
        UNROLL_ALL
        for (int v = 0; v < vectors; v++) memcpy(sums[r] + v * LANES, &sum[r][v], sizeof sum[r][v]);
    for (int r = 0; r < rows; r++) {
        const float *more = add ? add + r * add_step + from : NULL;
        float *to = y + r * w->out + from;
        if (more)
            for (int64_t j = 0; j < width; j++) to[j] = sums[r][j] + more[j];
        else
            memcpy(to, sums[r], (size_t)width * sizeof *to);
    }
}

/* Strips first to last for 1 to ROWS rows. Few rows have few sums under way: they take four vectors at a time. */
INLINE TARGET void NAMED(strips)(const struct matrix *w, int format, int64_t first, int64_t last, int rows, int packed,
                                 const float *x, const float *add, int64_t add_step, float *y)
{
    int64_t from = first * STRIP;
    const int64_t end = last * STRIP < w->out ? last * STRIP : w->out;
    const int64_t covered = last * STRIP;
    if (rows <= 2)
        for (; from < end && from + 4 * LANES <= covered; from += 4 * LANES)
            NAMED(sums)(w, format, 4, from, rows, packed, x, add, add_step, y);
    for (; from < end; from += 2 * LANES) NAMED(sums)(w, format, 2, from, rows, packed, x, add, add_step, y);
}

#define CASE(n)                                                                              \
    case n:                                                                                  \
        if (w->format == HALVES)                                                             \
            NAMED(strips)(w, HALVES, first, last, n, n > FEW, x, add, add_step, y);          \
        else                                                                                 \
            NAMED(strips)(w, FLOATS, first, last, n, n > FEW, x, add, add_step, y);          \
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

/* Rows in blocks of nearly equal size; those of more than FEW rows are read from where what is multiplied at once lies
   side by side. */
TARGET static void NAMED(pack)(int64_t in, int64_t rows, const float *x, float *packed)
{
    const int64_t blocks = (rows + ROWS - 1) / ROWS;
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t r = b * rows / blocks, count = (b + 1) * rows / blocks - r;
        if (count > FEW) turn_over(x + r * in, count, in, packed + r * in);
    }
}

/* Two strips at a time, so that their weights are near when the next rows come. packed: from `pack`, or NULL, and then
   blocks are small ones. */
TARGET static void NAMED(product)(const struct matrix *w, int64_t first, int64_t last, int64_t rows, const float *x,
                                  const float *add, int64_t add_step, float *y, const float *packed)
{
    const int64_t in = w->in, most = packed ? ROWS : FEW;
    const int64_t blocks = (rows + most - 1) / most, wide = blocks > 1 ? 2 : last - first;
    for (int64_t strip = first; strip < last; strip += wide) {
        const int64_t end = strip + wide < last ? strip + wide : last;
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t r = b * rows / blocks, count = (b + 1) * rows / blocks - r;
            NAMED(block)(w, strip, end, count, (count > FEW ? packed : x) + r * in, add ? add + r * add_step : NULL,
                         add_step, y + r * w->out);
        }
    }
}

#undef CASE
#undef ROWS
#undef OF_HALVES
#undef LANES
#undef NAMED
#undef TARGET
