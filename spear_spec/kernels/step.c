/* The target's step on a CPU: the mathematics of `DecoderStack` over `DecoderLayer`s (models/stack.py).

   Reduction order, which is the same however many tokens and rows a call has: a product sums over its input in order,
   attention over the positions that a row sees in order, a norm and a softmax in as many parts as the vectors of the
   machine have lanes. So the autoregressive loop, which scores one token a call, and verification, which scores eleven,
   see the same numbers bit for bit; only a tree's nodes, which may lie in another order, differ by rounding.

   Weights are read as they are: 16 bits where half precision holds them exactly, else 32 (kernels/step.py chooses).
   Gains of norms are not folded into them, or half precision would no longer hold them. */

#include "step.h"
#include "attention.h"
#include "wider.h"

/* x * gain / root mean square. */
EVERY_CPU static void norm(const float *x, int64_t rows, int64_t dim, const float *gain, float *y)
{
    const float root = 1 / sqrtf((float)dim);
    for (int64_t r = 0; r < rows; r++, x += dim, y += dim) {
        float sum = 0;
        for (int64_t i = 0; i < dim; i++) sum += x[i] * x[i];
        const float size = sqrtf(sum), by = 1 / ((size < 1e-12f ? 1e-12f : size) * root);
        for (int64_t i = 0; i < dim; i++) y[i] = x[i] * gain[i] * by;
    }
}

/* value * gelu(gate), with the error function's complement to a relative error of 1.2e-7 (a Chebyshev fit: Press et al.,
   Numerical Recipes, 6.2). mapped [rows, 2 inner] -> gated [rows, inner]. */
EVERY_CPU static void gate(const float *mapped, int64_t rows, int64_t inner, float *gated)
{
    for (int64_t r = 0; r < rows; r++, mapped += 2 * inner, gated += inner)
        for (int64_t i = 0; i < inner; i++) {
            const float g = mapped[inner + i], size = fabsf(g) * 0.70710678f, t = 1 / (1 + 0.5f * size);
            float fit = 0.17087277f;
            fit = -0.82215223f + t * fit;
            fit = 1.48851587f + t * fit;
            fit = -1.13520398f + t * fit;
            fit = 0.27886807f + t * fit;
            fit = -0.18628806f + t * fit;
            fit = 0.09678418f + t * fit;
            fit = 0.37409196f + t * fit;
            fit = 1.00002368f + t * fit;
            fit = -1.26551223f + t * fit;
            const float beyond = 0.5f * t * exp_below(fit - size * size); /* the chance of more than |g| */
            gated[i] = mapped[i] * g * (g > 0 ? 1 - beyond : beyond);
        }
}

/* Turn neighbouring pairs of each head of x [heads, dim] by angle [dim / 2] (cosine, sine); heads of `to` lie to_step
   apart. */
static void turn(const float *x, const float *angle, int64_t heads, int64_t dim, int64_t to_step, float *to)
{
    for (int64_t h = 0; h < heads; h++, x += dim, to += to_step)
        for (int64_t j = 0; j < dim; j += 2) {
            const float a = x[j], b = x[j + 1];
            to[j] = a * angle[j] - b * angle[j + 1];
            to[j + 1] = a * angle[j + 1] + b * angle[j];
        }
}

INLINE int64_t whole(int64_t count) { return (count + KEYS - 1) / KEYS * KEYS; }

/* What the rows of a call see, made once for all layers. */
struct view {
    struct seen *own, *text; /* [rows] each */
    int64_t most;            /* longest list, a multiple of KEYS */
    void *memory;
};

static int look(struct view *view, int64_t batch, int64_t count, const struct past *past, int64_t nodes,
                const uint8_t *node_mask)
{
    const int64_t rows = batch * count, text = whole(past->memory);
    int64_t reached = 0;
    for (int64_t b = 0; b < batch; b++)
        if (past->lengths[b] + count > reached) reached = past->lengths[b] + count;
    const int64_t chain = whole(reached);
    view->most = chain > text ? chain : text;
    const int64_t lists = (nodes ? rows * chain : view->most) + (past->cross_mask ? batch * text : view->most);
    view->own = view->memory = calloc(1, (size_t)(2 * rows) * sizeof *view->own + (size_t)lists * sizeof(int32_t));
    if (!view->memory) return NO_MEMORY;
    view->text = view->own + rows;
    int32_t *list = (int32_t *)(view->text + rows);
    if (nodes) {
        for (int64_t r = 0; r < rows; r++, list += chain) {
            const int64_t open = past->lengths[r / count] + count - nodes;
            int64_t sees = 0;
            for (; sees < open; sees++) list[sees] = (int32_t)sees;
            for (int64_t j = 0; j < nodes; j++)
                if (node_mask[r * nodes + j]) list[sees++] = (int32_t)(open + j);
            view->own[r] = (struct seen){list, sees, open};
        }
    } else {
        for (int64_t i = 0; i < view->most; i++) list[i] = (int32_t)i;
        for (int64_t r = 0; r < rows; r++) {
            const int64_t sees = past->lengths[r / count] + r % count + 1;
            view->own[r] = (struct seen){list, sees, sees};
        }
        list += view->most;
    }
    if (past->cross_mask) {
        for (int64_t b = 0; b < batch; b++, list += text) {
            int64_t sees = 0;
            for (int64_t j = 0; j < past->memory; j++)
                if (past->cross_mask[b * past->memory + j]) list[sees++] = (int32_t)j;
            for (int64_t i = 0; i < count; i++) view->text[b * count + i] = (struct seen){list, sees, sees};
        }
    } else {
        for (int64_t i = 0; i < view->most; i++) list[i] = (int32_t)i;
        for (int64_t r = 0; r < rows; r++) view->text[r] = (struct seen){list, past->memory, past->memory};
    }
    return 0;
}

