/* The draft decoder's step, its head and whole chains. */

#ifndef SPEAR_DRAFT_H
#define SPEAR_DRAFT_H

#include "law.h"
#include "layer.h"
#include "product.h"

struct layer {
    struct matrix to_qkv, self_out, to_q, cross_out, up, down;
    const float *up_bias, *down_bias; /* [2 inner], [dim] */
};

struct draft {
    int64_t dim, heads, dim_head, inner, depth, ids;
    const float *table; /* [ids, dim]: the token half of the entering projection */
    const struct matrix *enter;
    const struct layer *layers; /* [depth] */
};

int spear_native_version(void);

/* `count` new tokens behind each row of a batch.

   tokens [batch, count]; features [batch, count, dim].
   nodes: 0 for a chain. Otherwise the new tokens are the last of a tree of so many nodes, the others lie in the cache
   already, and node_mask [batch, count, nodes] and node_depth [batch, count] say what each sees and how deep it lies.
   counts: NULL, or [batch]: only the first so many tokens of each row are there, what lies behind is padding.
   hidden [batch, count, dim]: the result, zero for padding; may be the features.
   Returns 0, NO_MEMORY, NO_TOKEN, or NO_TREE if a depth lies outside the tree. */
int spear_draft_step(const struct draft *draft, int64_t batch, int64_t count, const int64_t *tokens,
                     const float *features, const struct past *past, int64_t nodes, const uint8_t *node_mask,
                     const int64_t *node_depth, const int64_t *counts, float *hidden);

/* The target's features, `parts` of [batch, length, dim] -> what the layer is fed, fused [batch, count, dim]: of each
   the first `count` positions, each divided by its length (the norms' gains are in the weights), side by side through
   `fuse`. Returns 0 or NO_MEMORY. */
int spear_draft_fuse(const struct matrix *fuse, int64_t parts, int64_t dim, int64_t batch, int64_t count,
                     int64_t length, const float *const *features, float *fused);

/* hidden [rows, in] -> logits [rows, out]. Returns 0 or NO_MEMORY. */
int spear_draft_logits(const struct matrix *head, int64_t rows, const float *hidden, float *logits);

/* A chain in one call: from `hidden`, draw a token, step on it, and so on, up to limits[b] tokens of row b; nothing
   follows `eos`.

   how: the sampling of all rows (how_step 0) or of each (1). hidden [batch, dim]: at each row's newest settled token;
   overwritten. uniforms [batch, steps]: what each draw of a row uses; steps: the largest limit, at least 1.
   most_entropy, least_chance: NULL or [batch]: a row stops before a law of more nats, and after a token of less chance.
   tokens [batch, steps] and counts [batch]: what was drawn; laws [batch, steps, size]: the law of each, also of rows
   that have stopped while others go on that they step with, and then 0, up to the longest count. The drafted positions lie behind past->lengths, which stay as they are.
   Returns 0, NO_MEMORY, NO_TOKEN, or NO_NUMBER if a logit is NaN or infinite. */
int spear_draft_chain(const struct draft *draft, const struct matrix *head, const struct sampling *how,
                      int64_t how_step, int64_t batch, int64_t steps, const int64_t *limits, int64_t eos,
                      const double *uniforms, const double *most_entropy, const double *least_chance, float *hidden,
                      const struct past *past, int64_t *tokens, int64_t *counts, float *laws);

#endif
