/* The unit vocoder on a CPU: the mathematics of VocoderStream (acoustic/unit/streaming.py), in float32.

   As separate tensor operations a chunk of eight tokens costs twice its products in dispatch and in passes over memory.
   Here a chunk is one call: ConvNeXt blocks by tiles of rows that stay in the cache, excitation, Fourier transforms
   with a frame in each lane of a vector, overlap-add. All state and scratch lie in memory that the caller brings, so
   streams may run side by side.

   What is computed for a row, a sample or a frame is the same, bit for bit, however the tokens are cut into calls: sums
   run in order, and every element goes through the same vector operations. That is also why the compiler may not
   reorder sums in this file: a multiple of pi / 2 taken away in parts would be taken away as one. */

#if defined(__clang__)
#pragma clang fp reassociate(off)
#elif defined(__GNUC__)
#pragma GCC optimize("no-associative-math")
#endif

#include "vocoder.h"
#include "wider.h"

#define TWO_PI 6.283185307179586
#define PIECE 32 /* tokens that go through all layers together */
#define TILE 64  /* rows that go through a block, or through the head, together */
#define GAP 16   /* floats between two arrays */

static const float RAMP[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* Frames read at another rate: how many have come, how many were read. */
struct reading {
    int64_t seen, made;
};

/* Of one utterance: how much of each buffer is taken, and the fundamental at the newest frame's centre. */
struct stream {
    int64_t taken, begun, hidden, frames, driven, noise, skip;
    double phase, rate;
    float f0, predicted; /* of the newest frame that was read; of the newest that has come */
    struct reading pitch, rows;
};

/* Where a stream's arrays lie: kept up to the next call, and scratch. */
struct scratch {
    int64_t *kept;                                 /* [blocks] rows of context */
    float *who;                                    /* [2][dim] the speaker vector */
    float *contexts;                               /* [blocks][kernel - 1][dim or wide] */
    float *hidden, *frames;                        /* rows that wait for their prosody, for their excitation */
    float *newest;                                 /* [dim] the last row that the blocks gave */
    float *pulses, *noise, *by_cosine, *by_sine;   /* excitation from the oldest frame's start on */
    float *tail;                                   /* [n_fft] overlap-add */
    float *a, *b, *normed, *wide, *prosody, *said; /* scratch from here on */
    float *one, *two, *three, *pieces;
};

static double wrapped(double angle)
{
    return angle - TWO_PI * floor(angle / TWO_PI);
}

/* Frames that `count` predicted ones are read as. */
static int64_t frames_at(int64_t count, double rate)
{
    return rate == 1 ? count : (int64_t)floor((double)count / rate + 0.5);
}

/* Where the next frame is read: whether it is known, and how far from the frame before the newest to the newest, or,
   where the last has come, from the last on: 0. Called after every single frame, so nothing lies further back. Not
   inlined: the same sum at every width, and torch's. */
static __attribute__((noinline)) int next_place(struct reading *at, double rate, int last, double *share)
{
    if (at->made >= frames_at(at->seen, rate)) return 0;
    double place = ((double)at->made + 0.5) * rate - 0.5;
    place = place < 0 ? 0 : place;
    const double before = floor(place);
    *share = place - before;
    if (last) *share = 0;
    else if (before + 1 >= (double)at->seen) return 0;
    at->made++;
    return 1;
}

/* x [rows][in] -> y [rows][out]. */
static void apply(const struct map *map, int64_t rows, const float *x, float *y)
{
    spear_product(&map->weight, rows, x, map->bias, 0, y);
}

#define LANES 4
#define NAMED(name) name##_4
#define TARGET
#define EACH(f, a) f(0, a), f(1, a), f(2, a), f(3, a)
#include "vocoder_lanes.h"

#if WIDER
#define LANES 8
#define NAMED(name) name##_8
#define TARGET __attribute__((target("avx2,fma,f16c")))
#define EACH(f, a) f(0, a), f(1, a), f(2, a), f(3, a), f(4, a), f(5, a), f(6, a), f(7, a)
#include "vocoder_lanes.h"

#define LANES 16
#define NAMED(name) name##_16
#define TARGET __attribute__((target("avx512f,avx512vl,avx512dq,avx2,fma")))
#define EACH(f, a)                                                                                              \
    f(0, a), f(1, a), f(2, a), f(3, a), f(4, a), f(5, a), f(6, a), f(7, a), f(8, a), f(9, a), f(10, a), f(11, a), \
        f(12, a), f(13, a), f(14, a), f(15, a)
#include "vocoder_lanes.h"
#endif

static int64_t ahead(int64_t blocks, const struct context_block *block)
{
    int64_t sum = 0;
    for (int64_t l = 0; l < blocks; l++) sum += block[l].right;
    return sum;
}

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size) (void)(at)
#endif

/* The next array of a stream. A build with AddressSanitizer must not touch what lies behind it. */
static float *take(float *stream, int64_t *used, int64_t count)
{
    const int64_t room = (count + GAP - 1) / GAP * GAP + GAP;
    float *at = stream ? stream + *used : NULL;
    if (stream) ASAN_POISON_MEMORY_REGION(at + count, (size_t)(room - count) * sizeof *at);
    *used += room;
    return at;
}

static int64_t contexts(const struct vocoder *v)
{
    return ((v->token_blocks + v->frame_blocks) * v->dim + v->prosody_blocks * v->wide) * (v->kernel - 1);
}

static int64_t widest_inner(int64_t blocks, const struct context_block *block, int64_t inner)
{
    for (int64_t l = 0; l < blocks; l++) inner = block[l].up.weight.out > inner ? block[l].up.weight.out : inner;
    return inner;
}

