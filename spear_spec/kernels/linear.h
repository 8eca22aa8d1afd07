/* Matrix products with weights of 8 bits. */

#ifndef SPEAR_LINEAR_H
#define SPEAR_LINEAR_H

#include "common.h"

#define WORDS 16 /* of four codes each, in a panel's row */
#define PANEL 64 /* outputs that a matrix product makes at once */

/* y = W x; codes [panels][in][WORDS][4]: a panel holds PANEL outputs, output 16 q + j in byte q of word j, so that
   shifts take them apart (a conversion of neighbouring bytes is shuffles, three times as long); those behind `out` are
   zero. scale [out]. */
struct linear {
    const int8_t *codes;
    const float *scale;
    int64_t in, out;
};

/* x [rows, in] -> y [rows, out] = W x + add; add: NULL, or rows that lie add_step apart (0: a bias); may be y. */
void spear_multiply(const struct linear *w, int64_t rows, const float *x, const float *add, int64_t add_step, float *y);

#endif
