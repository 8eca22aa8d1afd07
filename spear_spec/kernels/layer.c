/* See layer.h. */

#include "layer.h"
#include "team.h"
#include "wider.h"

#define ENOUGH 300000 /* products of queries and keys that are worth a second thread */

INLINE int64_t whole(int64_t count) { return (count + KEYS - 1) / KEYS * KEYS; }

int spear_look(struct view *view, int64_t batch, int64_t count, const int64_t *counts, const struct past *past,
               int64_t nodes, const uint8_t *node_mask, const int64_t *node_depth)
{
    int64_t rows = 0, reached = 0, longest = 0;
    for (int64_t b = 0; b < batch; b++) {
        const int64_t own = counts ? counts[b] : count;
        rows += own;
        longest = own > longest ? own : longest;
        reached = past->lengths[b] + own > reached ? past->lengths[b] + own : reached;
    }
    const int64_t chain = whole(reached), text = whole(past->memory), most = chain > text ? chain : text;
    const int64_t lists = most + (nodes ? rows * chain : 0) + (past->cross_mask ? batch * text : 0);
    struct seen *own = calloc(1, (size_t)(2 * rows) * sizeof *own + (size_t)(3 * rows + batch + 1) * sizeof(int64_t) +
                                     (size_t)lists * sizeof(int32_t));
    *view = (struct view){.rows = rows, .most = most, .longest = longest, .own = own};
    if (!own) return NO_MEMORY;
    view->text = own + rows;
    view->from = (int64_t *)(view->text + rows);
    view->position = view->from + rows;
    view->slot = view->position + rows;
    view->begin = view->slot + rows;
    int32_t *all = (int32_t *)(view->begin + batch + 1), *list = all + most;
    for (int64_t i = 0; i < most; i++) all[i] = (int32_t)i;
    int64_t r = 0;
    for (int64_t b = 0; b < batch; b++) {
        const int64_t before = past->lengths[b], open = before + count - nodes;
        struct seen words = {all, past->memory, past->memory};
        if (past->cross_mask) {
            int64_t sees = 0;
            for (int64_t j = 0; j < past->memory; j++)
                if (past->cross_mask[b * past->memory + j]) list[sees++] = (int32_t)j;
            words = (struct seen){list, sees, sees};
            list += text;
        }
        view->begin[b] = r;
        for (int64_t i = 0; i < (counts ? counts[b] : count); i++, r++) {
            const int64_t from = b * count + i;
            view->from[r] = from;
            view->slot[r] = view->position[r] = before + i;
            view->text[r] = words;
            view->own[r] = (struct seen){all, before + i + 1, before + i + 1};
            if (!nodes) continue;
            if (!(node_depth[from] >= 0 && node_depth[from] < nodes)) {
                spear_looked(view);
                return NO_TREE;
            }
            view->position[r] = open + node_depth[from];
            int64_t sees = 0;
            for (; sees < open; sees++) list[sees] = (int32_t)sees;
            for (int64_t j = 0; j < nodes; j++)
                if (node_mask[from * nodes + j]) list[sees++] = (int32_t)(open + j);
            view->own[r] = (struct seen){list, sees, open};
            list += chain;
        }
    }
    view->begin[batch] = r;
    return 0;
}

void spear_looked(struct view *view)
{
    free(view->own);
    view->own = NULL;
}

void spear_turn(const float *x, const float *angle, int64_t heads, int64_t dim, int64_t to_step, float *to)
{
    for (int64_t h = 0; h < heads; h++, x += dim, to += to_step)
        for (int64_t j = 0; j < dim; j += 2) {
            const float a = x[j], b = x[j + 1];
            to[j] = a * angle[j] - b * angle[j + 1];
            to[j + 1] = a * angle[j + 1] + b * angle[j];
        }
}

/* Heads of all utterances, one after the other, and what their parts share. */
struct attending {
    const struct view *view;
    const struct seen *seen;
    int64_t heads, kv_heads, dim_head, items, parts, q_step, head_step;
    const float *q, *k, *v;
    float *weight, *out;
};

/* Keys and values of a head. */
static struct ahead ahead_of(const struct attending *all, int64_t item)
{
    const int64_t b = item / all->heads, h = item % all->heads, dim = all->dim_head, first = all->view->begin[b];
    if (all->view->begin[b + 1] == first) return (struct ahead){0};
    const struct seen *seen = all->seen + all->view->begin[b + 1] - 1; /* of a chain it sees most */
    if (!seen->count) return (struct ahead){0};
    const int64_t place = (b * all->kv_heads + h % all->kv_heads) * all->head_step + seen->at[0] * dim;
    const int64_t size = (seen->at[seen->count - 1] - seen->at[0] + 1) * dim;
    const float *k = all->k + place, *v = all->v + place;
    return (struct ahead){(const char *)k, (const char *)(k + size), (const char *)v, (const char *)(v + size)};
}

