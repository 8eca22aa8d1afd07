/* A whole round of decoding: what a drafter that is fed says of the settled tokens, a chain, its score, and the verdict. */

#ifndef SPEAR_ROUND_H
#define SPEAR_ROUND_H

#include "draft.h"
#include "judge.h"
#include "step.h"

/* One round of a batch. Of the plain loop (steps 0) only what does not belong to drafts is looked at.

   how, how_step: as of spear_laws; rule: as of spear_judge. threads: of the target's step.
   newest [batch]: each row's last token.

   Drafts: of at most `steps` tokens, limits [batch] of each row. draft, fuse, head: the draft decoder, what fuses the
   target's features, and the head. fresh [batch, count]: tokens that were settled since the draft read last, counts
   [batch] of each row, at least 1. features: NULL where nothing was said of them, or the target's of the last round,
   parts of [batch, length, dim], of the positions that predicted them. read: what lies before them in the draft's cache;
   lengths [batch] of read are moved behind the fresh tokens.

   Target: past; its features after each layer go to kept [depth], NULL where they are not wanted.

   uniforms [batch, 2 steps + 1]: a row's next ones: first those of its draft, then those of the rule. tokens [batch,
   steps] and drafted [batch]: the drafts. longest: of these; hidden, logits and kept have longest + 1 positions a row.
   accepted, last, used [batch]: as of spear_judge; used counts those of the draft too. */
struct round {
    int64_t batch, steps, threads, rule, how_step, eos;
    const struct sampling *how;
    const int64_t *newest;
    const double *uniforms;

    const struct draft *draft;
    const struct matrix *fuse, *head;
    const int64_t *limits, *fresh, *counts;
    int64_t count, parts, length;
    const float *const *features;
    const struct past *read;
    int64_t *reached; /* read->lengths */

    const struct target *target;
    const struct past *past;
    float *const *kept;
    float *hidden, *logits;

    int64_t *tokens, *drafted, *accepted, *last, *used, longest;
};

/* Returns 0, NO_MEMORY, NO_TOKEN, or NO_NUMBER if a logit is NaN or infinite. */
int spear_round(struct round *round);

#endif
