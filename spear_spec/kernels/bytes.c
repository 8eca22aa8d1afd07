/* Products in whole numbers: by tiles where the machine has them, by VNNI where it has that (four products a lane and
   instruction), else by what the compiler makes of the loops. */

#include "bytes.h"

#if WIDER
#include <immintrin.h>
#endif

#define TILE 1024 /* bytes */
#define LEAST 1e-30f /* the largest number of a row below this is as good as none: 127 divided by it could be infinite */

/* What one of a row's codes stands for. unit: of the row divided by its length, or by `least` where that is less. */
INLINE float step_of(float top, int unit, float squares, float least)
{
    if (!unit) return top / 127;
    const float size = sqrtf(squares);
    return top / 127 / (size < least ? least : size);
}

/* As any machine can. */
EVERY_CPU static void round_rows(const float *x, int64_t in, int unit, float least, struct codes *to)
{
    int8_t *codes = to->codes;
    for (int64_t r = 0; r < to->rows; r++, x += in, codes += to->wide) {
        uint32_t largest = 0; /* sizes are ordered as their bits are, NaN above all: whole numbers can be compared at once */
        for (int64_t i = 0; i < in; i++) {
            uint32_t bits;
            memcpy(&bits, x + i, sizeof bits);
            bits &= 0x7fffffff;
            largest = bits > largest ? bits : largest;
        }
        float top, squares = 0;
        memcpy(&top, &largest, sizeof top);
        if (unit)
            for (int64_t i = 0; i < in; i++) squares += x[i] * x[i];
        const int fine = top >= LEAST && top <= 3.4028234e38f; /* else codes of 0, and a step that makes NaN of what is not 0 */
        const float by = fine ? 127 / top : 0;
        int32_t sum = 0;
        memset(codes, 0, (size_t)to->wide);
        if (fine)
            for (int64_t i = 0; i < in; i++) codes[i] = (int8_t)(int32_t)rintf(x[i] * by); /* ties to even */
        for (int64_t i = 0; i < in; i++) sum += codes[i];
        to->step[r] = step_of(top, unit, squares, least);
        to->total[r] = sum;
    }
}

#if WIDER
#define WIDE __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw")))

/* The same, sixteen numbers at a time. */
WIDE static void round_rows_16(const float *x, int64_t in, int unit, float least, struct codes *to)
{
    const __m512i size = _mm512_set1_epi32(0x7fffffff), ones = _mm512_set1_epi8(1), pairs = _mm512_set1_epi16(1);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15); /* as it was in x */
    int8_t *codes = to->codes;
    for (int64_t r = 0; r < to->rows; r++, x += in, codes += to->wide) {
        __m512i largest = _mm512_setzero_si512(), sum = largest;
        __m512 squares = _mm512_setzero_ps();
        for (int64_t i = 0; i < in; i += 16) {
            const __mmask16 there = in - i < 16 ? (__mmask16)((1u << (in - i)) - 1) : (__mmask16)0xffff;
            const __m512 own = _mm512_maskz_loadu_ps(there, x + i);
            largest = _mm512_max_epu32(largest, _mm512_and_si512(_mm512_castps_si512(own), size));
            squares = _mm512_fmadd_ps(own, own, squares);
        }
        const uint32_t bits = _mm512_reduce_max_epu32(largest);
        float top;
        memcpy(&top, &bits, sizeof top);
        const int fine = top >= LEAST && top <= 3.4028234e38f;
        const __m512 by = _mm512_set1_ps(fine ? 127 / top : 0);
        for (int64_t i = 0; i < to->wide; i += 64) {
            __m512i code[4];
            UNROLL_ALL
            for (int part = 0; part < 4; part++) {
                const int64_t left = in - i - 16 * part;
                const __mmask16 there = left >= 16 ? (__mmask16)0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
                const __m512 own = _mm512_maskz_loadu_ps(fine ? there : 0, x + i + 16 * part);
                code[part] = _mm512_cvtps_epi32(_mm512_mul_ps(own, by));
            }
            const __m512i low = _mm512_packs_epi32(code[0], code[1]), high = _mm512_packs_epi32(code[2], code[3]);
            const __m512i all = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
            _mm512_store_si512(codes + i, all);
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(ones, all), pairs));
        }
        to->step[r] = step_of(top, unit, unit ? _mm512_reduce_add_ps(squares) : 0, least);
        to->total[r] = _mm512_reduce_add_epi32(sum);
    }
}
#endif

