/* Matrix products of target, drafts and vocoder, for the widest vectors that the machine has. */

#include "product.h"
#include "wider.h"

#define FEW 4 /* rows that are read where they lie */

typedef float four_floats __attribute__((vector_size(16)));
typedef uint32_t four_words __attribute__((vector_size(16)));
typedef uint16_t four_halves __attribute__((vector_size(8)));
typedef int8_t four_bytes __attribute__((vector_size(4)));

/* Exact for all that is finite: the exponent is set right by a product, which also takes what lies below 2^-14. */
INLINE four_floats floats_of(const char *at)
{
    four_halves halves;
    memcpy(&halves, at, sizeof halves);
    const four_words bits = __builtin_convertvector(halves, four_words);
    four_floats size = (four_floats)((bits & 0x7fff) << 13) * 0x1p112f;
    return (four_floats)((four_words)size | (bits & 0x8000) << 16);
}

INLINE four_floats floats_of_bytes(const char *at)
{
    four_bytes bytes;
    memcpy(&bytes, at, sizeof bytes);
    return __builtin_convertvector(bytes, four_floats);
}

#define LANES 4
#define ROWS 4
#define NAMED(name) name##_4
#define TARGET
#define OF_HALVES(at) floats_of(at)
#define OF_BYTES(at) floats_of_bytes(at)
#include "product_lanes.h"

#if WIDER
#include <immintrin.h>

#define LANES 8
#define ROWS 6
#define NAMED(name) name##_8
#define TARGET __attribute__((target("avx2,fma,f16c")))
#define OF_HALVES(at) ((lanes_8)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(at))))
#define OF_BYTES(at) ((lanes_8)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(at)))))
#include "product_lanes.h"

#define LANES 16
#define ROWS 12
#define NAMED(name) name##_16
#define TARGET __attribute__((target("avx512f,avx512vl,avx2,fma,f16c")))
#define OF_HALVES(at) ((lanes_16)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(at))))
#define OF_BYTES(at) ((lanes_16)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(at)))))
#include "product_lanes.h"
#endif

void spear_product_strips(const struct matrix *w, int64_t first, int64_t last, int64_t rows, const float *x,
                          const float *add, int64_t add_step, float *y)
{
    float *packed = rows > FEW ? malloc((size_t)(rows * w->in) * sizeof *packed) : NULL;
#if WIDER
    if (spear_lanes() == 16) product_16(w, first, last, rows, x, add, add_step, y, packed);
    else if (spear_lanes() == 8) product_8(w, first, last, rows, x, add, add_step, y, packed);
    else
#endif
        product_4(w, first, last, rows, x, add, add_step, y, packed);
    free(packed);
}

void spear_product(const struct matrix *w, int64_t rows, const float *x, const float *add, int64_t add_step, float *y)
{
    spear_product_strips(w, 0, (w->out + STRIP - 1) / STRIP, rows, x, add, add_step, y);
}
