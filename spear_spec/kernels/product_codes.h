/* Products of 8-bit weights with numbers that are rounded to 16 bits: product.c includes this.

   A sum is a whole number below 2^31, so it is the same in any order. As floats the weights would cost three
   instructions for 16 products; so they cost two for 32. What rounding leaves out is 2^-15 of a row's largest number,
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

INLINE float steps_in_one(float top, float most) { return top > 0 && top <= 3.4028234e38f ? most / top : 0; }

/* Rows of x as codes [rows, 2 pairs], what is added being 0, and the steps that they count: NaN of codes that are 0
   where a number is NaN or infinite. */
EVERY_CPU static void round_rows(const float *x, int64_t rows, int64_t in, int16_t *codes, float *steps)
{
    const int64_t wide = (in + 1) / 2 * 2;
    const float most = most_steps(wide);
    for (int64_t r = 0; r < rows; r++, x += in, codes += wide) {
        const float top = largest(x, in), by = steps_in_one(top, most);
        codes[wide - 1] = 0;
        if (by > 0)
            for (int64_t i = 0; i < in; i++) codes[i] = (int16_t)(int32_t)rintf(x[i] * by);
        else
            memset(codes, 0, (size_t)wide * sizeof *codes);
        steps[r] = top / most;
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
EVERY_CPU static void plain_strip(const int8_t *at, int64_t pairs, const int16_t *x, int32_t *sums)
{
    memset(sums, 0, STRIP * sizeof *sums);
    for (int64_t i = 0; i < pairs; i++, at += 2 * STRIP)
        for (int64_t j = 0; j < STRIP; j++)
            sums[j] += (int32_t)at[2 * j] * x[2 * i] + (int32_t)at[2 * j + 1] * x[2 * i + 1];
}

/* Strips of rows that there is no room to round: each number anew for every strip. */
static void roundless_strip(const int8_t *at, int64_t in, const float *x, float by, int32_t *sums)
{
    memset(sums, 0, STRIP * sizeof *sums);
    for (int64_t i = 0; i < in; i++) {
        const int32_t code = code_of(x[i], by);
        for (int64_t j = 0; j < STRIP; j++) sums[j] += at[i / 2 * 2 * STRIP + 2 * j + i % 2] * code;
    }
}

#if WIDER
/* sum += products of 2 LANES weights at an address with the pair x, side by side. */
INLINE __attribute__((target("avx512f,avx512bw,avx512vnni"))) __m512i dot_vnni(__m512i sum, __m512i weight, int32_t x)
{
    return _mm512_dpwssd_epi32(sum, weight, _mm512_set1_epi32(x));
}
INLINE __attribute__((target("avx512f,avx512bw"))) __m512i dot_bw(__m512i sum, __m512i weight, int32_t x)
{
    return _mm512_add_epi32(sum, _mm512_madd_epi16(weight, _mm512_set1_epi32(x)));
}
INLINE __attribute__((target("avx2"))) __m256i dot_avx2(__m256i sum, __m256i weight, int32_t x)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(weight, _mm256_set1_epi32(x)));
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

/* Strips first to last. codes and steps: of `round_rows`; codes NULL: there was no room for them. */
static void sum_codes(const struct matrix *w, int64_t first, int64_t last, int64_t rows, const float *x,
                      const int16_t *codes, const float *steps, const float *add, int64_t add_step, float *y)
{
    const int64_t pairs = (w->in + 1) / 2;
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
            const int8_t *at = (const int8_t *)w->weights + from * 2 * pairs;
            int32_t sums[STRIP];
            float step;
            if (codes) {
                plain_strip(at, pairs, codes + r * 2 * pairs, sums);
                step = steps[r];
            } else {
                const float top = largest(x + r * w->in, w->in), most = most_steps(2 * pairs);
                roundless_strip(at, w->in, x + r * w->in, steps_in_one(top, most), sums);
                step = top / most;
            }
            finish(w->scale + from, width, sums, step, add ? add + r * add_step + from : NULL, y + r * w->out + from);
        }
}
