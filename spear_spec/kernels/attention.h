/* Attention of the target's step. */

#ifndef SPEAR_ATTENTION_H
#define SPEAR_ATTENTION_H

#include "common.h"

#define KEYS 16 /* scores are made for so many positions at once, at most */

/* The positions that a row sees, in the order in which they are summed; the first `shared` of them are the same for all
   rows of a call. */
struct seen {
    const int32_t *at;
    int64_t count, shared;
};

/* Bytes that will be read soon, and those that come then: they are brought nearer while attention computes. */
struct ahead {
    const char *at, *end, *then, *last;
};

/* One head of the rows of one utterance: q [rows, dim], rows q_step apart; k, v [positions, dim]; out [rows, dim], rows
   out_step apart; weight [rows, most]: scratch, most a multiple of KEYS that no count exceeds. ahead: NULL, or moved on by what was
   asked for.

   What is computed for a row is the same, bit for bit, whatever rows stand beside it. */
void spear_attend(int64_t rows, const float *q, int64_t q_step, const float *k, const float *v, int64_t dim,
                  const struct seen *seen, float *weight, int64_t most, float *out, int64_t out_step,
                  struct ahead *ahead);

#endif
