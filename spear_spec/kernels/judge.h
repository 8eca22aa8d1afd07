/* Rules for chains: what is kept of a draft. */

#ifndef SPEAR_JUDGE_H
#define SPEAR_JUDGE_H

#include "law.h"

enum { REJECTION, BLOCK, COUPLED };

/* The verdict on a chain of each row, by rejection, as a whole, or by drawing every token from p: the mathematics of
   `RejectionVerifier`, `BlockVerifier` and `CoupledVerifier` (decoding/verifiers/).

   tokens [batch, steps]: the drafts, row b has counts[b] of them. q: the laws that they were drawn from, [steps, size]
   of each row, rows q_step apart; NULL: each was chosen without chance. p: the target's laws [steps + 1, size], rows
   p_step apart. uniforms [batch, steps + 1]: what the trials and then the last draw use.
   accepted [batch]: tokens that are kept; last [batch]: the recovered or bonus token; used [batch]: uniforms.
   Returns 0 or NO_MEMORY. */
int spear_judge(int rule, int64_t batch, int64_t steps, int64_t size, const int64_t *tokens, const int64_t *counts,
                const float *q, int64_t q_step, const float *p, int64_t p_step, const double *uniforms,
                int64_t *accepted, int64_t *last, int64_t *used);

#endif
