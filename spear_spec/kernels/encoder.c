/* The text's encoder on a CPU: the mathematics of `EncoderLayer` (nn/transformer.py). Sums run as in step.c, so a text
   gives the same bits alone and among longer ones. */

#include "encoder.h"

/* Keys and values [rows, 2 heads dim_head] to their places behind the null, which is written too. */
static void place(const struct encoder *encoder, int64_t reader, const struct view *view, int64_t batch, int64_t count,
                  const float *mapped, float *const *cross)
{
    const int64_t dim_head = encoder->dim_head, heads = encoder->heads, slots = 1 + count, width = heads * dim_head;
    for (int64_t which = 0; which < 2; which++) {
        float *to = cross[2 * reader + which];
        const float *null = encoder->nulls[reader] + which * width;
        memset(to, 0, (size_t)(batch * heads * slots * dim_head) * sizeof *to);
        for (int64_t b = 0; b < batch; b++)
            for (int64_t h = 0; h < heads; h++) {
                float *own = to + (b * heads + h) * slots * dim_head;
                memcpy(own, null + h * dim_head, (size_t)dim_head * sizeof *own);
                for (int64_t r = view->begin[b]; r < view->begin[b + 1]; r++)
                    memcpy(own + (1 + r - view->begin[b]) * dim_head,
                           mapped + r * 2 * width + which * width + h * dim_head, (size_t)dim_head * sizeof *own);
            }
    }
}

int spear_encode(int64_t threads, const struct encoder *encoder, int64_t batch, int64_t count, const int64_t *ids,
                 const int64_t *counts, const float *angles, float *hidden, float *const *cross)
{
    const int64_t dim = encoder->dim, heads = encoder->heads, dim_head = encoder->dim_head, inner = encoder->inner;
    const int64_t width = heads * dim_head, wide = 3 * width > 2 * inner ? 3 * width : 2 * inner;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < counts[b]; i++)
            if (!(ids[b * count + i] >= 0 && ids[b * count + i] < encoder->ids)) return NO_TOKEN;
    int64_t *none = calloc((size_t)batch, sizeof *none);
    if (!none) return NO_MEMORY;
    struct past past = {.lengths = none, .angles = angles, .capacity = count};
    struct view view;
    const int status = spear_look(&view, batch, count, counts, &past, 0, NULL, NULL);
    free(none);
    if (status) return status;
    const int64_t rows = view.rows, store = batch * width * count;
    float *x = malloc((size_t)(rows * (2 * dim + wide + width + inner) + 2 * store +
                               ATTENDING(threads) * view.longest * view.most) * sizeof *x);
    if (!x) {
        spear_looked(&view);
        return NO_MEMORY;
    }
    float *normed = x + rows * dim, *mapped = normed + rows * dim, *seen = mapped + rows * wide;
    float *gated = seen + rows * width, *weight = gated + rows * inner + 2 * store;
    past.keys = gated + rows * inner;
    past.values = past.keys + store;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t r = view.begin[b]; r < view.begin[b + 1]; r++) {
            view.own[r].count = view.own[r].shared = counts[b];
            memcpy(x + r * dim, encoder->table + ids[view.from[r]] * dim, (size_t)dim * sizeof *x);
        }
    for (int64_t l = 0; l < encoder->depth; l++) {
        const struct encoder_layer *w = encoder->layers + l;
        spear_norm(x, rows, dim, w->self_gain, normed);
        spear_product_by(threads, &w->to_qkv, rows, normed, NULL, 0, mapped);
        spear_attend_past(threads, &view, batch, &past, 0, heads, heads, dim_head, mapped, weight, seen);
        spear_product_by(threads, &w->self_out, rows, seen, x, dim, x);

        spear_norm(x, rows, dim, w->forward_gain, normed);
        spear_product_by(threads, &w->up, rows, normed, w->up_bias, 0, mapped);
        spear_gate(threads, mapped, rows, inner, gated);
        spear_add(x, rows, dim, w->down_bias);
        spear_product_by(threads, &w->down, rows, gated, x, dim, x);
    }
    spear_norm(x, rows, dim, encoder->gain, normed);
    memset(hidden, 0, (size_t)(batch * count * dim) * sizeof *hidden);
    for (int64_t r = 0; r < rows; r++)
        memcpy(hidden + view.from[r] * dim, normed + r * dim, (size_t)dim * sizeof *hidden);
    for (int64_t reader = 0; reader < encoder->readers; reader++) {
        spear_product_by(threads, encoder->to_kv + reader, rows, normed, NULL, 0, mapped);
        place(encoder, reader, &view, batch, count, mapped, cross);
    }
    free(x);
    spear_looked(&view);
    return 0;
}
