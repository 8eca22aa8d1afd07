/* Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011); constants as in
   Random123. Integers alone: the same numbers on every machine. */

#include "philox.h"

#define ROUNDS 10

void spear_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4])
{
    uint32_t a = counter[0], b = counter[1], c = counter[2], d = counter[3], k = key[0], l = key[1];
    for (int round = 0; round < ROUNDS; round++, k += 0x9E3779B9u, l += 0xBB67AE85u) {
        const uint64_t left = (uint64_t)0xD2511F53u * a, right = (uint64_t)0xCD9E8D57u * c;
        a = (uint32_t)(right >> 32) ^ b ^ k;
        b = (uint32_t)right;
        c = (uint32_t)(left >> 32) ^ d ^ l;
        d = (uint32_t)left;
    }
    words[0] = a;
    words[1] = b;
    words[2] = c;
    words[3] = d;
}

void spear_uniforms(uint64_t seed, uint64_t first, int64_t count, double *out)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t words[4];
    for (int64_t i = 0; i < count; i++) {
        const uint64_t n = first + (uint64_t)i, block = n >> 1;
        if (i == 0 || n % 2 == 0) { /* an odd one that is not the first has its block already */
            const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), 0, 0};
            spear_philox(counter, key, words);
        }
        const uint32_t *half = words + 2 * (n % 2);
        const uint64_t word = (uint64_t)half[1] << 32 | half[0];
        out[i] = (double)(word >> 11) * 0x1p-53;
    }
}
