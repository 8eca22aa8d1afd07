/* See judge.h. */

#include "judge.h"

/* max(0, scale p - q) summed; to [size]: the terms, or NULL. q NULL: a point mass on `token`. */
EVERY_CPU static float excess(const float *p, const float *q, float scale, int64_t token, int64_t size, float *to)
{
    float sum = 0;
    if (q)
        for (int64_t i = 0; i < size; i++) {
            const float more = scale * p[i] - q[i], kept = more > 0 ? more : 0;
            if (to) to[i] = kept;
            sum += kept;
        }
    else
        for (int64_t i = 0; i < size; i++) {
            const float kept = i == token ? 0 : scale * p[i];
            if (to) to[i] = kept;
            sum += kept;
        }
    return sum;
}

int spear_judge(int rule, int64_t batch, int64_t steps, int64_t size, const int64_t *tokens, const int64_t *counts,
                const float *q, int64_t q_step, const float *p, int64_t p_step, const double *uniforms,
                int64_t *accepted, int64_t *last, int64_t *used)
{
    double *table = malloc((size_t)(size + steps + 1) * sizeof *table + (size_t)size * sizeof(float));
    if (!table) return NO_MEMORY;
    double *joint = table + size; /* r_0 .. r_count */
    float *rest = (float *)(joint + steps + 1);
    for (int64_t b = 0; b < batch; b++, tokens += steps, p += p_step, uniforms += steps + 1) {
        const int64_t count = counts[b];
        int64_t kept = 0, trials = 0;
        double scale = 1;
        joint[0] = 1;
        if (rule == COUPLED) {
            int64_t token;
            for (;; kept++) {
                token = spear_draw(p + kept * size, size, uniforms[kept], table);
                if (kept == count || token != tokens[kept]) break;
            }
            last[b] = token;
            accepted[b] = kept;
            used[b] = kept + 1;
            continue; /* q is not looked at */
        }
        if (rule == BLOCK) {
            for (int64_t i = 0; i < count; i++) {
                const double above = p[i * size + tokens[i]], below = q ? q[i * size + tokens[i]] : 1;
                const double ratio = below > 0 ? above / below : above > 0; /* no chance: cannot have been drawn */
                joint[i + 1] = joint[i] * ratio < 1 ? joint[i] * ratio : 1;
            }
            for (kept = count; kept; kept--) { /* trials are independent, so the largest success is found from the end */
                const double r = joint[kept];
                double success = r;
                if (kept < count) {
                    const float *law = p + kept * size;
                    const double more = q ? excess(law, q + kept * size, (float)r, 0, size, NULL)
                                          : r * (law[tokens[kept]] < 1 ? 1 - (double)law[tokens[kept]] : 0);
                    success = more + (1 - r) > 0 ? more / (more + (1 - r)) : 1;
                }
                if (uniforms[trials++] < success) break;
            }
            scale = joint[kept];
        } else {
            for (; kept < count; kept++) {
                const float above = p[kept * size + tokens[kept]], below = q ? q[kept * size + tokens[kept]] : 1;
                const float ratio = above / below; /* NaN where both are 0: never below it */
                if (!(uniforms[trials++] < (double)ratio)) break;
            }
        }
        const float *law = p + kept * size;
        if (kept < count) {
            const float *drawn = q ? q + kept * size : NULL;
            /* all zero only where rounding rejected a token of p = q: then p itself */
            if (excess(law, drawn, (float)scale, tokens[kept], size, rest) > 0) law = rest;
        }
        last[b] = spear_draw(law, size, uniforms[trials], table);
        accepted[b] = kept;
        used[b] = trials + 1;
        if (q) q += q_step;
    }
    free(table);
    return 0;
}