struct codes spear_codes(const float *x, int64_t rows, int64_t in, int unit, float least, void *room)
{
    const int64_t wide = spear_tile_in(in);
    int8_t *codes = (int8_t *)(((uintptr_t)room + 63) / 64 * 64);
    float *step = (float *)(codes + rows * wide);
    struct codes to = {rows, wide, codes, step, (int32_t *)(step + rows)};
#if WIDER
    if (spear_lanes() == 16 && __builtin_cpu_supports("avx512bw")) round_rows_16(x, in, unit, least, &to);
    else
#endif
        round_rows(x, in, unit, least, &to);
    return to;
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

#if WIDER
/* The same of one row and what is in registers or near. */
INLINE WIDE void finish_16(const __m512 *scale, const __mmask16 *there, const __m512i *sum, float step, int32_t total,
                           const float *add, float *y)
{
    const __m512 steps = _mm512_set1_ps(step);
    const __m512i less = _mm512_set1_epi32(128 * total);
    UNROLL_ALL
    for (int q = 0; q < 4; q++) {
        const __m512 whole = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum[q], less));
        /* as it stands, whatever the flags let the compiler do to products: step times scale would round otherwise */
        const __m512 value = _mm512_mul_round_ps(whole, steps, _MM_FROUND_CUR_DIRECTION);
        const __m512 out = add ? _mm512_fmadd_ps(value, scale[q], _mm512_maskz_loadu_ps(there[q], add + 16 * q))
                               : _mm512_mul_ps(value, scale[q]);
        _mm512_mask_storeu_ps(y + 16 * q, there[q], out);
    }
}

/* Which of a tile's outputs there are, and their scales. */
INLINE WIDE void scales_16(const struct bytes *w, int64_t first, __mmask16 *there, __m512 *scale)
{
    const int64_t width = w->out - first;
    const uint64_t all = width < TILE_OUT ? ((uint64_t)1 << width) - 1 : ~(uint64_t)0;
    UNROLL_ALL
    for (int q = 0; q < 4; q++) {
        there[q] = (__mmask16)(all >> (16 * q));
        scale[q] = _mm512_maskz_loadu_ps(there[q], w->scale + first + 16 * q);
    }
}
#endif

EVERY_CPU static void plain(const uint8_t *codes, int64_t in, const int8_t *x, int32_t *sums)
{
    memset(sums, 0, TILE_OUT * sizeof *sums);
    for (int64_t i = 0; i < in; i += 4, codes += 4 * TILE_OUT)
        for (int64_t j = 0; j < TILE_OUT; j++)
            for (int64_t c = 0; c < 4; c++) sums[j] += (int32_t)codes[4 * j + c] * x[i + c];
}

#if WIDER
#define VNNI __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx512vnni")))

/* A tile of up to 5 rows (a constant, once inlined): weights are read once for all of them. Few rows have few sums under
   way: these go in `parts`, by inputs that take turns. */
INLINE VNNI void tile(int rows, int parts, const struct bytes *w, int64_t first, const struct codes *x, int64_t r,
                      const float *add, int64_t add_step, float *y)
{
    const uint8_t *codes = w->codes + first * x->wide;
    __mmask16 there[4];
    __m512 scale[4];
    __m512i sum[5][4][4];
    scales_16(w, first, there, scale);
    UNROLL_ALL
    for (int g = 0; g < rows; g++)
        UNROLL_ALL
        for (int q = 0; q < 4; q++)
            UNROLL_ALL
            for (int p = 0; p < parts; p++) sum[g][q][p] = _mm512_setzero_si512();
    for (int64_t i = 0; i < x->wide; i += 4 * parts)
        UNROLL_ALL
        for (int p = 0; p < parts; p++, codes += 4 * TILE_OUT) {
            __m512i weight[4];
            UNROLL_ALL
            for (int q = 0; q < 4; q++) weight[q] = _mm512_loadu_si512(codes + 64 * q);
            UNROLL_ALL
            for (int g = 0; g < rows; g++) {
                int32_t four;
                memcpy(&four, x->codes + (r + g) * x->wide + i + 4 * p, sizeof four);
                const __m512i all = _mm512_set1_epi32(four);
                UNROLL_ALL
                for (int q = 0; q < 4; q++) sum[g][q][p] = _mm512_dpbusd_epi32(sum[g][q][p], weight[q], all);
            }
        }
    UNROLL_ALL
    for (int g = 0; g < rows; g++) {
        __m512i whole[4];
        UNROLL_ALL
        for (int q = 0; q < 4; q++) {
            whole[q] = sum[g][q][0];
            UNROLL_ALL
            for (int p = 1; p < parts; p++) whole[q] = _mm512_add_epi32(whole[q], sum[g][q][p]);
        }
        finish_16(scale, there, whole, x->step[r + g], x->total[r + g], add ? add + (r + g) * add_step + first : NULL,
                  y + (r + g) * w->out + first);
    }
}

