/* Matrix products with weights of 8, 16 or 32 bits. */

#ifndef SPEAR_PRODUCT_H
#define SPEAR_PRODUCT_H

#include "common.h"

#define STRIP 32 /* outputs that lie beside one another */

enum { FLOATS, HALVES, BYTES }; /* what the weights are: float, IEEE half precision, signed 8 bits */

/* y = W x; weights [strips][in][STRIP]: a strip holds STRIP outputs, those behind `out` are zero. BYTES, -127 to 127, lie
   by fours of inputs, [strips][in / 4][STRIP][4], inputs rounded up to TILE_IN (tiles.h), and have a scale [out] for the
   weights of an output. */
struct matrix {
    const void *weights;
    int64_t in, out, format;
    const float *scale;
};

/* x [rows, in] -> y [rows, out] = W x + add; add: NULL, or rows that lie add_step apart (0: a bias); may be y.

   Each sum runs over the input in order, whatever rows stand beside it: a row's result is the same, bit for bit, alone
   or among others. Where weights are BYTES, x is rounded, row by row, to 16 bits or what the sums leave of them, and
   sums are whole numbers: the same on every machine. */
void spear_product(const struct matrix *w, int64_t rows, const float *x, const float *add, int64_t add_step, float *y);

/* The same on several threads: the same bits. */
void spear_product_by(int64_t threads, const struct matrix *w, int64_t rows, const float *x, const float *add,
                      int64_t add_step, float *y);

#endif
