/* Matrix products for vectors of LANES floats: linear.c includes this once for each width, with TARGET (an attribute)
   and the names NAMED(x) that the width's functions have.

   Vectors are the compiler's own. What is computed for a row is the same whatever rows stand beside it: each sum runs
   over the input in order. */

typedef float NAMED(lanes) __attribute__((vector_size(4 * LANES)));
typedef int32_t NAMED(integers) __attribute__((vector_size(4 * LANES)));
typedef uint32_t NAMED(words) __attribute__((vector_size(4 * LANES)));

#define PARTS (WORDS / LANES) /* vectors in a quarter of a panel */

/* Sums of up to 4 rows for quarters first to last of a panel (all constants, once inlined); the rows share the
   conversion of the weights. */
INLINE TARGET void NAMED(quarters)(const int8_t *codes, int64_t in, int rows, const float *x, int first, int last,
                                   float sums[4][PANEL])
{
    NAMED(lanes) sum[4][4][PARTS] = {{{{0}}}};
    for (int64_t i = 0; i < in; i++, codes += PANEL)
        UNROLL
        for (int p = 0; p < PARTS; p++) {
            NAMED(words) four;
            memcpy(&four, codes + (size_t)p * sizeof four, sizeof four);
            UNROLL
            for (int q = first; q < last; q++) {
                const NAMED(integers) bytes = (NAMED(integers))(four << (24 - 8 * q)) >> 24;
                const NAMED(lanes) code = __builtin_convertvector(bytes, NAMED(lanes));
                UNROLL
                for (int r = 0; r < rows; r++) sum[r][q][p] += x[r * in + i] * code;
            }
        }
    for (int r = 0; r < rows; r++)
        for (int q = first; q < last; q++) memcpy(sums[r] + q * WORDS, sum[r][q], sizeof sum[r][q]);
}

/* Not more than 8 vectors of sums at a time, or they would not stay in registers (16 where a quarter of 4 rows is
   that). */
INLINE TARGET void NAMED(columns)(const struct linear *w, int rows, const float *x, const float *add, int64_t add_step,
                                  float *y)
{
    const int64_t in = w->in, out = w->out;
    for (int64_t first = 0; first < out; first += PANEL) {
        const int8_t *codes = w->codes + first * in;
        const int vectors = (rows > 2 ? 4 : rows) * PARTS;
        float sums[4][PANEL];
        if (vectors <= 2) {
            NAMED(quarters)(codes, in, rows, x, 0, 4, sums);
        } else if (vectors <= 4) {
            NAMED(quarters)(codes, in, rows, x, 0, 2, sums);
            NAMED(quarters)(codes, in, rows, x, 2, 4, sums);
        } else {
            NAMED(quarters)(codes, in, rows, x, 0, 1, sums);
            NAMED(quarters)(codes, in, rows, x, 1, 2, sums);
            NAMED(quarters)(codes, in, rows, x, 2, 3, sums);
            NAMED(quarters)(codes, in, rows, x, 3, 4, sums);
        }
        const int64_t width = out - first < PANEL ? out - first : PANEL;
        for (int r = 0; r < rows; r++) {
            const float *sum = sums[r], *scale = w->scale + first, *more = add ? add + r * add_step + first : NULL;
            float *to = y + r * out + first;
            if (more)
                for (int64_t j = 0; j < width; j++) to[j] = sum[j] * scale[j] + more[j];
            else
                for (int64_t j = 0; j < width; j++) to[j] = sum[j] * scale[j];
        }
    }
}

TARGET static void NAMED(multiply)(const struct linear *w, int64_t rows, const float *x, const float *add,
                                   int64_t add_step, float *y)
{
    for (int64_t r = 0; r < rows; r += 4) {
        const float *from = x + r * w->in, *more = add ? add + r * add_step : NULL;
        float *to = y + r * w->out;
        switch (rows - r) {
        case 1: NAMED(columns)(w, 1, from, more, add_step, to); break;
        case 2: NAMED(columns)(w, 2, from, more, add_step, to); break;
        case 3: NAMED(columns)(w, 3, from, more, add_step, to); break;
        default: NAMED(columns)(w, 4, from, more, add_step, to);
        }
    }
}

#undef PARTS
#undef LANES
#undef NAMED
#undef TARGET
