/* Matrix products on the tile unit that some servers' processors have (AMX), with weights of at most 16 significant bits
   as two bfloat16 numbers each. */

#ifndef SPEAR_TILES_H
#define SPEAR_TILES_H

#include "common.h"

#define EDGE 16 /* rows and outputs of a tile; a tile reads 2 EDGE inputs */

/* Whether this machine has such a unit and the kernel lets this process use it. */
int spear_tiles(void);

/* Shorts that a product needs as scratch. */
int64_t spear_tiled_scratch(int64_t rows, int64_t in);

/* x [rows, in] -> y [rows, out] = W x + add; add: NULL, or rows that lie add_step apart (0: a bias); may be y.

   weights [out / EDGE][in / (2 EDGE)][2][EDGE][EDGE][2], both rounded up: for outputs and inputs of a tile first the
   weights rounded to bfloat16, then what that left; pairs of inputs, then outputs, then the two of a pair; zero where
   there are none. x is split into three such numbers, which hold it exactly, and all products are summed but those below
   2^-24 of the largest: the error is that of a sum in float32. What is computed for a row is the same, bit for bit,
   whatever rows stand beside it. */
void spear_tiled_product(const uint16_t *weights, int64_t in, int64_t out, int64_t rows, const float *x,
                         const float *add, int64_t add_step, uint16_t *scratch, float *y);

/* The two halves of it: split x once, then outputs EDGE first to EDGE last - 1, on any thread. */
void spear_tiled_split(int64_t in, int64_t rows, const float *x, uint16_t *scratch);
void spear_tiled_panels(int64_t first, int64_t last, const uint16_t *weights, int64_t in, int64_t out, int64_t rows,
                        const float *add, int64_t add_step, const uint16_t *scratch, float *y);

#endif
