/* The text's encoder: all its layers, and what every decoder layer looks at. */

#ifndef SPEAR_ENCODER_H
#define SPEAR_ENCODER_H

#include "layer.h"
#include "product.h"

struct encoder_layer {
    struct matrix to_qkv, self_out, up, down;
    const float *self_gain, *forward_gain, *up_bias, *down_bias; /* [dim] x 2, [2 inner], [dim] */
};

struct encoder {
    int64_t dim, heads, dim_head, inner, depth, ids, readers;
    const float *table; /* [ids, dim]: vectors of the text's symbols */
    const struct encoder_layer *layers; /* [depth] */
    const float *gain; /* [dim], of the last norm */
    const struct matrix *to_kv; /* [readers]: keys and then values of a decoder layer, [2 heads dim_head, dim] */
    const float *const *nulls;  /* [readers]: its null key and value, [2, heads, dim_head] */
};

/* On so many threads: ids [batch, count], of which the first counts[b] of a row are text, each sees all of these.

   angles: as in layer.h. hidden [batch, count, dim]: after the last norm, zero behind the text. cross [readers][2]: keys
   and values [batch, heads, 1 + count, dim_head], the null first. Returns 0, NO_MEMORY or NO_TOKEN. */
int spear_encode(int64_t threads, const struct encoder *encoder, int64_t batch, int64_t count, const int64_t *ids,
                 const int64_t *counts, const float *angles, float *hidden, float *const *cross);

#endif
