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

#define VERSION 4 /* of the structures and arguments in the headers; native.py has the same number */
#define BLEND 32 /* of attention's outputs, held in registers */

INLINE float dot(const float *a, const float *b, int64_t size)
{
    float sum = 0;
    for (int64_t i = 0; i < size; i++) sum += a[i] * b[i];
    return sum;
}

/* out [width] = sum of share[i] v[at[i]]; v [positions, dim]. */
INLINE void blend(const float *share, const int32_t *at, int64_t count, const float *v, int64_t dim, int64_t width,
                  float *out)
{
    float sums[BLEND] = {0};
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < width; j++) sums[j] += share[i] * v[at[i] * dim + j];
    for (int64_t j = 0; j < width; j++) out[j] = sums[j];
}

/* Attention of one row: q and out [heads, dim]; k and v: heads lie head_step apart, then [positions, dim]; at [count]:
   the positions that it sees; weight [count]: scratch. */
EVERY_CPU static void attend(const float *q, const float *k, const float *v, int64_t heads, int64_t dim,
                             int64_t head_step, const int32_t *at, int64_t count, float *weight, float *out)
{
    const float root = 1 / sqrtf((float)dim);
    for (int64_t h = 0; h < heads; h++, q += dim, k += head_step, v += head_step, out += dim) {
        float top = -INFINITY, sum = 0;
        if (dim == 64) /* the usual width, as a constant: loops without remainders */
            for (int64_t i = 0; i < count; i++) weight[i] = root * dot(q, k + at[i] * 64, 64);
        else
            for (int64_t i = 0; i < count; i++) weight[i] = root * dot(q, k + at[i] * dim, dim);
        for (int64_t i = 0; i < count; i++) top = weight[i] > top ? weight[i] : top;
        for (int64_t i = 0; i < count; i++) weight[i] = exp_below(weight[i] - top);
        for (int64_t i = 0; i < count; i++) sum += weight[i];
        for (int64_t i = 0; i < count; i++) weight[i] /= sum;
        int64_t j = 0;
        for (; j + BLEND <= dim; j += BLEND) blend(weight, at, count, v + j, dim, BLEND, out + j);
        if (j < dim) blend(weight, at, count, v + j, dim, dim - j, out + j);
    }
}

/* x / max(|x|, least), row by row; y may be x. */
EVERY_CPU static void unit(const float *x, int64_t rows, int64_t dim, float least, float *y)
{
    for (int64_t r = 0; r < rows; r++, x += dim, y += dim) {
        const float size = sqrtf(dot(x, x, dim)), by = 1 / (size < least ? least : size);
        for (int64_t i = 0; i < dim; i++) y[i] = by * x[i];
    }
}

/* Turn neighbouring pairs of each head of x [heads, dim] by angle [dim / 2] (cosine, sine); written to_step apart. */
static void rotate(const float *x, const float *angle, int64_t heads, int64_t dim, int64_t to_step, float *to)
{
    for (int64_t h = 0; h < heads; h++, x += dim, to += to_step)
        for (int64_t j = 0; j < dim; j += 2) {
            const float a = x[j], b = x[j + 1];
            to[j] = a * angle[j] - b * angle[j + 1];
            to[j + 1] = a * angle[j + 1] + b * angle[j];
        }
}

/* The first `open` positions, and of those behind them the ones whose flag is set. */
static int64_t visible(int64_t open, const uint8_t *flags, int64_t flagged, int32_t *at)
{
    int64_t count = 0;
    for (; count < open; count++) at[count] = (int32_t)count;
    for (int64_t j = 0; j < flagged; j++)
        if (flags[j]) at[count++] = (int32_t)(open + j);
    return count;
}

int spear_native_version(void) { return VERSION; }

