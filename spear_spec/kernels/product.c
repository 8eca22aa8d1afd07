/* Matrix products of target, drafts and vocoder, for the widest vectors that the machine has. */

#include "product.h"
#include "team.h"
#include "tiles.h"

#define FEW 4 /* rows that are read where they lie */
#define AHEAD 24 /* inputs whose weights are on their way */
#define FAR 128  /* at least into the second cache */
#define ENOUGH 300000 /* multiplications that are worth a second thread: some 15 microseconds */

typedef float four_floats __attribute__((vector_size(16)));
typedef uint32_t four_words __attribute__((vector_size(16)));
typedef uint16_t four_halves __attribute__((vector_size(8)));

/* Rows x [rows, in] side by side: to [in, rows], rows above 4. Squares of four by four: one number after the other would
   cost as much as a twentieth of the product. */
static void turn_over(const float *x, int64_t rows, int64_t in, float *to)
{
    static const four_words low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, first = {0, 1, 4, 5}, second = {2, 3, 6, 7};
    const int64_t left = rows % 4, whole = in / 4 * 4 - (left ? 4 : 0);
    for (int64_t i = 0; i < whole; i += 4)
        /* the last rows first: what they write too much is the beginning of the next input, which comes later */
        for (int64_t j = rows - left - (left ? 0 : 4); j >= 0; j -= 4) {
            four_floats a = {0}, b = {0}, c = {0}, d = {0}, turned[4];
            memcpy(&a, x + j * in + i, sizeof a);
            if (j + 1 < rows) memcpy(&b, x + (j + 1) * in + i, sizeof b);
            if (j + 2 < rows) memcpy(&c, x + (j + 2) * in + i, sizeof c);
            if (j + 3 < rows) memcpy(&d, x + (j + 3) * in + i, sizeof d);
            const four_floats ab = SHUFFLE(a, b, low), cd = SHUFFLE(c, d, low);
            const four_floats be = SHUFFLE(a, b, high), de = SHUFFLE(c, d, high);
            turned[0] = SHUFFLE(ab, cd, first);
            turned[1] = SHUFFLE(ab, cd, second);
            turned[2] = SHUFFLE(be, de, first);
            turned[3] = SHUFFLE(be, de, second);
            for (int k = 0; k < 4; k++) memcpy(to + (i + k) * rows + j, turned + k, sizeof turned[k]);
        }
    for (int64_t i = whole > 0 ? whole : 0; i < in; i++)
        for (int64_t j = 0; j < rows; j++) to[i * rows + j] = x[j * in + i];
}

/* Exact for all that is finite: the exponent is set right by a product, which also takes what lies below 2^-14. */
INLINE four_floats floats_of(const char *at)
{
    four_halves halves;
    memcpy(&halves, at, sizeof halves);
    const four_words bits = __builtin_convertvector(halves, four_words);
    four_floats size = (four_floats)((bits & 0x7fff) << 13) * 0x1p112f;
    return (four_floats)((four_words)size | (bits & 0x8000) << 16);
}

#define LANES 4
#define ROWS 4
#define NAMED(name) name##_4
#define TARGET
#define OF_HALVES(at) floats_of(at)
#include "product_lanes.h"

#if WIDER
#include <immintrin.h>

#define LANES 8
#define ROWS 6
#define NAMED(name) name##_8
#define TARGET __attribute__((target("avx2,fma,f16c")))
#define OF_HALVES(at) ((lanes_8)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(at))))
#include "product_lanes.h"

#define LANES 16
#define ROWS 12
#define NAMED(name) name##_16
#define TARGET __attribute__((target("avx512f,avx512vl,avx2,fma,f16c")))
#define OF_HALVES(at) ((lanes_16)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(at))))
#include "product_lanes.h"
#endif

#include "product_codes.h"

/* A product, and what its parts share. packed: room for the rows, or NULL; codes, steps: of rows that are rounded. */
struct job {
    const struct matrix *w;
    int64_t strips, parts, rows, add_step;
    const float *x, *add;
    float *y, *packed, *steps;
    void *codes;
};

static void pack_rows(const struct job *job)
{
#if WIDER
    if (spear_lanes() == 16) pack_16(job->w->in, job->rows, job->x, job->packed);
    else if (spear_lanes() == 8) pack_8(job->w->in, job->rows, job->x, job->packed);
    else
#endif
        pack_4(job->w->in, job->rows, job->x, job->packed);
}

static void run_part(void *context, int64_t part)
{
    const struct job *job = context;
    const int64_t first = part * job->strips / job->parts, last = (part + 1) * job->strips / job->parts;
    if (job->w->format == BYTES) {
        sum_codes(job->w, first, last, job->rows, job->x, job->codes, job->steps, job->add, job->add_step, job->y);
        return;
    }
#if WIDER
    if (spear_lanes() == 16)
        product_16(job->w, first, last, job->rows, job->x, job->add, job->add_step, job->y, job->packed);
    else if (spear_lanes() == 8)
        product_8(job->w, first, last, job->rows, job->x, job->add, job->add_step, job->y, job->packed);
    else
#endif
        product_4(job->w, first, last, job->rows, job->x, job->add, job->add_step, job->y, job->packed);
}

void spear_product_by(int64_t threads, const struct matrix *w, int64_t rows, const float *x, const float *add,
                      int64_t add_step, float *y)
{
    struct job job = {.w = w, .strips = (w->out + STRIP - 1) / STRIP, .rows = rows, .add_step = add_step, .x = x};
    job.add = add;
    job.y = y;
    job.parts = rows * w->in * w->out < ENOUGH || threads < 2 ? 1 : 2 * threads;
    job.parts = job.parts < job.strips ? job.parts : job.strips;
    void *room = NULL;
    if (w->format == BYTES) {
        const size_t codes = (size_t)(rows * spear_tile_in(w->in)) * sizeof(int16_t);
        room = malloc(codes + (size_t)rows * sizeof *job.steps + 64);
        if (room) {
            job.codes = (void *)(((uintptr_t)room + 63) / 64 * 64);
            job.steps = (float *)((char *)job.codes + codes);
#if TILES
            if (spear_tiled(rows)) halve_rows(x, rows, w->in, job.codes, job.steps);
            else
#endif
                round_rows(x, rows, w->in, job.codes, job.steps);
        }
    } else if (rows > FEW) {
        room = job.packed = malloc((size_t)(rows * w->in) * sizeof *job.packed);
        if (room) pack_rows(&job);
    }
    spear_together(threads, job.parts, run_part, &job);
    free(room);
}

void spear_product(const struct matrix *w, int64_t rows, const float *x, const float *add, int64_t add_step, float *y)
{
    spear_product_by(1, w, rows, x, add, add_step, y);
}
