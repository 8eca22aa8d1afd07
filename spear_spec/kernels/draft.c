/* A step and the head of the draft decoder on a CPU: the mathematics of DraftRunner (models/drafts/runner.py).

   A step reads about a megabyte of 8-bit weights, some 50 microseconds; as separate tensor operations it costs several
   times that in dispatch. Plain C11, called from native.py through ctypes, single-threaded, without state of its own.

   A "row" here is one new token of one utterance. What is computed for a row is the same, bit for bit, whatever rows
   stand beside it: sums run over the input in order, and keys that it does not see are left out rather than masked.
   pyproject.toml has the compiler's flags. They let it reorder the sum of a dot product, but not assume that there is
   no NaN: NaN in gives NaN out. With -O3, gcc 12 takes loops apart that it should vectorise, hence -O2
   -ftree-vectorize.

   Whoever calls has checked sizes, dtypes and lengths (draft.py and native.py do); checked here is only what takes
   reading tensors: token ids, depths of a tree, NaN. */

#include "draft.h"

#define VERSION 15 /* of the structures and arguments in the headers; native.py has the same number */

#ifndef NEAR
#define NEAR 700000 /* bytes of keys and values: with a draft's weights less than a second cache of 2 MiB */
#endif

INLINE float dot(const float *a, const float *b, int64_t size)
{
    float sum = 0;
    for (int64_t i = 0; i < size; i++) sum += a[i] * b[i];
    return sum;
}

/* x / max(|x|, least), row by row; y may be x. */
EVERY_CPU static void unit(const float *x, int64_t rows, int64_t dim, float least, float *y)
{
    for (int64_t r = 0; r < rows; r++, x += dim, y += dim) {
        const float size = sqrtf(dot(x, x, dim)), by = 1 / (size < least ? least : size);
        for (int64_t i = 0; i < dim; i++) y[i] = by * x[i];
    }
}

int spear_native_version(void) { return VERSION; }

int spear_draft_step(const struct draft *draft, int64_t batch, int64_t count, const int64_t *tokens,
                     const float *features, const struct past *past, int64_t nodes, const uint8_t *node_mask,
                     const int64_t *node_depth, const int64_t *counts, float *hidden)
{
    const int64_t dim = draft->dim, heads = draft->heads, dim_head = draft->dim_head, inner = draft->inner;
    const int64_t width = heads * dim_head, wide = 3 * width > 2 * inner ? 3 * width : 2 * inner;
    struct view view;
    int status = spear_look(&view, batch, count, counts, past, nodes, node_mask, node_depth);
    if (status) return status;
    const int64_t rows = view.rows;
    float *x = malloc((size_t)(rows * (2 * dim + wide + width + inner) + view.longest * view.most) * sizeof *x);
    if (!x) status = NO_MEMORY;
    for (int64_t r = 0; r < rows && !status; r++) {
        const int64_t token = tokens[view.from[r]];
        if (!(token >= 0 && token < draft->ids)) status = NO_TOKEN;
    }
    if (status) {
        free(x);
        spear_looked(&view);
        return status;
    }
    float *normed = x + rows * dim, *mapped = normed + rows * dim, *seen = mapped + rows * wide;
    float *gated = seen + rows * width, *weight = gated + rows * inner;
    for (int64_t r = 0; r < rows; r++) { /* the first feature of an utterance is zero */
        unit(features + view.from[r] * dim, 1, dim, 1e-6f, normed + r * dim);
        memcpy(x + r * dim, draft->table + tokens[view.from[r]] * dim, (size_t)dim * sizeof *x);
    }
    spear_product(draft->enter, rows, normed, x, dim, x);
    for (int64_t l = 0; l < draft->depth; l++) {
        const struct layer *w = draft->layers + l;

        unit(x, rows, dim, 0, normed);
        spear_product(&w->to_qkv, rows, normed, NULL, 0, mapped);
        spear_attend_past(1, &view, batch, past, l, heads, heads, dim_head, mapped, weight, seen);
        spear_product(&w->self_out, rows, seen, x, dim, x);

        unit(x, rows, dim, 0, normed);
        spear_product(&w->to_q, rows, normed, NULL, 0, mapped);
        spear_attend_text(1, &view, batch, past, l, heads, dim_head, mapped, weight, seen);
        spear_product(&w->cross_out, rows, seen, x, dim, x);

        unit(x, rows, dim, 0, normed);
        spear_product(&w->up, rows, normed, w->up_bias, 0, mapped);
        spear_gate(1, mapped, rows, inner, gated);
        spear_add(x, rows, dim, w->down_bias);
        spear_product(&w->down, rows, gated, x, dim, x);
    }
    if (counts) memset(hidden, 0, (size_t)(batch * count * dim) * sizeof *hidden);
    for (int64_t r = 0; r < rows; r++) memcpy(hidden + view.from[r] * dim, x + r * dim, (size_t)dim * sizeof *hidden);
    free(x);
    spear_looked(&view);
    return 0;
}

int spear_draft_fuse(const struct matrix *fuse, int64_t parts, int64_t dim, int64_t batch, int64_t count,
                     int64_t length, const float *const *features, float *fused)
{
    const int64_t rows = batch * count;
    float *normed = malloc((size_t)(rows * parts * dim) * sizeof *normed);
    if (!normed) return NO_MEMORY;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t part = 0; part < parts; part++)
            unit(features[part] + (r / count * length + r % count) * dim, 1, dim, 1e-12f,
                 normed + (r * parts + part) * dim);
    spear_product(fuse, rows, normed, NULL, 0, fused);
    free(normed);
    return 0;
}