int spear_target_step(const struct target *target, int64_t first, int64_t last, int64_t batch, int64_t count,
                      const int64_t *tokens, float *x, const struct past *past, int64_t nodes,
                      const uint8_t *node_mask, const int64_t *node_depth, const uint8_t *skip,
                      float *const *features, float *hidden, float *logits)
{
    const int64_t dim = target->dim, heads = target->heads, kv_heads = target->kv_heads, dim_head = target->dim_head;
    const int64_t inner = target->inner, width = heads * dim_head, all = (heads + 2 * kv_heads) * dim_head;
    const int64_t step = past->capacity * dim_head, memory = past->memory, rows = batch * count;
    const int64_t wide = all > 2 * inner ? all : 2 * inner;
    for (int64_t r = 0; r < rows; r++) {
        if (tokens && !(tokens[r] >= 0 && tokens[r] < target->ids)) return NO_TOKEN;
        if (nodes && !(node_depth[r] >= 0 && node_depth[r] < nodes)) return NO_TREE;
    }
    struct view view;
    if (look(&view, batch, count, past, nodes, node_mask)) return NO_MEMORY;
    float *normed = malloc((size_t)(rows * (dim + wide + width + inner) + count * view.most) * sizeof *normed);
    if (!normed) {
        free(view.memory);
        return NO_MEMORY;
    }
    float *mapped = normed + rows * dim, *seen = mapped + rows * wide, *gated = seen + rows * width;
    float *weight = gated + rows * inner;
    if (tokens)
        for (int64_t r = 0; r < rows; r++)
            memcpy(x + r * dim, target->table + tokens[r] * dim, (size_t)dim * sizeof *x);
    for (int64_t l = first; l < last; l++) {
        const struct target_layer *w = target->layers + l;
        if (!(skip && skip[l] & 1)) {
            norm(x, rows, dim, w->self_gain, normed);
            spear_product(&w->to_qkv, rows, normed, NULL, 0, mapped);
            for (int64_t r = 0; r < rows; r++) {
                const int64_t b = r / count, before = past->lengths[b], slot = before + r % count;
                const int64_t position = nodes ? before + count - nodes + node_depth[r] : slot;
                const int64_t place = l * past->layer_step + b * kv_heads * step + slot * dim_head;
                const float *angle = past->angles + position * dim_head;
                float *q = mapped + r * all, *k = q + width, *v = k + kv_heads * dim_head, *to = past->values + place;
                turn(q, angle, heads, dim_head, dim_head, q);
                turn(k, angle, kv_heads, dim_head, step, past->keys + place);
                for (int64_t h = 0; h < kv_heads; h++)
                    memcpy(to + h * step, v + h * dim_head, (size_t)dim_head * sizeof *v);
            }
            for (int64_t b = 0; b < batch; b++)
                for (int64_t h = 0; h < heads; h++) {
                    const int64_t place = l * past->layer_step + (b * kv_heads + h % kv_heads) * step;
                    spear_attend(count, mapped + b * count * all + h * dim_head, all, past->keys + place,
                                 past->values + place, dim_head, view.own + b * count, weight, view.most,
                                 seen + b * count * width + h * dim_head, width);
                }
            spear_product(&w->self_out, rows, seen, x, dim, x);

            norm(x, rows, dim, w->cross_gain, normed);
            spear_product(&w->to_q, rows, normed, NULL, 0, mapped);
            for (int64_t b = 0; b < batch; b++)
                for (int64_t h = 0; h < heads; h++) {
                    const int64_t place = (b * heads + h) * memory * dim_head;
                    spear_attend(count, mapped + b * count * width + h * dim_head, width, past->cross[2 * l] + place,
                                 past->cross[2 * l + 1] + place, dim_head, view.text + b * count, weight, view.most,
                                 seen + b * count * width + h * dim_head, width);
                }
            spear_product(&w->cross_out, rows, seen, x, dim, x);
        }
        if (!(skip && skip[l] & 2)) {
            norm(x, rows, dim, w->forward_gain, normed);
            spear_product(&w->up, rows, normed, w->up_bias, 0, mapped);
            gate(mapped, rows, inner, gated);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t i = 0; i < dim; i++) x[r * dim + i] += w->down_bias[i];
            spear_product(&w->down, rows, gated, x, dim, x);
        }
        if (features && features[l]) memcpy(features[l], x, (size_t)(rows * dim) * sizeof *x);
    }
    if (last == target->depth) {
        norm(x, rows, dim, target->gain, hidden);
        spear_product(target->head, rows, hidden, NULL, 0, logits);
    }
    free(normed);
    free(view.memory);
    return 0;
}
