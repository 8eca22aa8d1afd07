/* Products in whole numbers: by tiles where the machine has them, by VNNI where it has that (four products a lane and
   instruction), else by what the compiler makes of the loops. */

#include "bytes.h"

#if WIDER
#include <immintrin.h>
#endif

#define LEAST 1e-30f /* the largest number of a row below this is as good as none: 127 divided by it could be infinite */

/* Rows of x as codes [rows, wide] with their steps and sums; wide: `in` rounded up, what is added is 0. */
EVERY_CPU static void round_rows(const float *x, int64_t rows, int64_t in, int64_t wide, int8_t *codes, float *step,
                                 int32_t *total)
{
    for (int64_t r = 0; r < rows; r++, x += in, codes += wide) {
        uint32_t largest = 0; /* sizes are ordered as their bits are, NaN above all: whole numbers can be compared at once */
        for (int64_t i = 0; i < in; i++) {
            uint32_t bits;
            memcpy(&bits, x + i, sizeof bits);
            bits &= 0x7fffffff;
            largest = bits > largest ? bits : largest;
        }
        float top;
        memcpy(&top, &largest, sizeof top);
        const int fine = top >= LEAST && top <= 3.4028234e38f; /* else codes of 0, and a step that makes NaN of what is not 0 */
        const float by = fine ? 127 / top : 0;
        int32_t sum = 0;
        memset(codes, 0, (size_t)wide);
        if (fine)
            for (int64_t i = 0; i < in; i++) codes[i] = (int8_t)(int32_t)rintf(x[i] * by); /* ties to even */
        for (int64_t i = 0; i < in; i++) sum += codes[i];
        step[r] = top / 127;
        total[r] = sum;
    }
}

/* From sums of one tile to outputs of some rows; add and y: NULL or the first row's, at the tile's first output. */
EVERY_CPU static void finish(const float *restrict scale, int64_t width, int64_t rows, const int32_t (*sums)[TILE_OUT],
                             const float *step, const int32_t *total, const float *add, int64_t add_step, float *y,
                             int64_t y_step)
{
    float values[TILE_OUT];
    for (int64_t r = 0; r < rows; r++, y += y_step) {
        const int32_t less = 128 * total[r];
        for (int64_t j = 0; j < TILE_OUT; j++) values[j] = (float)(sums[r][j] - less) * step[r];
        if (add) {
            for (int64_t j = 0; j < width; j++) y[j] = values[j] * scale[j] + add[j];
            add += add_step;
        } else {
            for (int64_t j = 0; j < width; j++) y[j] = values[j] * scale[j];
        }
    }
}

EVERY_CPU static void plain(const uint8_t *codes, int64_t in, const int8_t *x, int32_t *sums)
{
    memset(sums, 0, TILE_OUT * sizeof *sums);
    for (int64_t i = 0; i < in; i += 4, codes += 4 * TILE_OUT)
        for (int64_t j = 0; j < TILE_OUT; j++)
            for (int64_t c = 0; c < 4; c++) sums[j] += (int32_t)codes[4 * j + c] * x[i + c];
}

#if WIDER
#define VNNI __attribute__((target("avx512f,avx512vl,avx512bw,avx512vnni")))

/* Sums of up to 5 rows (a constant, once inlined): weights are read once for all of them. */
INLINE VNNI void tile(int rows, const uint8_t *codes, int64_t in, int64_t wide, const int8_t *x,
                      int32_t sums[5][TILE_OUT])
{
    __m512i sum[5][4];
    UNROLL_ALL
    for (int r = 0; r < rows; r++)
        UNROLL_ALL
        for (int q = 0; q < 4; q++) sum[r][q] = _mm512_setzero_si512();
    for (int64_t i = 0; i < in; i += 4, codes += 4 * TILE_OUT) {
        __m512i weight[4];
        UNROLL_ALL
        for (int q = 0; q < 4; q++) weight[q] = _mm512_loadu_si512(codes + 64 * q);
        UNROLL_ALL
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, x + r * wide + i, sizeof four);
            const __m512i all = _mm512_set1_epi32(four);
            UNROLL_ALL
            for (int q = 0; q < 4; q++) sum[r][q] = _mm512_dpbusd_epi32(sum[r][q], weight[q], all);
        }
    }
    UNROLL_ALL
    for (int r = 0; r < rows; r++)
        UNROLL_ALL
        for (int q = 0; q < 4; q++) _mm512_storeu_si512(sums[r] + 16 * q, sum[r][q]);
}

