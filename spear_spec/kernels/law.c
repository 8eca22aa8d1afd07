/* From logits to the law that a token is drawn from, and the draw: the mathematics of decoding/sampling.py and
   chance.py.

   As tensor operations a law of a thousand tokens costs as much as half a step of a draft; here it is some ten
   microseconds, because the nucleus is found by counting rather than sorting: floats above 0 are ordered as their bits
   are. */

#include "law.h"
#include "wider.h"

#define SHIFT 20      /* a bucket is an eighth of an octave */
#define BUCKETS 1024  /* 1.0 has bucket 1016 */
#define FLOOR 0x1p-10f /* where a bucket begins */
#define BLOCK 16

INLINE int64_t bucket_of(float p)
{
    uint32_t bits;
    memcpy(&bits, &p, sizeof bits);
    bits >>= SHIFT;
    return bits < BUCKETS ? bits : BUCKETS - 1;
}

static int falling(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

#define LANES 4
#define NAMED(name) name##_4
#define TARGET
#include "law_lanes.h"

#if WIDER
#include <immintrin.h>

#define LANES 8
#define NAMED(name) name##_8
#define TARGET __attribute__((target("avx2,fma")))
#include "law_lanes.h"

#define LANES 16
#define NAMED(name) name##_16
#define TARGET __attribute__((target("avx512f,avx512vl,avx512dq,avx2,fma,popcnt")))
#include "law_lanes.h"
#endif

static int64_t near(const float *law, int64_t size, double mass, float *values)
{
#if WIDER
    if (spear_lanes() == 16) return near_16(law, size, mass, values);
    if (spear_lanes() == 8) return near_8(law, size, mass, values);
#endif
    return near_4(law, size, mass, values);
}

/* law = softmax of logits / temperature; returns 0, or NO_NUMBER. */
static int soften(const float *logits, int64_t size, float temperature, float *law)
{
    const float by = 1 / temperature < 3.4028234e38f ? 1 / temperature : 3.4028234e38f; /* 0 times it must be 0 */
#if WIDER
    if (spear_lanes() == 16) return soften_16(logits, size, by, law);
    if (spear_lanes() == 8) return soften_8(logits, size, by, law);
#endif
    return soften_4(logits, size, by, law);
}

/* The values of one bucket, largest first; returns their number. */
static int64_t sorted(const float *law, int64_t size, int64_t bucket, float *values)
{
    int64_t count = 0;
    for (int64_t i = 0; i < size; i++)
        if (bucket_of(law[i]) == bucket) values[count++] = law[i];
    qsort(values, (size_t)count, sizeof *values, falling);
    return count;
}

/* The smallest probability that survives. values [2 size + 16]: scratch. */
static float threshold(const float *law, int64_t size, const struct sampling *how, float *values)
{
    int32_t counts[BUCKETS] = {0};
    double masses[BUCKETS] = {0}, mass = how->top_p;
    float least = 0;
    if (!(how->top_k > 0 && how->top_k < size)) { /* the nucleus is mostly found among few: the buckets below stay empty */
        const int64_t few = near(law, size, mass, values + size);
        if (few) {
            law = values + size;
            size = few;
        }
    }
    for (int64_t i = 0; i < size; i++) {
        const int64_t at = bucket_of(law[i]);
        counts[at]++;
        masses[at] += law[i];
    }
    if (how->top_k > 0 && how->top_k < size) {
        int64_t left = how->top_k, at = BUCKETS - 1;
        double before = 0;
        for (; counts[at] < left; at--) {
            left -= counts[at];
            before += masses[at];
        }
        sorted(law, size, at, values);
        least = values[left - 1];
        if (how->top_p >= 1) return least;
        for (int64_t i = 0; i < left; i++) before += values[i];
        mass *= before; /* top-p of what top-k leaves */
    }
    double sum = 0;
    for (int64_t at = BUCKETS - 1; at >= 0; at--) {
        if (!counts[at]) continue;
        if (sum + masses[at] <= mass) {
            sum += masses[at];
            continue;
        }
        const int64_t count = sorted(law, size, at, values);
        for (int64_t i = 0; i < count; i++) {
            sum += values[i];
            if (sum > mass) return values[i] > least ? values[i] : least;
        }
    }
    return least;
}

/* Keep what is at least `least`, make it sum to 1. */
EVERY_CPU static void keep(int64_t size, float least, float *law)
{
    float sum = 0;
    for (int64_t i = 0; i < size; i++) sum += law[i] >= least ? law[i] : 0;
    const float share = 1 / sum;
    for (int64_t i = 0; i < size; i++) law[i] = law[i] >= least ? law[i] * share : 0;
}

/* The law of one row; values [2 size + 16]: scratch. */
static int one(const struct sampling *how, int64_t size, const float *logits, float *law, float *values)
{
    const int status = soften(logits, size, how->temperature > 0 ? how->temperature : 1, law);
    if (status) return status;
    if (how->temperature > 0) {
        if (how->top_p < 1 || (how->top_k > 0 && how->top_k < size)) keep(size, threshold(law, size, how, values), law);
        return 0;
    }
    int64_t best = 0;
    for (int64_t i = 1; i < size; i++)
        if (logits[i] > logits[best]) best = i;
    for (int64_t i = 0; i < size; i++) law[i] = i == best;
    return 0;
}

int spear_laws(const struct sampling *how, int64_t step, int64_t batch, int64_t rows, int64_t size, const float *logits,
               float *laws)
{
    float *values = malloc((size_t)(size * 2 + 16) * sizeof *values);
    if (!values) return NO_MEMORY;
    int status = 0;
    for (int64_t r = 0; r < batch * rows && !status; r++)
        status = one(how + r / rows * step, size, logits + r * size, laws + r * size, values);
    free(values);
    return status;
}

/* Whether some of a block are not 0. */
INLINE int some(const float *law)
{
    uint32_t any = 0, bits[BLOCK];
    memcpy(bits, law, sizeof bits);
    for (int j = 0; j < BLOCK; j++) any |= bits[j];
    return any != 0;
}

EVERY_CPU int64_t spear_draw(const float *law, int64_t size, double u, double *table)
{
    const int64_t whole = size / BLOCK * BLOCK;
    double sum = 0;
    for (int64_t i = 0; i < whole; i += BLOCK) {
        if (some(law + i)) /* what is 0 changes no sum, and most of a nucleus's law is */
            for (int64_t j = 0; j < BLOCK; j++) table[i + j] = sum += law[i + j];
        else
            table[i + BLOCK - 1] = sum;
    }
    for (int64_t i = whole; i < size; i++) table[i] = sum += law[i];
    const double goal = u * sum;
    int64_t at = 0;
    while (at < whole && !(table[at + BLOCK - 1] > goal)) at += BLOCK;
    while (at < size - 1 && !(table[at] > goal)) at++;
    return at;
}

double spear_entropy(const float *law, int64_t size)
{
    double sum = 0;
    for (int64_t i = 0; i < size; i++)
        if (law[i] > 0) sum -= (double)law[i] * log((double)law[i]);
    return sum;
}
