/* See round.h. What a round computes is what the calls that it is made of compute one by one, to the last bit; between
   two of them there is no more than a copy. */

#include "round.h"

/* What the draft reads, and the chains that it draws: tokens, drafted and longest of the round, laws [batch, steps,
   size] of the drafts. */
static int draw(struct round *round, float *laws, double *uniforms)
{
    const struct draft *draft = round->draft;
    const int64_t batch = round->batch, steps = round->steps, count = round->count, dim = draft->dim;
    float *fed = calloc((size_t)(batch * (count + 1) * dim), sizeof *fed), *newest = fed + batch * count * dim;
    if (!fed) return NO_MEMORY;
    int status = 0;
    if (round->features)
        status = spear_draft_fuse(round->fuse, round->parts, dim, batch, count, round->length, round->features, fed);
    if (!status)
        status = spear_draft_step(draft, batch, count, round->fresh, fed, round->read, 0, NULL, NULL, round->counts, fed);
    for (int64_t b = 0; b < batch && !status; b++) {
        round->reached[b] += round->counts[b];
        memcpy(newest + b * dim, fed + (b * count + round->counts[b] - 1) * dim, (size_t)dim * sizeof *fed);
        memcpy(uniforms + b * steps, round->uniforms + b * (2 * steps + 1), (size_t)steps * sizeof *uniforms);
    }
    if (!status)
        status = spear_draft_chain(draft, round->head, round->how, round->how_step, batch, steps, round->limits,
                                   round->eos, uniforms, NULL, NULL, newest, round->read, round->tokens, round->drafted,
                                   laws);
    free(fed);
    return status;
}

int spear_round(struct round *round)
{
    const int64_t batch = round->batch, steps = round->steps, most = steps + 1, size = round->target->head->out;
    const int64_t dim = round->target->dim, rows = batch * most;
    double *uniforms = malloc((size_t)rows * (sizeof *uniforms + 2 * sizeof(int64_t)) +
                              (size_t)(rows * (dim + size) + batch * steps * size) * sizeof(float));
    if (!uniforms) return NO_MEMORY;
    int64_t *tokens = (int64_t *)(uniforms + rows), *drafts = tokens + rows, longest = 0;
    float *x = (float *)(drafts + rows), *laws = x + rows * dim, *drawn = laws + rows * size;
    int status = 0;
    if (steps) status = draw(round, drawn, uniforms);
    else
        for (int64_t b = 0; b < batch; b++) round->drafted[b] = 0;
    for (int64_t b = 0; b < batch && !status; b++) longest = round->drafted[b] > longest ? round->drafted[b] : longest;
    const int64_t scored = longest + 1;
    for (int64_t b = 0; b < batch && !status; b++) {
        const int64_t *own = round->tokens + b * steps, own_count = round->drafted[b];
        int64_t *to = tokens + b * scored;
        to[0] = round->newest[b];
        for (int64_t i = 0; i < longest; i++) {
            to[i + 1] = i < own_count ? own[i] : 0;
            drafts[b * longest + i] = to[i + 1];
        }
        memcpy(uniforms + b * scored, round->uniforms + b * (2 * steps + 1) + own_count,
               (size_t)scored * sizeof *uniforms);
    }
    if (!status)
        status = spear_target_step(round->threads, round->target, 0, round->target->depth, batch, scored, tokens, x,
                                   round->past, 0, NULL, NULL, NULL, round->kept, round->hidden, round->logits);
    if (!status) status = spear_laws(round->how, round->how_step, batch, scored, size, round->logits, laws);
    if (!status)
        status = spear_judge((int)round->rule, batch, longest, size, drafts, round->drafted, longest ? drawn : NULL,
                             steps * size, laws, scored * size, uniforms, round->accepted, round->last, round->used);
    for (int64_t b = 0; b < batch && !status; b++) round->used[b] += round->drafted[b];
    round->longest = longest;
    free(uniforms);
    return status;
}
