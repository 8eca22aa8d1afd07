/* What the layers of encoder, draft and target have in common: what rows see, attention on a cache and on a text, the gate. */

#ifndef SPEAR_LAYER_H
#define SPEAR_LAYER_H

#include "attention.h"

#define ATTENDING(threads) ((threads) < 2 ? 1 : 2 * (threads)) /* parts that attention is done in */

/* What lies before the new tokens of a batch.

   lengths [batch]: committed positions of each row; angles [positions, dim_head]: cosine and sine of each pair in turn,
   of as many positions as are reached; keys, values [depth, batch, kv_heads, capacity, dim_head]: the new ones are
   written behind `lengths`, capacity must suffice, layers lie layer_step apart (rows that have left leave a gap); cross
   [depth][2]: keys and values of the text [batch, heads, memory, dim_head]; cross_mask: NULL or [batch, memory]. */
struct past {
    const int64_t *lengths;
    const float *angles;
    float *keys, *values;
    int64_t capacity, layer_step;
    const float *const *cross;
    int64_t memory;
    const uint8_t *cross_mask;
};

/* New tokens of a batch as rows of a matrix, and what each sees: made once for all layers.

   from [rows]: its place among batch x count tokens (padding is left out); begin [batch + 1]: an utterance's first row;
   position, slot [rows]: where it stands in the text and in the cache; own, text [rows]: the positions that it sees;
   most: length of the longest list, a multiple of KEYS; longest: rows of one utterance at most; ahead: NULL, or what is
   brought nearer while one thread attends. */
struct view {
    int64_t rows, most, longest, *from, *begin, *position, *slot;
    struct seen *own, *text;
    struct ahead *ahead;
};

/* `count` new tokens behind each row of a batch; counts: NULL, or [batch]: only the first so many of them are there.
   nodes: 0 for a chain; otherwise the new tokens are the last of a tree of so many nodes, the others lie in the cache
   already, and node_mask [batch, count, nodes] and node_depth [batch, count] say what each sees and how deep it lies.
   Returns 0, NO_MEMORY, or NO_TREE if a depth lies outside the tree. `spear_looked` frees it. */
int spear_look(struct view *view, int64_t batch, int64_t count, const int64_t *counts, const struct past *past,
               int64_t nodes, const uint8_t *node_mask, const int64_t *node_depth);
void spear_looked(struct view *view);

/* Turn neighbouring pairs of each head of x [heads, dim] by angle [dim / 2] (cosine, sine); heads of `to` lie to_step
   apart. */
void spear_turn(const float *x, const float *angle, int64_t heads, int64_t dim, int64_t to_step, float *to);

/* Self-attention of a layer: mapped [rows, (heads + 2 kv_heads) dim_head] -> seen [rows, heads dim_head]. Turns queries
   and keys of `mapped`, writes keys and values to the cache. Query head h uses key head h mod kv_heads. weight
   [ATTENDING(threads), longest, most]: scratch. */
void spear_attend_past(int64_t threads, const struct view *view, int64_t batch, const struct past *past, int64_t layer,
                       int64_t heads, int64_t kv_heads, int64_t dim_head, float *mapped, float *weight, float *seen);

/* Cross-attention: queries [rows, heads dim_head] -> seen [rows, heads dim_head]. */
void spear_attend_text(int64_t threads, const struct view *view, int64_t batch, const struct past *past, int64_t layer,
                       int64_t heads, int64_t dim_head, const float *queries, float *weight, float *seen);

/* GEGLU: mapped [rows, 2 inner], values and then gates -> gated [rows, inner]. */
void spear_gate(int64_t threads, const float *mapped, int64_t rows, int64_t inner, float *gated);

/* x [rows, dim] * gain [dim] / root mean square of the row. */
void spear_norm(const float *x, int64_t rows, int64_t dim, const float *gain, float *y);

/* x [rows, width] += add [width]. */
void spear_add(float *x, int64_t rows, int64_t width, const float *add);

#endif
