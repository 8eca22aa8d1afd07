/* Products of 8-bit weights with numbers that are rounded to 16 bits: product.c includes this.

   A sum is a whole number below 2^31, so it is the same in any order. As floats the weights would cost three
   instructions for 16 products; so they cost two for 32, and by tiles three for 16,384 and their upper and lower halves.
   What rounding leaves out is 2^-15 of a row's largest number,
   a hundredth of what the weights have lost. */

/* So many steps has the largest number of a row, and its product with codes of 127 still fits. */
INLINE float most_steps(int64_t in)
{
    const int64_t most = INT32_MAX / (127 * in);
    return most > INT16_MAX ? INT16_MAX : (float)most;
}

/* x rounded to codes, by: steps in 1; 0 where there is none or no number that one could divide by. */
INLINE int16_t code_of(float x, float by) { return by > 0 ? (int16_t)(int32_t)rintf(x * by) : 0; }

INLINE float largest(const float *x, int64_t count)
{
    uint32_t most = 0; /* sizes are ordered as their bits are, NaN above all: whole numbers can be compared at once */
    float top;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    memcpy(&top, &most, sizeof top);
    return top;
}

/* Below the least a row is as good as 0: `most` divided by it could be infinite. */
INLINE float steps_in_one(float top, float most) { return top >= 1e-30f && top <= 3.4028234e38f ? most / top : 0; }

/* The steps of a row, and how many are in 1: NaN and 0 where a number is NaN or infinite, so that codes of 0 give NaN. */
INLINE float step_of(const float *x, int64_t in, float *by)
{
    const float top = largest(x, in), most = most_steps(in);
    *by = steps_in_one(top, most);
    return top / most;
}

/* Rows of x as codes [rows, wide], what is added being 0, and the steps that they count. */
EVERY_CPU static void round_rows(const float *x, int64_t rows, int64_t in, int16_t *codes, float *steps)
{
    const int64_t wide = spear_tile_in(in);
    for (int64_t r = 0; r < rows; r++, x += in, codes += wide) {
        float by;
        steps[r] = step_of(x, in, &by);
        memset(codes, 0, (size_t)wide * sizeof *codes);
        if (by > 0)
            for (int64_t i = 0; i < in; i++) codes[i] = (int16_t)(int32_t)rintf(x[i] * by);
    }
}

/* From sums to outputs of one row. */
EVERY_CPU static void finish(const float *restrict scale, int64_t width, const int32_t *restrict sums, float step,
                             const float *add, float *y)
{
    if (add)
        for (int64_t j = 0; j < width; j++) y[j] = (float)sums[j] * step * scale[j] + add[j];
    else
        for (int64_t j = 0; j < width; j++) y[j] = (float)sums[j] * step * scale[j];
}

/* One strip of one row, as any machine can. */
EVERY_CPU static void plain_strip(const int8_t *at, int64_t in, const int16_t *x, int32_t *sums)
{
    memset(sums, 0, STRIP * sizeof *sums);
    for (int64_t i = 0; i < in; i += 4, at += 4 * STRIP)
        for (int64_t j = 0; j < STRIP; j++)
            for (int64_t c = 0; c < 4; c++) sums[j] += (int32_t)at[4 * j + c] * x[i + c];
}

/* Strips of rows that there is no room to round: each number anew for every strip. */
static void roundless_strip(const int8_t *at, int64_t in, const float *x, float by, int32_t *sums)
{
    memset(sums, 0, STRIP * sizeof *sums);
    for (int64_t i = 0; i < in; i++) {
        const int32_t code = code_of(x[i], by);
        for (int64_t j = 0; j < STRIP; j++) sums[j] += at[i / 4 * 4 * STRIP + 4 * j + i % 4] * code;
    }
}

#if WIDER
/* sum += products of 2 LANES weights with the four of x again and again, two by two. */
INLINE __attribute__((target("avx512f,avx512bw,avx512vnni"))) __m512i dot_vnni(__m512i sum, __m512i weight, int64_t x)
{
    return _mm512_dpwssd_epi32(sum, weight, _mm512_set1_epi64(x));
}
INLINE __attribute__((target("avx512f,avx512bw"))) __m512i dot_bw(__m512i sum, __m512i weight, int64_t x)
{
    return _mm512_add_epi32(sum, _mm512_madd_epi16(weight, _mm512_set1_epi64(x)));
}
INLINE __attribute__((target("avx2"))) __m256i dot_avx2(__m256i sum, __m256i weight, int64_t x)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(weight, _mm256_set1_epi64x(x)));
}

#define LANES 16
#define ROWS 12
#define NAMED(name) name##_vnni
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vnni")))
#define VECTOR __m512i
#define WIDEN(at) _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(at)))
#include "product_code_lanes.h"

#define LANES 16
#define ROWS 12
#define NAMED(name) name##_bw
#define TARGET __attribute__((target("avx512f,avx512bw")))
#define VECTOR __m512i
#define WIDEN(at) _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(at)))
#include "product_code_lanes.h"

#define LANES 8
#define ROWS 6
#define NAMED(name) name##_avx2
#define TARGET __attribute__((target("avx2")))
#define VECTOR __m256i
#define WIDEN(at) _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(at)))
#include "product_code_lanes.h"
#endif

#if TILES
#define TOGETHER 8 /* strips whose sums lie side by side */

