/* Matrix products of target, drafts and vocoder, for the widest vectors that the machine has. */

#include "product.h"
#include "team.h"
#include "wider.h"

#define FEW 4 /* rows that are read where they lie */
#define AHEAD 24 /* inputs whose weights are on their way */
#define FAR 128  /* at least into the second cache */
#define ENOUGH 300000 /* multiplications that are worth a second thread: some 15 microseconds */

typedef float four_floats __attribute__((vector_size(16)));
typedef uint32_t four_words __attribute__((vector_size(16)));
typedef uint16_t four_halves __attribute__((vector_size(8)));

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
    int16_t *codes;
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
        room = job.steps = malloc((size_t)rows * (sizeof(float) + (size_t)(w->in + 1) / 2 * 2 * sizeof(int16_t)));
        if (room) round_rows(x, rows, w->in, job.codes = (int16_t *)(job.steps + rows), job.steps);
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