VNNI static void tiles(int rows, const uint8_t *codes, int64_t in, int64_t wide, const int8_t *x,
                       int32_t sums[5][TILE_OUT])
{
    switch (rows) {
    case 1: tile(1, codes, in, wide, x, sums); break;
    case 2: tile(2, codes, in, wide, x, sums); break;
    case 3: tile(3, codes, in, wide, x, sums); break;
    case 4: tile(4, codes, in, wide, x, sums); break;
    default: tile(5, codes, in, wide, x, sums);
    }
}
#endif

#if TILES
TILED static void by_tiles(const struct bytes *w, int64_t rows, const int8_t *codes, const float *step,
                           const int32_t *total, const float *add, int64_t add_step, float *y)
{
    const int64_t wide = spear_tile_in(w->in);
    const struct tiled_rows by = spear_tiled_rows(rows);
    int32_t sums[TILE_ROWS][TILE_OUT];
    TILES_SHAPED(by.height);
    for (int64_t first = 0; first < w->out; first += TILE_OUT)
        for (int64_t b = 0; b < by.blocks; b++) {
            const int64_t r = b * by.height, from = r < rows - by.height ? r : rows - by.height;
            const int64_t count = from + by.height - r;
            const uint8_t *at = w->codes + first * wide;
            TILE_ZERO(0);
            TILE_ZERO(1);
            TILE_ZERO(2);
            TILE_ZERO(3);
            for (int64_t i = 0; i < wide; i += TILE_IN, at += TILE_IN * TILE_OUT) {
                TILE_LOAD(4, codes + from * wide + i, wide);
                TILE_LOAD(6, at, 4 * TILE_OUT);
                TILE_ADD_SU(0, 4, 6);
                TILE_LOAD(7, at + 64, 4 * TILE_OUT);
                TILE_ADD_SU(1, 4, 7);
                TILE_LOAD(6, at + 128, 4 * TILE_OUT);
                TILE_ADD_SU(2, 4, 6);
                TILE_LOAD(7, at + 192, 4 * TILE_OUT);
                TILE_ADD_SU(3, 4, 7);
            }
            TILE_STORE(0, sums[0], sizeof *sums);
            TILE_STORE(1, sums[0] + 16, sizeof *sums);
            TILE_STORE(2, sums[0] + 32, sizeof *sums);
            TILE_STORE(3, sums[0] + 48, sizeof *sums);
            finish(w->scale + first, w->out - first < TILE_OUT ? w->out - first : TILE_OUT, count,
                   (const int32_t(*)[TILE_OUT])sums + (r - from), step + r, total + r,
                   add ? add + r * add_step + first : NULL, add_step, y + r * w->out + first, w->out);
        }
    TILES_DONE();
}
#endif

void spear_bytes(const struct bytes *w, int64_t rows, const float *x, const float *add, int64_t add_step, float *y,
                 void *room)
{
    const int64_t wide = spear_tile_in(w->in);
    int8_t *codes = (int8_t *)(((uintptr_t)room + 63) / 64 * 64);
    float *step = (float *)(codes + rows * wide);
    int32_t *total = (int32_t *)(step + rows), sums[5][TILE_OUT];
    round_rows(x, rows, w->in, wide, codes, step, total);
#if TILES
    if (spear_tiled(rows)) {
        by_tiles(w, rows, codes, step, total, add, add_step, y);
        return;
    }
#endif
#if WIDER
    const int quick = spear_lanes() == 16 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni");
#endif
    for (int64_t first = 0; first < w->out; first += TILE_OUT) {
        const uint8_t *tile_codes = w->codes + first * wide;
        for (int64_t r = 0; r < rows; r += 5) {
            const int group = rows - r < 5 ? (int)(rows - r) : 5;
#if WIDER
            if (quick)
                tiles(group, tile_codes, w->in, wide, codes + r * wide, sums);
            else
#endif
                for (int g = 0; g < group; g++) plain(tile_codes, w->in, codes + (r + g) * wide, sums[g]);
            finish(w->scale + first, w->out - first < TILE_OUT ? w->out - first : TILE_OUT, group,
                   (const int32_t(*)[TILE_OUT])sums, step + r, total + r, add ? add + r * add_step + first : NULL,
                   add_step, y + r * w->out + first, w->out);
        }
    }
}
