/* The target's step: all decoder layers of `TextToSemantic` and its head on new tokens of a batch. */

#ifndef SPEAR_STEP_H
#define SPEAR_STEP_H

#include "layer.h"
#include "product.h"

struct target_layer {
    struct matrix to_qkv, self_out, to_q, cross_out, up, down;
    const float *self_gain, *cross_gain, *forward_gain, *up_bias, *down_bias; /* [dim] x 3, [2 inner], [dim] */
};

struct target {
    int64_t dim, heads, kv_heads, dim_head, inner, depth, ids;
    const float *table; /* [ids, dim]: vectors of the tokens, the start among them */
    const struct target_layer *layers; /* [depth] */
    const float *gain; /* [dim], of the norm before the head */
    const struct matrix *head;
};

/* Layers first to last - 1 on `count` new tokens behind each row of a batch; where last is the depth, norm and head too.

   tokens [batch, count]: read by layer 0; NULL: x has what the layers before gave. x [batch, count, dim]: the residual
   stream, overwritten. past, nodes, node_mask, node_depth: as in layer.h.
   skip: NULL or [depth]: bit 0 leaves out a layer's attention, bit 1 its feed-forward.
   features: NULL or [depth]: where the residual stream after a layer goes, NULL where it is not wanted.
   hidden [batch, count, dim], logits [batch, count, head->out]: after the norm, and of the head.
   Returns 0, NO_MEMORY, NO_TOKEN or NO_TREE. */
int spear_target_step(const struct target *target, int64_t first, int64_t last, int64_t batch, int64_t count,
                      const int64_t *tokens, float *x, const struct past *past, int64_t nodes,
                      const uint8_t *node_mask, const int64_t *node_depth, const uint8_t *skip,
                      float *const *features, float *hidden, float *logits);

#endif
