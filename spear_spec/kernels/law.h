/* Laws of tokens and draws from them. */

#ifndef SPEAR_LAW_H
#define SPEAR_LAW_H

#include "common.h"

/* temperature 0 is greedy; top_k 0 and top_p 1 are off. */
struct sampling {
    float temperature;
    double top_p;
    int64_t top_k;
};

/* logits [batch, rows, size] -> laws [batch, rows, size]; how: one for all (step 0), or one for each of the batch
   (step 1). Returns 0, NO_MEMORY, or NO_NUMBER if a logit is NaN or infinite. */
int spear_laws(const struct sampling *how, int64_t step, int64_t batch, int64_t rows, int64_t size, const float *logits,
               float *laws);

/* The token at which the running sum of the law first exceeds u times all of it, 0 <= u < 1; one of weight 0 is never
   drawn. table [size]: scratch. */
int64_t spear_draw(const float *law, int64_t size, double u, double *table);

/* In nats. */
double spear_entropy(const float *law, int64_t size);

#endif
