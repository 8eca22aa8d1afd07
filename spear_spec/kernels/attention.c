/* Attention for the widest vectors that the machine has. */

#include "attention.h"
#include "wider.h"

#define TILE 64 /* keys that stay near while one row after the other looks at them */

/* Ask for so many lines. */
INLINE void bring(struct ahead *ahead, int lines)
{
    if (!ahead) return;
    if (ahead->at >= ahead->end) {
        if (ahead->then >= ahead->last) return;
        ahead->at = ahead->then;
        ahead->end = ahead->then = ahead->last;
    }
    UNROLL_ALL
    for (int i = 0; i < lines; i++) PREFETCH_L2(ahead->at + 64 * i);
    ahead->at += 64 * lines;
}

#define LANES 4
#define NAMED(name) name##_4
#define TARGET
#define INDEX {0, 1, 2, 3}
#include "attention_lanes.h"

#if WIDER
#define LANES 8
#define NAMED(name) name##_8
#define TARGET __attribute__((target("avx2,fma")))
#define INDEX {0, 1, 2, 3, 4, 5, 6, 7}
#include "attention_lanes.h"

#define LANES 16
#define NAMED(name) name##_16
#define TARGET __attribute__((target("avx512f,avx512vl,avx512dq,avx2,fma")))
#define INDEX {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
#include "attention_lanes.h"
#endif

void spear_attend(int64_t rows, const float *q, int64_t q_step, const float *k, const float *v, int64_t dim,
                  const struct seen *seen, float *weight, int64_t most, float *out, int64_t out_step,
                  struct ahead *ahead)
{
#if WIDER
    if (spear_lanes() == 16) {
        attend_16(rows, q, q_step, k, v, dim, seen, weight, most, out, out_step, ahead);
        return;
    }
    if (spear_lanes() == 8) {
        attend_8(rows, q, q_step, k, v, dim, seen, weight, most, out, out_step, ahead);
        return;
    }
#endif
    attend_4(rows, q, q_step, k, v, dim, seen, weight, most, out, out_step, ahead);
}
