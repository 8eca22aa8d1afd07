/* The block decoder: settled tokens, one pass, and whole drafts. */

#ifndef SPEAR_BLOCK_H
#define SPEAR_BLOCK_H

#include "bytes.h"
#include "law.h"
#include "layer.h"

struct block_layer {
    struct bytes past; /* [2 heads dim_head, dim]: keys and values of a context */
    struct bytes to_qkv, self_out, to_q, cross_out, up, down;
    const float *up_bias, *down_bias; /* [2 inner], [dim] */
};

struct block {
    int64_t dim, heads, dim_head, inner, depth, ids, block, window, rank;
    const float *table; /* [ids, dim]: the token half of the entering projection */
    const struct bytes *enter;
    const struct block_layer *layers; /* [depth] */
    const float *positions;           /* [block, dim] */
    const struct bytes *head;
    const struct bytes *gate; /* [rank + 1, dim]: the last row says whether a token will be accepted */
    const float *gate_bias;    /* [rank + 1] */
    const float *before;       /* [ids, rank] */
    const struct bytes *after; /* [size, rank] */
};

/* `count` settled tokens behind each row: keys and values of every layer go behind past->lengths (nothing of the text is
   looked at).

   tokens [batch, count]; features [batch, count, dim]; counts: NULL, or [batch]: only the first so many tokens of each
   row are there. contexts [batch, count, dim]: the result, zero for padding. Returns 0, NO_MEMORY or NO_TOKEN. */
int spear_block_read(const struct block *block, int64_t batch, int64_t count, const int64_t *tokens,
                     const float *features, const struct past *past, const int64_t *counts, float *contexts);

/* One pass of counts[b] positions of each row, at most `steps`, behind past->lengths; keys and values of the positions
   lie there afterwards.

   contexts [batch, dim]: of each row's newest token. logits [batch, steps, size], gate [batch, steps, rank], sure
   [batch, steps]: what is said of the positions that there are, see BlockPass. Returns 0 or NO_MEMORY. */
int spear_block_pass(const struct block *block, int64_t batch, int64_t steps, const int64_t *counts,
                     const float *contexts, const struct past *past, float *logits, float *gate, float *sure);

/* logits [rows, size] and gate [rows, rank] of positions, tokens [rows] before them -> out [rows, size]. Returns 0,
   NO_MEMORY or NO_TOKEN. */
int spear_block_follow(const struct block *block, int64_t rows, const float *logits, const float *gate,
                       const int64_t *tokens, float *out);

/* A pass, and up to limits[b] tokens of row b drawn from left to right; nothing follows `eos`.

   newest [batch]: the tokens before the blocks; how, how_step, uniforms, most_entropy, least_chance, tokens, counts, laws:
   as of spear_draft_chain. cost: below 0, or what one more draft token costs against a call: a row then drafts as many
   tokens as promise most for their cost by the pass's own chances, at least 1. Returns 0, NO_MEMORY, NO_TOKEN, or
   NO_NUMBER if a logit is NaN or infinite. */
int spear_block_chain(const struct block *block, const struct sampling *how, int64_t how_step, int64_t batch,
                      int64_t steps, const int64_t *limits, int64_t eos, const double *uniforms,
                      const double *most_entropy, const double *least_chance, double cost, const float *contexts,
                      const int64_t *newest, const struct past *past, int64_t *tokens, int64_t *counts, float *laws);

#endif
