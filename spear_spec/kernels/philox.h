/* Uniforms by counter. */

#ifndef SPEAR_PHILOX_H
#define SPEAR_PHILOX_H

#include <stdint.h>

/* Philox 4x32 with ten rounds: a bijection of the counter for each key. */
void spear_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4]);

/* out [count]: u(seed, first), u(seed, first + 1), ..., each in [0, 1), a multiple of 2^-53. The key is the seed, the
   counter n / 2 (low word first, behind them 0, 0); an even n takes words 1 and 0 of the block as high and low half, an
   odd n words 3 and 2; of these 64 bits the upper 53 count. */
void spear_uniforms(uint64_t seed, uint64_t first, int64_t count, double *out);

#endif
