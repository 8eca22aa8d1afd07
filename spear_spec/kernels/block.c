/* The block decoder on a CPU: the mathematics of BlockRunner (models/drafts/block_runner.py).

   A pass reads the 8-bit weights once or twice for all positions of a draft, so that it costs little more than a few
   steps of a decoder that drafts one token after the other. What is computed for a row is the same, bit for bit,
   whatever rows stand beside it.

   Whoever calls has checked sizes, dtypes and lengths (block.py does); checked here is only what takes reading tensors:
   token ids, NaN. */

#include "block.h"

static void spread(const float *x, int64_t heads, int64_t dim, int64_t to_step, float *to)
{
    for (int64_t h = 0; h < heads; h++) memcpy(to + h * to_step, x + h * dim, (size_t)dim * sizeof *x);
}

/* by / (1 + e^-x). */
EVERY_CPU static void chances(const float *x, int64_t count, float by, float *to)
{
    for (int64_t i = 0; i < count; i++) {
        const float e = exp_below(-fabsf(x[i]));
        to[i] = by * (x[i] > 0 ? 1 : e) / (1 + e);
    }
}

int spear_block_read(const struct block *block, int64_t batch, int64_t count, const int64_t *tokens,
                     const float *features, const struct past *past, const int64_t *counts, float *contexts)
{
    const int64_t dim = block->dim, heads = block->heads, dim_head = block->dim_head, width = heads * dim_head;
    const int64_t step = past->capacity * dim_head;
    int64_t rows = 0;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < (counts ? counts[b] : count); i++, rows++)
            if (!(tokens[b * count + i] >= 0 && tokens[b * count + i] < block->ids)) return NO_TOKEN;
    int64_t *from = malloc((size_t)rows * sizeof *from + (size_t)(rows * (2 * dim + 2 * width)) * sizeof(float) +
                           (size_t)spear_bytes_room(rows, dim));
    if (!from) return NO_MEMORY;
    float *x = (float *)(from + rows), *fed = x + rows * dim, *mapped = fed + rows * dim;
    void *room = mapped + rows * 2 * width;
    int64_t found = 0;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < (counts ? counts[b] : count); i++) from[found++] = b * count + i;
    for (int64_t r = 0; r < rows; r++) {
        memcpy(fed + r * dim, features + from[r] * dim, (size_t)dim * sizeof *fed);
        memcpy(x + r * dim, block->table + tokens[from[r]] * dim, (size_t)dim * sizeof *x);
    }
    spear_bytes_unit(block->enter, rows, fed, 1e-6f, x, dim, x, room); /* the first feature of an utterance is zero */
    const struct codes codes = spear_codes(x, rows, dim, 1, 0, room);
    for (int64_t l = 0; l < block->depth; l++) {
        spear_of_codes(&block->layers[l].past, &codes, NULL, 0, mapped);
        for (int64_t r = 0; r < rows; r++) {
            const int64_t b = from[r] / count, slot = past->lengths[b] + from[r] % count;
            const int64_t place = l * past->layer_step + b * heads * step + slot * dim_head;
            spear_turn(mapped + r * 2 * width, past->angles + slot * dim_head, heads, dim_head, step, past->keys + place);
            spread(mapped + r * 2 * width + width, heads, dim_head, step, past->values + place);
        }
    }
    memset(contexts, 0, (size_t)(batch * count * dim) * sizeof *contexts);
    for (int64_t r = 0; r < rows; r++) memcpy(contexts + from[r] * dim, x + r * dim, (size_t)dim * sizeof *x);
    free(from);
    return 0;
}

/* What the rows of a pass see: all positions of a block the same, the newest settled ones and those of the block. */
static int look(const struct block *block, int64_t batch, int64_t steps, const int64_t *counts,
                const struct past *past, struct view *view)
{
    const int status = spear_look(view, batch, steps, counts, past, 0, NULL, NULL);
    if (status) return status;
    int32_t *list = calloc((size_t)(batch * view->most), sizeof *list);
    if (!list) {
        spear_looked(view);
        return NO_MEMORY;
    }
    for (int64_t b = 0; b < batch; b++) {
        const int64_t before = past->lengths[b], first = before > block->window ? before - block->window : 0;
        const int64_t sees = before + counts[b] - first;
        int32_t *own = list + b * view->most;
        for (int64_t i = 0; i < sees; i++) own[i] = (int32_t)(first + i);
        for (int64_t r = view->begin[b]; r < view->begin[b + 1]; r++) view->own[r] = (struct seen){own, sees, sees};
    }
    return 0;
}

/* Maps mostly lie side by side in the order in which they are read: bring what follows. */
static void from_here(struct ahead *ahead, const struct bytes *map)
{
    if (ahead->at < (const char *)map->codes) ahead->at = (const char *)map->codes;
}