VNNI static void by_vnni(const struct bytes *w, const struct codes *x, const float *add, int64_t add_step, float *y)
{
    for (int64_t first = 0; first < w->out; first += TILE_OUT)
        for (int64_t r = 0; r < x->rows; r += 5)
            switch (x->rows - r) {
            case 1: tile(1, 4, w, first, x, r, add, add_step, y); break;
            case 2: tile(2, 2, w, first, x, r, add, add_step, y); break;
            case 3: tile(3, 2, w, first, x, r, add, add_step, y); break;
            case 4: tile(4, 1, w, first, x, r, add, add_step, y); break;
            default: tile(5, 1, w, first, x, r, add, add_step, y);
            }
}
#endif

#if TILES
TILED static void by_tiles(const struct bytes *w, const struct codes *x, const float *add, int64_t add_step, float *y)
{
    const int64_t wide = x->wide, rows = x->rows;
    const struct tiled_rows by = spear_tiled_rows(rows);
    int32_t sums[TILE_ROWS][TILE_OUT];
    TILES_SHAPED(by.height);
    for (int64_t first = 0; first < w->out; first += TILE_OUT)
        for (int64_t b = 0; b < by.blocks; b++) {
            const int64_t r = b * by.height, from = r < rows - by.height ? r : rows - by.height;
            const uint8_t *at = w->codes + first * wide;
            TILE_ZERO(0);
            TILE_ZERO(1);
            TILE_ZERO(2);
            TILE_ZERO(3);
            for (int64_t i = 0; i < wide; i += TILE_IN, at += TILE_IN * TILE_OUT) {
                TILE_LOAD(4, x->codes + from * wide + i, wide);
                TILE_LOAD(6, at, 4 * TILE_OUT);
                spear_tile_ahead(at + 4 * TILE);
                TILE_ADD_SU(0, 4, 6);
                TILE_LOAD(7, at + 64, 4 * TILE_OUT);
                spear_tile_ahead(at + 5 * TILE);
                TILE_ADD_SU(1, 4, 7);
                TILE_LOAD(6, at + 128, 4 * TILE_OUT);
                spear_tile_ahead(at + 6 * TILE);
                TILE_ADD_SU(2, 4, 6);
                TILE_LOAD(7, at + 192, 4 * TILE_OUT);
                spear_tile_ahead(at + 7 * TILE);
                TILE_ADD_SU(3, 4, 7);
            }
            TILE_STORE(0, sums[0], sizeof *sums);
            TILE_STORE(1, sums[0] + 16, sizeof *sums);
            TILE_STORE(2, sums[0] + 32, sizeof *sums);
            TILE_STORE(3, sums[0] + 48, sizeof *sums);
#if TILES == 1
            __mmask16 there[4];
            __m512 scale[4];
            scales_16(w, first, there, scale);
            for (int64_t k = r; k < from + by.height; k++) {
                __m512i sum[4];
                memcpy(sum, sums[k - from], sizeof sum);
                finish_16(scale, there, sum, x->step[k], x->total[k], add ? add + k * add_step + first : NULL,
                          y + k * w->out + first);
            }
#else
            finish(w->scale + first, w->out - first < TILE_OUT ? w->out - first : TILE_OUT, from + by.height - r,
                   (const int32_t(*)[TILE_OUT])sums + (r - from), x->step + r, x->total + r,
                   add ? add + r * add_step + first : NULL, add_step, y + r * w->out + first, w->out);
#endif
        }
    TILES_DONE();
}
#endif

void spear_of_codes(const struct bytes *w, const struct codes *x, const float *add, int64_t add_step, float *y)
{
#if TILES
    if (spear_tiled(x->rows)) {
        by_tiles(w, x, add, add_step, y);
        return;
    }
#endif
#if WIDER
    if (spear_lanes() == 16 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni")) {
        by_vnni(w, x, add, add_step, y);
        return;
    }
#endif
    int32_t sums[1][TILE_OUT];
    for (int64_t first = 0; first < w->out; first += TILE_OUT)
        for (int64_t r = 0; r < x->rows; r++) {
            plain(w->codes + first * x->wide, w->in, x->codes + r * x->wide, *sums);
            finish(w->scale + first, w->out - first < TILE_OUT ? w->out - first : TILE_OUT, 1,
                   (const int32_t(*)[TILE_OUT])sums, x->step + r, x->total + r,
                   add ? add + r * add_step + first : NULL, add_step, y + r * w->out + first, w->out);
        }
}

void spear_bytes(const struct bytes *w, int64_t rows, const float *x, const float *add, int64_t add_step, float *y,
                 void *room)
{
    const struct codes codes = spear_codes(x, rows, w->in, 0, 0, room);
    spear_of_codes(w, &codes, add, add_step, y);
}

void spear_bytes_unit(const struct bytes *w, int64_t rows, const float *x, float least, const float *add, int64_t add_step,
                      float *y, void *room)
{
    const struct codes codes = spear_codes(x, rows, w->in, 1, least, room);
    spear_of_codes(w, &codes, add, add_step, y);
}