int spear_draft_step(const struct draft *draft, int64_t batch, int64_t count, const int64_t *tokens,
                     const float *features, const struct past *past, int64_t nodes, const uint8_t *node_mask,
                     const int64_t *node_depth, const int64_t *counts, float *hidden)
{
    const int64_t dim = draft->dim, heads = draft->heads, dim_head = draft->dim_head, inner = draft->inner;
    const int64_t width = heads * dim_head, step = past->capacity * dim_head, memory = past->memory;
    const int64_t wide = 3 * width > 2 * inner ? 3 * width : 2 * inner;
    const int64_t most = past->capacity > memory ? past->capacity : memory;
    int64_t rows = 0;
    for (int64_t b = 0; b < batch; b++) rows += counts ? counts[b] : count;
    const size_t floats = (size_t)(rows * (2 * dim + wide + width + inner) + most);
    int64_t *from = malloc((size_t)rows * sizeof *from + floats * sizeof(float) + (size_t)most * sizeof(int32_t));
    if (!from) return NO_MEMORY;
    float *x = (float *)(from + rows), *normed = x + rows * dim, *mapped = normed + rows * dim;
    float *seen = mapped + rows * wide, *gated = seen + rows * width, *weight = gated + rows * inner;
    int32_t *at = (int32_t *)(weight + most);
    int64_t found = 0;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < (counts ? counts[b] : count); i++) from[found++] = b * count + i;
    for (int64_t r = 0; r < rows; r++) {
        const int64_t token = tokens[from[r]];
        const int known = token >= 0 && token < draft->ids;
        if (!known || (nodes && !(node_depth[from[r]] >= 0 && node_depth[from[r]] < nodes))) {
            free(from);
            return known ? NO_TREE : NO_TOKEN;
        }
        unit(features + from[r] * dim, 1, dim, 1e-6f, normed + r * dim); /* the first feature of an utterance is zero */
        memcpy(x + r * dim, draft->table + token * dim, (size_t)dim * sizeof *x);
    }
    spear_multiply(draft->enter, rows, normed, x, dim, x);
    for (int64_t l = 0; l < draft->depth; l++) {
        const struct layer *w = draft->layers + l;

        unit(x, rows, dim, 0, normed);
        spear_multiply(&w->to_qkv, rows, normed, NULL, 0, mapped);
        for (int64_t r = 0; r < rows; r++) {
            const int64_t b = from[r] / count, before = past->lengths[b], slot = before + from[r] % count;
            const int64_t position = nodes ? before + count - nodes + node_depth[from[r]] : slot;
            const int64_t place = l * past->layer_step + b * heads * step + slot * dim_head;
            const float *angle = past->angles + position * dim_head;
            float *q = mapped + r * 3 * width, *k = q + width, *v = k + width, *to = past->values + place;
            rotate(q, angle, heads, dim_head, dim_head, q);
            rotate(k, angle, heads, dim_head, step, past->keys + place);
            for (int64_t h = 0; h < heads; h++) memcpy(to + h * step, v + h * dim_head, (size_t)dim_head * sizeof *v);
        }
        for (int64_t r = 0; r < rows; r++) {
            const int64_t b = from[r] / count, before = past->lengths[b];
            const int64_t start = l * past->layer_step + b * heads * step;
            const int64_t open = nodes ? before + count - nodes : before + from[r] % count + 1;
            const int64_t sees = visible(open, nodes ? node_mask + from[r] * nodes : NULL, nodes, at);
            attend(mapped + r * 3 * width, past->keys + start, past->values + start, heads, dim_head, step, at, sees,
                   weight, seen + r * width);
        }
        spear_multiply(&w->self_out, rows, seen, x, dim, x);

        unit(x, rows, dim, 0, normed);
        spear_multiply(&w->to_q, rows, normed, NULL, 0, mapped);
        for (int64_t r = 0; r < rows; r++) {
            const int64_t b = from[r] / count, start = b * heads * memory * dim_head;
            const uint8_t *mask = past->cross_mask ? past->cross_mask + b * memory : NULL;
            const int64_t sees = visible(mask ? 0 : memory, mask, mask ? memory : 0, at);
            attend(mapped + r * width, past->cross[2 * l] + start, past->cross[2 * l + 1] + start, heads, dim_head,
                   memory * dim_head, at, sees, weight, seen + r * width);
        }
        spear_multiply(&w->cross_out, rows, seen, x, dim, x);

        unit(x, rows, dim, 0, normed);
        spear_multiply(&w->up, rows, normed, w->up_bias, 0, mapped);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < inner; i++) {
                const float *value = mapped + r * 2 * inner, gate = value[inner + i];
                gated[r * inner + i] = value[i] * 0.5f * gate * (1 + erff(gate * 0.70710678f));
            }
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < dim; i++) x[r * dim + i] += w->down_bias[i];
        spear_multiply(&w->down, rows, gated, x, dim, x);
    }
    if (counts) memset(hidden, 0, (size_t)(batch * count * dim) * sizeof *hidden);
    for (int64_t r = 0; r < rows; r++) memcpy(hidden + from[r] * dim, x + r * dim, (size_t)dim * sizeof *hidden);
    free(from);
    return 0;
}

int spear_draft_logits(const struct linear *head, int64_t rows, const float *hidden, float *logits)
{
    float *normed = malloc((size_t)(rows * head->in) * sizeof *normed);
    if (!normed) return NO_MEMORY;
    unit(hidden, rows, head->in, 0, normed);
    spear_multiply(head, rows, normed, NULL, 0, logits);
    free(normed);
    return 0;
}

int spear_draft_chain(const struct draft *draft, const struct linear *head, const struct sampling *how,
                      int64_t how_step, int64_t batch, int64_t steps, const int64_t *limits, int64_t eos,
                      const double *uniforms, const double *most_entropy, const double *least_chance, float *hidden,
                      const struct past *past, int64_t *tokens, int64_t *counts, float *laws)
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