int spear_block_pass(const struct block *block, int64_t batch, int64_t steps, const int64_t *counts,
                     const float *contexts, const struct past *past, float *logits, float *gate, float *sure)
{
    const int64_t dim = block->dim, heads = block->heads, dim_head = block->dim_head, inner = block->inner;
    const int64_t width = heads * dim_head, rank = block->rank, size = block->head->out;
    const int64_t wide = 3 * width > 2 * inner ? 3 * width : 2 * inner;
    int64_t widest = dim > inner ? dim : inner;
    if (width > widest) widest = width;
    struct view view;
    if (look(block, batch, steps, counts, past, &view)) return NO_MEMORY;
    int32_t *lists = (int32_t *)(uintptr_t)view.own[0].at;
    const int64_t rows = view.rows;
    const int64_t floats = rows * (dim + wide + width + inner + rank + 1 + size) + view.longest * view.most;
    float *x = malloc((size_t)floats * sizeof *x + (size_t)spear_bytes_room(rows, widest));
    if (!x) {
        free(lists);
        spear_looked(&view);
        return NO_MEMORY;
    }
    float *mapped = x + rows * dim, *seen = mapped + rows * wide;
    float *gated = seen + rows * width, *said = gated + rows * inner, *weight = said + rows * (rank + 1 + size);
    void *room = x + floats;
    for (int64_t r = 0; r < rows; r++) {
        const float *context = contexts + view.from[r] / steps * dim;
        const float *position = block->positions + view.from[r] % steps * dim;
        for (int64_t i = 0; i < dim; i++) x[r * dim + i] = context[i] + position[i];
    }
    struct ahead ahead = {.end = (const char *)block->after->codes + size * spear_tile_in(rank)};
    view.ahead = &ahead;
    for (int64_t l = 0; l < block->depth; l++) {
        const struct block_layer *w = block->layers + l;

        spear_bytes_unit(&w->to_qkv, rows, x, 0, NULL, 0, mapped, room);
        from_here(&ahead, &w->self_out);
        spear_attend_past(1, &view, batch, past, l, heads, heads, dim_head, mapped, weight, seen);
        spear_bytes(&w->self_out, rows, seen, x, dim, x, room);

        spear_bytes_unit(&w->to_q, rows, x, 0, NULL, 0, mapped, room);
        from_here(&ahead, &w->cross_out);
        spear_attend_text(1, &view, batch, past, l, heads, dim_head, mapped, weight, seen);
        spear_bytes(&w->cross_out, rows, seen, x, dim, x, room);

        spear_bytes_unit(&w->up, rows, x, 0, w->up_bias, 0, mapped, room);
        spear_gate(1, mapped, rows, inner, gated);
        spear_add(x, rows, dim, w->down_bias);
        spear_bytes(&w->down, rows, gated, x, dim, x, room);
    }
    const struct codes codes = spear_codes(x, rows, dim, 1, 0, room);
    float *words = rows == batch * steps ? logits : said + rows * (rank + 1);
    spear_of_codes(block->gate, &codes, block->gate_bias, 0, said);
    spear_of_codes(block->head, &codes, NULL, 0, words);
    for (int64_t r = 0; r < rows; r++) {
        const int64_t to = view.from[r];
        if (words != logits) memcpy(logits + to * size, words + r * size, (size_t)size * sizeof *logits);
        chances(said + r * (rank + 1), rank, 2, gate + to * rank);
        chances(said + r * (rank + 1) + rank, 1, 1, sure + to);
    }
    free(x);
    free(lists);
    spear_looked(&view);
    return 0;
}

int spear_block_follow(const struct block *block, int64_t rows, const float *logits, const float *gate,
                       const int64_t *tokens, float *out)
{
    const int64_t rank = block->rank, size = block->head->out;
    for (int64_t r = 0; r < rows; r++)
        if (!(tokens[r] >= 0 && tokens[r] < block->ids)) return NO_TOKEN;
    float *open = malloc((size_t)(rows * rank) * sizeof *open + (size_t)spear_bytes_room(rows, rank));
    if (!open) return NO_MEMORY;
    void *room = open + rows * rank;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < rank; i++) open[r * rank + i] = block->before[tokens[r] * rank + i] * gate[r * rank + i];
    spear_bytes(block->after, rows, open, logits, size, out, room);
    free(open);
    return 0;
}

/* The length that promises most tokens for its cost, by the chances of a row's positions; as adaptive.py's
   `best_length`. */
static int64_t best_length(const float *sure, int64_t longest, double cost)
{
    double tokens = 1, best = 0, reach = 1;
    int64_t length = 0;
    for (int64_t k = 1; k <= longest; k++) {
        reach *= (double)sure[k - 1];
        tokens += reach;
        if (tokens / (1 + cost * (double)k) > best) {
            best = tokens / (1 + cost * (double)k);
            length = k;
        }
    }
    return length;
}

int spear_block_chain(const struct block *block, const struct sampling *how, int64_t how_step, int64_t batch,
                      int64_t steps, const int64_t *limits, int64_t eos, const double *uniforms,
                      const double *most_entropy, const double *least_chance, double cost, const float *contexts,
                      const int64_t *newest, const struct past *past, int64_t *tokens, int64_t *counts, float *laws)
{
    const int64_t size = block->head->out, rank = block->rank;
    double *table = malloc((size_t)size * sizeof *table + (size_t)batch * sizeof(int64_t) +
                           (size_t)(batch * steps * (size + rank + 1) + size) * sizeof(float));
    if (!table) return NO_MEMORY;
    int64_t *most = (int64_t *)(table + size);
    float *logits = (float *)(most + batch), *gate = logits + batch * steps * size;
    float *sure = gate + batch * steps * rank, *own = sure + batch * steps;
    int status = spear_block_pass(block, batch, steps, limits, contexts, past, logits, gate, sure);
    for (int64_t b = 0; b < batch && !status; b++) {
        int64_t before = newest[b];
        counts[b] = 0;
        most[b] = cost < 0 ? limits[b] : best_length(sure + b * steps, limits[b], cost);
        for (int64_t k = 0; k < most[b] && !status; k++) {
            const int64_t at = b * steps + k;
            float *law = laws + at * size;
            if ((status = spear_block_follow(block, 1, logits + at * size, gate + at * rank, &before, own))) break;
            if ((status = spear_laws(how + b * how_step, 0, 1, 1, size, own, law))) break;
            if (most_entropy && !(spear_entropy(law, size) <= most_entropy[b])) break;
            before = tokens[at] = spear_draw(law, size, uniforms[at], table);
            counts[b]++;
            if (before == eos || (least_chance && law[before] < least_chance[b])) break;
        }
    }
    free(table);
    return status;
}