static void attend_part(void *context, int64_t part)
{
    const struct attending *all = context;
    const int64_t last = (part + 1) * all->items / all->parts, width = all->heads * all->dim_head;
    float *weight = all->weight + part * all->view->longest * all->view->most;
    for (int64_t item = part * all->items / all->parts; item < last; item++) {
        const int64_t b = item / all->heads, h = item % all->heads, first = all->view->begin[b];
        const int64_t rows = all->view->begin[b + 1] - first;
        const int64_t place = (b * all->kv_heads + h % all->kv_heads) * all->head_step;
        struct ahead next = item + 1 < last ? ahead_of(all, item + 1) : (struct ahead){0};
        if (rows)
            spear_attend(rows, all->q + first * all->q_step + h * all->dim_head, all->q_step, all->k + place,
                         all->v + place, all->dim_head, all->seen + first, weight, all->view->most,
                         all->out + first * width + h * all->dim_head, width,
                         all->view->ahead ? all->view->ahead : &next);
    }
}

static void attend_all(int64_t threads, struct attending *all, int64_t batch)
{
    if (all->view->rows * all->view->most * all->heads * all->dim_head < ENOUGH) threads = 1;
    all->items = batch * all->heads;
    all->parts = ATTENDING(threads) < all->items ? ATTENDING(threads) : all->items;
    spear_together(threads, all->parts, attend_part, all);
}

void spear_attend_past(int64_t threads, const struct view *view, int64_t batch, const struct past *past, int64_t layer,
                       int64_t heads, int64_t kv_heads, int64_t dim_head, float *mapped, float *weight, float *seen)
{
    const int64_t width = heads * dim_head, all = width + 2 * kv_heads * dim_head, step = past->capacity * dim_head;
    float *keys = past->keys + layer * past->layer_step, *values = past->values + layer * past->layer_step;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t r = view->begin[b]; r < view->begin[b + 1]; r++) {
            const int64_t place = b * kv_heads * step + view->slot[r] * dim_head;
            const float *angle = past->angles + view->position[r] * dim_head;
            float *q = mapped + r * all, *k = q + width, *v = k + kv_heads * dim_head;
            spear_turn(q, angle, heads, dim_head, dim_head, q);
            spear_turn(k, angle, kv_heads, dim_head, step, keys + place);
            for (int64_t h = 0; h < kv_heads; h++)
                memcpy(values + place + h * step, v + h * dim_head, (size_t)dim_head * sizeof *v);
        }
    struct attending work = {.view = view, .seen = view->own, .heads = heads, .kv_heads = kv_heads,
                             .dim_head = dim_head, .q_step = all, .head_step = step, .q = mapped, .k = keys,
                             .v = values, .weight = weight, .out = seen};
    attend_all(threads, &work, batch);
}

void spear_attend_text(int64_t threads, const struct view *view, int64_t batch, const struct past *past, int64_t layer,
                       int64_t heads, int64_t dim_head, const float *queries, float *weight, float *seen)
{
    struct attending work = {.view = view, .seen = view->text, .heads = heads, .kv_heads = heads,
                             .dim_head = dim_head, .q_step = heads * dim_head, .head_step = past->memory * dim_head,
                             .q = queries, .k = past->cross[2 * layer], .v = past->cross[2 * layer + 1],
                             .weight = weight, .out = seen};
    attend_all(threads, &work, batch);
}

#define LANES 4
#define NAMED(name) name##_4
#define TARGET
#include "gate_lanes.h"

#if WIDER
#define LANES 8
#define NAMED(name) name##_8
#define TARGET __attribute__((target("avx2,fma")))
#include "gate_lanes.h"

#define LANES 16
#define NAMED(name) name##_16
#define TARGET __attribute__((target("avx512f,avx512vl,avx512dq,avx2,fma")))
#include "gate_lanes.h"
#endif

static void gate(const float *mapped, int64_t rows, int64_t inner, float *gated)
{
#if WIDER
    if (spear_lanes() == 16) gate_16(mapped, rows, inner, gated);
    else if (spear_lanes() == 8) gate_8(mapped, rows, inner, gated);
    else
#endif
        gate_4(mapped, rows, inner, gated);
}

struct gating {
    const float *mapped;
    int64_t rows, inner, parts;
    float *gated;
};

static void gate_part(void *context, int64_t part)
{
    const struct gating *all = context;
    const int64_t first = part * all->rows / all->parts, last = (part + 1) * all->rows / all->parts;
    gate(all->mapped + 2 * first * all->inner, last - first, all->inner, all->gated + first * all->inner);
}

void spear_gate(int64_t threads, const float *mapped, int64_t rows, int64_t inner, float *gated)
{
    struct gating work = {mapped, rows, inner, rows < threads ? rows : threads, gated};
    spear_together(rows * inner < 10000 ? 1 : threads, work.parts, gate_part, &work);
}

void spear_add(float *x, int64_t rows, int64_t width, const float *add)
{
    for (int64_t r = 0; r < rows; r++, x += width)
        for (int64_t i = 0; i < width; i++) x[i] += add[i];
}

EVERY_CPU void spear_norm(const float *x, int64_t rows, int64_t dim, const float *gain, float *y)
{
    const float root = 1 / sqrtf((float)dim);
    for (int64_t r = 0; r < rows; r++, x += dim, y += dim) {
        float sum = 0;
        for (int64_t i = 0; i < dim; i++) sum += x[i] * x[i];
        const float size = sqrtf(sum), by = 1 / ((size < 1e-12f ? 1e-12f : size) * root);
        for (int64_t i = 0; i < dim; i++) y[i] = x[i] * gain[i] * by;
    }
}