/* Rows of x as the upper and, behind those of all rows, the lower halves of codes [2][rows, wide]. */
EVERY_CPU static void halve_rows(const float *x, int64_t rows, int64_t in, int8_t *halves, float *steps)
{
    const int64_t wide = spear_tile_in(in);
    uint8_t *lower = (uint8_t *)(halves + rows * wide);
    for (int64_t r = 0; r < rows; r++, x += in, halves += wide, lower += wide) {
        float by;
        steps[r] = step_of(x, in, &by);
        memset(halves, 0, (size_t)wide);
        memset(lower, 0, (size_t)wide);
        if (by > 0)
            for (int64_t i = 0; i < in; i++) {
                const int32_t code = (int32_t)rintf(x[i] * by);
                halves[i] = (int8_t)(code >> 8);
                lower[i] = (uint8_t)code;
            }
    }
}

/* From sums of halves to outputs of one row. */
EVERY_CPU static void finish_halves(const float *restrict scale, int64_t width, const int32_t *restrict upper,
                                    const int32_t *restrict lower, float step, const float *add, float *y)
{
    if (add)
        for (int64_t j = 0; j < width; j++)
            y[j] = (float)(int32_t)((uint32_t)upper[j] * 256 + (uint32_t)lower[j]) * step * scale[j] + add[j];
    else
        for (int64_t j = 0; j < width; j++)
            y[j] = (float)(int32_t)((uint32_t)upper[j] * 256 + (uint32_t)lower[j]) * step * scale[j];
}

TILED static void codes_by_tiles(const struct matrix *w, int64_t first, int64_t last, int64_t rows,
                                 const int8_t *halves, const float *steps, const float *add, int64_t add_step, float *y)
{
    const int64_t wide = spear_tile_in(w->in);
    const struct tiled_rows by = spear_tiled_rows(rows);
    int32_t upper[TILE_ROWS][TOGETHER * STRIP], lower[TILE_ROWS][TOGETHER * STRIP];
    TILES_SHAPED(by.height);
    for (int64_t strip = first; strip < last; strip += TOGETHER)
        for (int64_t b = 0; b < by.blocks; b++) {
            const int64_t r = b * by.height, from = r < rows - by.height ? r : rows - by.height;
            const int64_t end = strip + TOGETHER < last ? strip + TOGETHER : last, out = strip * STRIP;
            const int64_t width = (end * STRIP < w->out ? end * STRIP : w->out) - out;
            const int8_t *at = (const int8_t *)w->weights + out * wide, *x = halves + from * wide;
            for (int64_t s = 0; s < end - strip; s++) {
                TILE_ZERO(0);
                TILE_ZERO(1);
                TILE_ZERO(2);
                TILE_ZERO(3);
                for (int64_t i = 0; i < wide; i += TILE_IN, at += TILE_IN * STRIP) {
                    TILE_LOAD(4, x + i, wide);
                    TILE_LOAD(5, x + rows * wide + i, wide);
                    TILE_LOAD(6, at, 4 * STRIP);
                    spear_tile_ahead(at + 4096);
                    TILE_ADD_SS(0, 4, 6);
                    TILE_ADD_US(2, 5, 6);
                    TILE_LOAD(7, at + 64, 4 * STRIP);
                    spear_tile_ahead(at + 5120);
                    TILE_ADD_SS(1, 4, 7);
                    TILE_ADD_US(3, 5, 7);
                }
                TILE_STORE(0, upper[0] + s * STRIP, sizeof *upper);
                TILE_STORE(1, upper[0] + s * STRIP + 16, sizeof *upper);
                TILE_STORE(2, lower[0] + s * STRIP, sizeof *lower);
                TILE_STORE(3, lower[0] + s * STRIP + 16, sizeof *lower);
            }
            for (int64_t k = r; k < from + by.height; k++)
                finish_halves(w->scale + out, width, upper[k - from], lower[k - from], steps[k],
                              add ? add + k * add_step + out : NULL, y + k * w->out + out);
        }
    TILES_DONE();
}
#endif

/* Strips first to last. codes and steps: of `round_rows`, or of `halve_rows` where the rows go through tiles; codes NULL: there was
   no room for them. */
static void sum_codes(const struct matrix *w, int64_t first, int64_t last, int64_t rows, const float *x,
                      const void *rounded, const float *steps, const float *add, int64_t add_step, float *y)
{
    const int64_t wide = spear_tile_in(w->in);
    const int16_t *codes = rounded;
#if TILES
    if (codes && spear_tiled(rows)) {
        codes_by_tiles(w, first, last, rows, rounded, steps, add, add_step, y);
        return;
    }
#endif
#if WIDER
    if (codes && spear_lanes() == 16 && __builtin_cpu_supports("avx512bw")) {
        (__builtin_cpu_supports("avx512vnni") ? codes_vnni : codes_bw)(w, first, last, rows, codes, steps, add,
                                                                       add_step, y);
        return;
    }
    if (codes && spear_lanes() == 8) {
        codes_avx2(w, first, last, rows, codes, steps, add, add_step, y);
        return;
    }
#endif
    for (int64_t strip = first; strip < last; strip++)
        for (int64_t r = 0; r < rows; r++) {
            const int64_t from = strip * STRIP, left = w->out - from, width = left < STRIP ? left : STRIP;
            const int8_t *at = (const int8_t *)w->weights + from * wide;
            int32_t sums[STRIP];
            float by, step;
            if (codes) {
                plain_strip(at, w->in, codes + r * wide, sums);
                step = steps[r];
            } else {
                step = step_of(x + r * w->in, w->in, &by);
                roundless_strip(at, w->in, x + r * w->in, by, sums);
            }
            finish(w->scale + from, width, sums, step, add ? add + r * add_step + from : NULL, y + r * w->out + from);
        }
}