int spear_draft_logits(const struct matrix *head, int64_t rows, const float *hidden, float *logits)
{
    float *normed = malloc((size_t)(rows * head->in) * sizeof *normed);
    if (!normed) return NO_MEMORY;
    unit(hidden, rows, head->in, 0, normed);
    spear_product(head, rows, normed, NULL, 0, logits);
    free(normed);
    return 0;
}

/* Chains of utterances that step together. */
static int chain_of(const struct draft *draft, const struct matrix *head, const struct sampling *how, int64_t how_step,
                    int64_t batch, int64_t steps, const int64_t *limits, int64_t eos, const double *uniforms,
                    const double *most_entropy, const double *least_chance, float *hidden, const struct past *past,
                    int64_t *tokens, int64_t *counts, float *laws)
{
    const int64_t size = head->out;
    double *table = malloc((size_t)size * sizeof *table + (size_t)batch * 3 * sizeof(int64_t) +
                           (size_t)(batch * size) * sizeof(float));
    if (!table) return NO_MEMORY;
    int64_t *at = (int64_t *)(table + size), *newest = at + batch, *alive = newest + batch;
    float *logits = (float *)(alive + batch);
    struct past reached = *past;
    reached.lengths = at;
    int64_t running = 0;
    int status = 0;
    for (int64_t b = 0; b < batch; b++) {
        at[b] = past->lengths[b];
        newest[b] = counts[b] = 0;
        running += alive[b] = limits[b] > 0;
    }
    for (int64_t step = 0; running; step++) {
        if (step) {
            status = spear_draft_step(draft, batch, 1, newest, hidden, &reached, 0, NULL, NULL, NULL, hidden);
            if (status) break;
            for (int64_t b = 0; b < batch; b++) at[b]++;
        }
        status = spear_draft_logits(head, batch, hidden, logits);
        running = 0;
        for (int64_t b = 0; b < batch && !status; b++) {
            float *own = laws + (b * steps + step) * size;
            if ((status = spear_laws(how + b * how_step, 0, 1, 1, size, logits + b * size, own))) break;
            if (most_entropy && alive[b]) alive[b] = spear_entropy(own, size) <= most_entropy[b];
            if (!alive[b]) continue;
            newest[b] = tokens[b * steps + step] = spear_draw(own, size, uniforms[b * steps + step], table);
            counts[b]++;
            alive[b] = newest[b] != eos && counts[b] < limits[b] && !(least_chance && own[newest[b]] < least_chance[b]);
            running += alive[b];
        }
        if (status) break;
    }
    free(table);
    return status;
}

/* How many utterances step together: as many as leave their keys and values in the second cache, with the weights, until
   the next step. */
static int64_t together(const struct draft *draft, const struct past *past, int64_t first, int64_t batch, int64_t steps)
{
    const int64_t position = draft->depth * draft->heads * draft->dim_head * 2 * (int64_t)sizeof(float);
    int64_t count = 0;
    for (int64_t bytes = 0; first + count < batch; count++) {
        bytes += (past->lengths[first + count] + steps + past->memory) * position;
        if (count && bytes > NEAR) break;
    }
    return count;
}

int spear_draft_chain(const struct draft *draft, const struct matrix *head, const struct sampling *how,
                      int64_t how_step, int64_t batch, int64_t steps, const int64_t *limits, int64_t eos,
                      const double *uniforms, const double *most_entropy, const double *least_chance, float *hidden,
                      const struct past *past, int64_t *tokens, int64_t *counts, float *laws)
{
    const int64_t width = draft->heads * draft->dim_head, texts = 2 * draft->depth, size = head->out;
    const float **cross = malloc((size_t)texts * sizeof *cross + (size_t)batch * sizeof(int64_t));
    if (!cross) return NO_MEMORY;
    int64_t *known = (int64_t *)(cross + texts), longest = 0; /* so many laws of each row */
    int status = 0;
    for (int64_t b = 0, count; b < batch && !status; b += count) {
        struct past own = *past;
        count = together(draft, past, b, batch, steps);
        own.lengths += b;
        own.keys += b * past->capacity * width;
        own.values += b * past->capacity * width;
        for (int64_t i = 0; i < texts; i++) cross[i] = past->cross[i] + b * past->memory * width;
        own.cross = cross;
        if (own.cross_mask) own.cross_mask += b * past->memory;
        status = chain_of(draft, head, how + b * how_step, how_step, count, steps, limits + b, eos, uniforms + b * steps,
                          most_entropy ? most_entropy + b : NULL, least_chance ? least_chance + b : NULL,
                          hidden + b * draft->dim, &own, tokens + b * steps, counts + b, laws + b * steps * size);
        int64_t most = 0;
        for (int64_t i = b; i < b + count; i++) most = counts[i] > most ? counts[i] : most;
        for (int64_t i = b; i < b + count; i++) known[i] = most;
        longest = most > longest ? most : longest;
    }
    for (int64_t b = 0; b < batch && !status; b++)
        memset(laws + (b * steps + known[b]) * size, 0, (size_t)((longest - known[b]) * size) * sizeof *laws);
    free(cross);
    return status;
}
