/* Products of codes for vectors of LANES sums: product_codes.h includes this once for each kind, with TARGET (an
   attribute), the names NAMED(x), VECTOR, WIDEN (2 LANES weights at an address) and ROWS: so many rows share what is
   read of the weights. */

#define OUTS (LANES / 2) /* outputs of a vector */

/* Sums of `rows` rows for `vectors` vectors of outputs (constants, once inlined) from output `from` on. */
INLINE TARGET void NAMED(code_sums)(const struct matrix *w, int vectors, int64_t from, int rows, const int16_t *x,
                                    int32_t to[][8 * OUTS])
{
    const int64_t wide = spear_tile_in(w->in);
    const int8_t *at[8];
    VECTOR sum[ROWS][8];
    UNROLL_ALL
    for (int v = 0; v < vectors; v++) {
        const int64_t output = from + v * OUTS;
        at[v] = (const int8_t *)w->weights + output / STRIP * STRIP * wide + output % STRIP * 4;
    }
    UNROLL_ALL
    for (int r = 0; r < rows; r++)
        UNROLL_ALL
        for (int v = 0; v < vectors; v++) sum[r][v] = (VECTOR){0};
    for (int64_t i = 0; i < w->in; i += 4) {
        int64_t four[ROWS];
        UNROLL_ALL
        for (int r = 0; r < rows; r++) memcpy(four + r, x + r * wide + i, sizeof *four);
        UNROLL_ALL
        for (int v = 0; v < vectors; v++) {
            const VECTOR weight = WIDEN(at[v] + i * STRIP);
            UNROLL_ALL
            for (int r = 0; r < rows; r++) sum[r][v] = NAMED(dot)(sum[r][v], weight, four[r]);
        }
    }
    UNROLL_ALL
    for (int r = 0; r < rows; r++)
        UNROLL_ALL
        for (int v = 0; v < vectors; v++) {
            int32_t halves[LANES];
            memcpy(halves, &sum[r][v], sizeof halves);
            for (int j = 0; j < OUTS; j++) to[r][v * OUTS + j] = halves[2 * j] + halves[2 * j + 1];
        }
}

/* Strips first to last. Few rows have few sums under way: they take more outputs at a time. */
INLINE TARGET void NAMED(code_strips)(const struct matrix *w, int64_t first, int64_t last, int rows, const int16_t *x,
                                      const float *steps, const float *add, int64_t add_step, float *y)
{
    const int most = rows <= ROWS / 6 ? 8 : rows <= ROWS / 2 - 1 ? 4 : 2;
    int32_t to[ROWS][8 * OUTS];
    for (int64_t from = first * STRIP; from < last * STRIP && from < w->out;) {
        const int64_t vectors = last * STRIP - from < most * OUTS ? 2 : most, width = vectors * OUTS;
        const int64_t left = w->out - from < width ? w->out - from : width;
        if (vectors == most) NAMED(code_sums)(w, most, from, rows, x, to);
        else NAMED(code_sums)(w, 2, from, rows, x, to);
        for (int r = 0; r < rows; r++)
            finish(w->scale + from, left, to[r], steps[r], add ? add + r * add_step + from : NULL,
                   y + r * w->out + from);
        from += width;
    }
}

#define CASE(n)                                                                                                        \
    case n: NAMED(code_strips)(w, first, last, n, x + r * wide, steps + r, more, add_step, y + r * w->out); break;

TARGET static void NAMED(codes)(const struct matrix *w, int64_t first, int64_t last, int64_t rows, const int16_t *x,
                                const float *steps, const float *add, int64_t add_step, float *y)
{
    const int64_t wide = spear_tile_in(w->in), blocks = (rows + ROWS - 1) / ROWS;
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t r = b * rows / blocks;
        const float *more = add ? add + r * add_step : NULL;
        switch ((b + 1) * rows / blocks - r) {
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if ROWS > 6
            CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
        }
    }
}

#undef OUTS
#undef CASE
#undef WIDEN
#undef VECTOR
#undef ROWS
#undef LANES
#undef NAMED
#undef TARGET
