/* The target's step on a CPU: the mathematics of `DecoderStack` over `DecoderLayer`s (models/stack.py).

   Reduction order, which is the same however many tokens and rows a call has: a product sums over its input in order,
   attention over the positions that a row sees in order, a norm and a softmax in as many parts as the vectors of the
   machine have lanes. So the autoregressive loop, which scores one token a call, and verification, which scores eleven,
   see the same numbers bit for bit; only a tree's nodes, which may lie in another order, differ by rounding.

   So do several threads: they share a product by its outputs, attention by its heads.

   Weights are read as they are: 16 bits where half precision holds them exactly, else 32 (kernels/step.py chooses).
   Gains of norms are not folded into them, or half precision would no longer hold them. */

#include "step.h"

int spear_target_step(int64_t threads, const struct target *target, int64_t first, int64_t last, int64_t batch, int64_t count,
                      const int64_t *tokens, float *x, const struct past *past, int64_t nodes,
                      const uint8_t *node_mask, const int64_t *node_depth, const uint8_t *skip,
                      float *const *features, float *hidden, float *logits)
{
    const int64_t dim = target->dim, heads = target->heads, kv_heads = target->kv_heads, dim_head = target->dim_head;
    const int64_t inner = target->inner, width = heads * dim_head, all = (heads + 2 * kv_heads) * dim_head;
    const int64_t wide = all > 2 * inner ? all : 2 * inner, rows = batch * count;
    for (int64_t r = 0; r < rows && tokens; r++)
        if (!(tokens[r] >= 0 && tokens[r] < target->ids)) return NO_TOKEN;
    struct view view;
    const int status = spear_look(&view, batch, count, NULL, past, nodes, node_mask, node_depth);
    if (status) return status;
    float *normed = malloc((size_t)(rows * (dim + wide + width + inner) + ATTENDING(threads) * count * view.most) * sizeof *normed);
    if (!normed) {
        spear_looked(&view);
        return NO_MEMORY;
    }
    float *mapped = normed + rows * dim, *seen = mapped + rows * wide, *gated = seen + rows * width;
    float *weight = gated + rows * inner;
    for (int64_t r = 0; r < rows && tokens; r++)
        memcpy(x + r * dim, target->table + tokens[r] * dim, (size_t)dim * sizeof *x);
    for (int64_t l = first; l < last; l++) {
        const struct target_layer *w = target->layers + l;
        if (!(skip && skip[l] & 1)) {
            spear_norm(x, rows, dim, w->self_gain, normed);
            spear_product_by(threads, &w->to_qkv, rows, normed, NULL, 0, mapped);
            spear_attend_past(threads, &view, batch, past, l, heads, kv_heads, dim_head, mapped, weight, seen);
            spear_product_by(threads, &w->self_out, rows, seen, x, dim, x);

            spear_norm(x, rows, dim, w->cross_gain, normed);
            spear_product_by(threads, &w->to_q, rows, normed, NULL, 0, mapped);
            spear_attend_text(threads, &view, batch, past, l, heads, dim_head, mapped, weight, seen);
            spear_product_by(threads, &w->cross_out, rows, seen, x, dim, x);
        }
        if (!(skip && skip[l] & 2)) {
            spear_norm(x, rows, dim, w->forward_gain, normed);
            spear_product_by(threads, &w->up, rows, normed, w->up_bias, 0, mapped);
            spear_gate(threads, mapped, rows, inner, gated);
            spear_add(x, rows, dim, w->down_bias);
            spear_product_by(threads, &w->down, rows, gated, x, dim, x);
        }
        if (features && features[l]) memcpy(features[l], x, (size_t)(rows * dim) * sizeof *x);
    }
    if (last == target->depth) {
        spear_norm(x, rows, dim, target->gain, hidden);
        spear_product_by(threads, target->head, rows, hidden, NULL, 0, logits);
    }
    free(normed);
    spear_looked(&view);
    return 0;
}
