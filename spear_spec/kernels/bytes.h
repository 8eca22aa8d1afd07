/* Matrix products of 8-bit weights with numbers that are rounded to 8 bits, for drafts. */

#ifndef SPEAR_BYTES_H
#define SPEAR_BYTES_H

#include "tiles.h"

#define TILE_OUT 64 /* outputs of a tile */

/* y = W x; codes [tiles][in / 4][4][16][4], inputs rounded up to TILE_IN: a tile holds TILE_OUT outputs, and of each
   output four inputs in turn: codes from -127 to 127 plus 128 (anything where there is no input or output); scale
   [out]. */
struct bytes {
    const uint8_t *codes;
    const float *scale;
    int64_t in, out;
};

/* Bytes that spear_bytes needs to work in. */
INLINE int64_t spear_bytes_room(int64_t rows, int64_t in) { return rows * (spear_tile_in(in) + 8) + 64; }

/* Rows as whole numbers [rows, wide] (inputs rounded up, what is added is 0): what one of each row's stands for, and their
   sums. */
struct codes {
    int64_t rows, wide;
    int8_t *codes;
    float *step;
    int32_t *total;
};

/* x [rows, in] rounded, in `room`; unit: of each row divided by its length, or by `least` where that is less. */
struct codes spear_codes(const float *x, int64_t rows, int64_t in, int unit, float least, void *room);

/* The product of `spear_bytes` with rows that are rounded already. */
void spear_of_codes(const struct bytes *w, const struct codes *x, const float *add, int64_t add_step, float *y);

/* x [rows, in] -> y [rows, out] = W round(x) + add, where each row is rounded to 127 steps of its largest number on
   either side; add: NULL, or rows that lie add_step apart (0: a bias); may be y. room: see spear_bytes_room.

   Sums are whole numbers: a row's result is the same, bit for bit, on every machine and whatever rows stand beside
   it. */
void spear_bytes(const struct bytes *w, int64_t rows, const float *x, const float *add, int64_t add_step, float *y,
                 void *room);

/* The same of rows divided by their length, or by `least` where that is less. */
void spear_bytes_unit(const struct bytes *w, int64_t rows, const float *x, float least, const float *add, int64_t add_step,
                      float *y, void *room);

#endif
