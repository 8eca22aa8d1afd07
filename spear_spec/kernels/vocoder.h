/* The unit vocoder (acoustic/unit/vocoder.py) fed token by token: one call a chunk, everything in C. */

#ifndef SPEAR_VOCODER_H
#define SPEAR_VOCODER_H

#include "product.h"

#define WIDTH 16 /* dim and wide are multiples of it */

struct norm {
    const float *gain, *bias; /* [dim] */
};

/* A product and its bias [out]. */
struct map {
    struct matrix weight;
    const float *bias;
};

/* A ContextBlock of `dim` channels; taps [kernel][dim], scale [dim]; right: how many rows it looks ahead. */
struct context_block {
    const float *taps;
    struct norm norm;
    struct map up, down;
    const float *scale;
    int64_t right;
};

struct vocoder {
    int64_t ids, dim, wide, kernel;
    int64_t hop, phases, n_fft; /* samples a frame, frames a token; n_fft = 2^a 3^b 5^c */
    double sample_rate, f0_floor, f0_ceil;
    const float *token_embedding; /* [ids][dim] */
    struct norm token_norm;
    int64_t token_blocks, prosody_blocks, frame_blocks;
    const struct context_block *tokens, *prosody, *frames; /* of dim, wide and dim channels */
    struct map prosody_in;                                 /* dim -> wide */
    struct norm prosody_norm;
    struct map prosody_out;        /* wide -> 3 phases: voicing, pitch, energy */
    struct map upsample;           /* dim -> phases dim */
    const float *prosody_embedding; /* [4][dim] */
    struct norm frame_norm, head_norm;
    struct map head;             /* dim -> 5 (n_fft / 2 + 1) */
    const float *window, *roots; /* [n_fft]; [n_fft][2]: cosine and -sine of 2 pi k / n_fft */
};

/* A stream speaks at a rate: 1 as the voice was trained, 2 twice as fast, at the same pitch (acoustic/unit/rate.py). Of
   n tokens it makes hop floor(n phases / rate + 1 / 2) samples. */

/* Bytes that a stream of this vocoder and rate takes (its state and its scratch), to be aligned to 64. */
int64_t spear_vocoder_size(const struct vocoder *vocoder, double rate);

/* Begin an utterance in `stream` [spear_vocoder_size]. who: the speaker vector [2 dim], what is added to tokens and then
   to frames, the bias of the prosody's embedding added to the latter; the stream keeps a copy. phase: of the fundamental
   at the first frame, radians. */
void spear_vocoder_open(const struct vocoder *vocoder, const float *who, double phase, double rate, void *stream);

/* Take `count` tokens with their noise, as many samples as these tokens add, none where the utterance ends (last), and
   write the samples that are now final; in all no more than those of the tokens taken. made: how many. NO_NUMBER: NaN
   or infinity. */
int spear_vocoder_push(const struct vocoder *vocoder, void *stream, int64_t count, const int64_t *tokens,
                       const float *noise, int last, float *samples, int64_t *made);

#endif