/* The arrays of a stream at this address, NULL: only their size in floats. */
static int64_t place(const struct vocoder *v, double rate, float *stream, struct scratch *at)
{
    const int64_t dim = v->dim, wide = v->wide, reach = v->kernel - 1, size = v->n_fft, hop = v->hop;
    const int64_t widest = dim > wide ? dim : wide, parts = size / hop;
    const int64_t tokens = ahead(v->token_blocks, v->tokens), prosody = ahead(v->prosody_blocks, v->prosody);
    const int64_t late = ahead(v->frame_blocks, v->frames), most = PIECE + tokens + prosody;
    const int64_t frames = most * v->phases + late, blocks = v->token_blocks + v->prosody_blocks + v->frame_blocks;
    const int64_t read = frames_at(frames, rate) + (rate != 1);
    const int64_t samples = (frames_at(frames + late, rate) + 2 * parts + 2) * hop + size + WIDTH;
    int64_t used = 0, inner = widest_inner(v->token_blocks, v->tokens, 0);
    inner = widest_inner(v->prosody_blocks, v->prosody, inner);
    inner = widest_inner(v->frame_blocks, v->frames, inner);
    take(stream, &used, (int64_t)(sizeof(struct stream) / sizeof(float)));
    at->kept = (int64_t *)take(stream, &used, 2 * blocks);
    at->who = take(stream, &used, 2 * dim);
    at->contexts = take(stream, &used, contexts(v));
    at->hidden = take(stream, &used, (most + prosody) * dim);
    at->frames = take(stream, &used, (read + parts) * dim);
    at->newest = take(stream, &used, dim);
    at->pulses = take(stream, &used, samples);
    at->noise = take(stream, &used, samples);
    at->by_cosine = take(stream, &used, samples);
    at->by_sine = take(stream, &used, samples);
    at->tail = take(stream, &used, size);
    at->a = take(stream, &used, (frames + 2 * reach) * widest);
    at->b = take(stream, &used, (frames + 2 * reach) * widest);
    at->normed = take(stream, &used, TILE * widest);
    at->wide = take(stream, &used, TILE * inner);
    at->prosody = take(stream, &used, most * 3 * v->phases);
    at->said = take(stream, &used, TILE * v->head.weight.out + WIDTH);
    at->one = take(stream, &used, 2 * WIDTH * size);
    at->two = take(stream, &used, 2 * WIDTH * size);
    at->three = take(stream, &used, 2 * WIDTH * size);
    at->pieces = take(stream, &used, WIDTH * ((size + WIDTH - 1) / WIDTH * WIDTH));
    return used;
}

int64_t spear_vocoder_size(const struct vocoder *v, double rate)
{
    struct scratch at;
    return place(v, rate, NULL, &at) * (int64_t)sizeof(float);
}

void spear_vocoder_open(const struct vocoder *v, const float *who, double phase, double rate, void *stream)
{
    struct scratch at;
    const int64_t reach = v->kernel - 1, margin = (v->n_fft - v->hop) / 2;
    place(v, rate, stream, &at);
    float *zero[] = {at.pulses, at.noise, at.by_cosine, at.by_sine};
    for (int k = 0; k < 4; k++) memset(zero[k], 0, (size_t)margin * sizeof(float));
    memcpy(at.who, who, (size_t)(2 * v->dim) * sizeof *who);
    memset(at.tail, 0, (size_t)v->n_fft * sizeof(float));
    memset(at.contexts, 0, (size_t)contexts(v) * sizeof(float));
    *(struct stream *)stream = (struct stream){.driven = margin, .noise = margin, .skip = margin, .phase = phase,
                                               .rate = rate};
    int64_t *kept = at.kept;
    for (int64_t l = 0; l < v->token_blocks; l++) *kept++ = reach - v->tokens[l].right;
    for (int64_t l = 0; l < v->prosody_blocks; l++) *kept++ = reach - v->prosody[l].right;
    for (int64_t l = 0; l < v->frame_blocks; l++) *kept++ = reach - v->frames[l].right;
}

static int64_t run(const struct vocoder *v, struct stream *s, const struct scratch *at, int64_t count,
                   const int64_t *tokens, int64_t white, const float *noise, int last, float *samples)
{
#if WIDER
    if (spear_lanes() == 16) return run_16(v, s, at, count, tokens, white, noise, last, samples);
    if (spear_lanes() == 8) return run_8(v, s, at, count, tokens, white, noise, last, samples);
#endif
    return run_4(v, s, at, count, tokens, white, noise, last, samples);
}

int spear_vocoder_push(const struct vocoder *v, void *stream, int64_t count, const int64_t *tokens, const float *noise,
                       int last, float *samples, int64_t *made)
{
    struct stream *s = stream;
    struct scratch at;
    int fine = 1;
    *made = 0;
    place(v, s->rate, stream, &at);
    for (int64_t i = 0; i < count; i++)
        if (tokens[i] < 0 || tokens[i] >= v->ids) return NO_TOKEN;
    for (int64_t first = 0; first < count; first += PIECE) {
        const int64_t some = count - first < PIECE ? count - first : PIECE;
        const int64_t white = v->hop * (frames_at((s->taken + some) * v->phases, s->rate)
                                        - frames_at(s->taken * v->phases, s->rate));
        s->taken += some;
        *made += run(v, s, &at, some, tokens + first, white, noise, 0, samples + *made);
        noise += white;
    }
    if (last && s->taken) *made += run(v, s, &at, 0, tokens, 0, noise, 1, samples + *made);
    for (int64_t i = 0; i < *made; i++) fine &= samples[i] - samples[i] == 0;
    return fine ? 0 : NO_NUMBER;
}
