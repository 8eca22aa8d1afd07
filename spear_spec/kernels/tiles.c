/* Matrix products on the tile unit (AMX): see tiles.h. Elsewhere spear_tiles says no. */

#include "tiles.h"

#ifndef WIDER /* as in wider.h: -DWIDER=0 leaves out what not every machine has */
#define WIDER 1
#endif

#if WIDER && defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__)

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PERMIT 0x1023 /* ARCH_REQ_XCOMP_PERM of arch_prctl */
#define TILE_DATA 18
#define TARGET __attribute__((target("amx-tile,amx-bf16,avx512f,avx512vl,avx512bw,avx512dq")))
#define DEEP (2 * EDGE) /* inputs of a tile */

typedef float lanes __attribute__((vector_size(64)));
typedef uint32_t words __attribute__((vector_size(64)));
typedef uint16_t shorts __attribute__((vector_size(32)));

int spear_tiles(void)
{
    static int known; /* 1: no, 2: yes; threads that ask at once find the same */
    int found = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (!found) {
        unsigned a = 0, b = 0, c = 0, d = 0;
        __builtin_cpu_init();
        const int unit = __get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 22 & 1 && d >> 24 & 1;
        found = 1 + (unit && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                     __builtin_cpu_supports("avx512bw") && !syscall(SYS_arch_prctl, PERMIT, TILE_DATA));
        __atomic_store_n(&known, found, __ATOMIC_RELAXED);
    }
    return found == 2;
}

INLINE int64_t deep(int64_t in) { return (in + DEEP - 1) / DEEP; }

int64_t spear_tiled_scratch(int64_t rows, int64_t in) { return (rows + EDGE - 1) / EDGE * EDGE * 3 * deep(in) * DEEP; }

/* The number as bfloat16, in the upper half of a float; ties to even. A NaN stays one. */
INLINE TARGET words rounded(lanes x)
{
    const words bits = (words)x, none = (words)(x != x);
    return ((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000 & ~none) | (none & 0x7fc00000);
}

INLINE TARGET void store_upper(uint16_t *at, words x)
{
    const shorts upper = __builtin_convertvector(x >> 16, shorts);
    memcpy(at, &upper, sizeof upper);
}

/* Rows of x as [row blocks][in / DEEP][3][EDGE][DEEP]; rows and inputs behind the last are zero. */
TARGET void spear_tiled_split(int64_t in, int64_t rows, const float *x, uint16_t *to)
{
    const int64_t blocks = (rows + EDGE - 1) / EDGE, depth = deep(in);
    for (int64_t r = 0; r < blocks * EDGE; r++)
        for (int64_t i = 0; i < depth * DEEP; i += EDGE) {
            uint16_t *at = to + ((r / EDGE * depth + i / DEEP) * 3 * EDGE + r % EDGE) * DEEP + i % DEEP;
            lanes left = {0};
            if (r < rows && i + EDGE <= in) memcpy(&left, x + r * in + i, sizeof left);
            else if (r < rows && i < in) memcpy(&left, x + r * in + i, (size_t)(in - i) * sizeof *x);
            for (int part = 0; part < 3; part++) {
                const words most = rounded(left);
                store_upper(at + part * EDGE * DEEP, most);
                left -= (lanes)most;
            }
        }
}

struct __attribute__((packed)) config {
    uint8_t palette, start, unused[14];
    uint16_t columns[16];
    uint8_t rows[16];
};

/* Two blocks of rows (one: `pair` is 0) for two blocks of outputs: one, two and left, right. */
INLINE TARGET void multiply(int pair, int64_t depth, const uint16_t *one, const uint16_t *two, const uint16_t *left,
                            const uint16_t *right, float sums[4][EDGE * EDGE])
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t d = 0; d < depth; d++, one += 3 * EDGE * DEEP, two += 3 * EDGE * DEEP) {
        for (int64_t w = 0; w < 2; w++, left += EDGE * DEEP, right += EDGE * DEEP) {
            _tile_loadd(6, left, 64);
            _tile_loadd(7, right, 64);
            for (int64_t p = 0; p < 3 - w; p++) {
                _tile_loadd(4, one + p * EDGE * DEEP, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                if (!pair) continue;
                _tile_loadd(5, two + p * EDGE * DEEP, 64);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
    }
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    _tile_stored(2, sums[2], 64);
    _tile_stored(3, sums[3], 64);
}

TARGET void spear_tiled_panels(int64_t first, int64_t last, const uint16_t *weights, int64_t in, int64_t out,
                               int64_t rows, const float *add, int64_t add_step, const uint16_t *scratch, float *y)
{
    const int64_t depth = deep(in), blocks = (rows + EDGE - 1) / EDGE, step = depth * 3 * EDGE * DEEP;
    const int64_t panel = depth * 2 * EDGE * DEEP;
    struct config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.columns[i] = 64;
        config.rows[i] = EDGE;
    }
    if (!rows) return;
    _tile_loadconfig(&config);
    for (int64_t n = first; n < last; n += 2) {
        const int64_t sides = n + 1 < last ? 2 : 1;
        const uint16_t *left = weights + n * panel, *right = left + (sides - 1) * panel;
        for (int64_t b = 0; b < blocks; b += 2) {
            const uint16_t *one = scratch + b * step;
            float sums[4][EDGE * EDGE] __attribute__((aligned(64)));
            if (b + 1 < blocks) multiply(1, depth, one, one + step, left, right, sums);
            else multiply(0, depth, one, one, left, right, sums);
            for (int64_t r = b * EDGE; r < rows && r < (b + 2) * EDGE; r++)
                for (int64_t side = 0; side < sides; side++) {
                    const int64_t from = (n + side) * EDGE, width = out - from < EDGE ? out - from : EDGE;
                    const float *sum = sums[(r / EDGE - b) * 2 + side] + r % EDGE * EDGE;
                    const float *more = add ? add + r * add_step + from : NULL;
                    float *to = y + r * out + from;
                    if (more && width == EDGE)
                        for (int64_t j = 0; j < EDGE; j++) to[j] = sum[j] + more[j];
                    else
                        for (int64_t j = 0; j < width; j++) to[j] = sum[j] + (more ? more[j] : 0);
                }
        }
    }
    _tile_release();
}

#else

int spear_tiles(void) { return 0; }

int64_t spear_tiled_scratch(int64_t rows, int64_t in)
{
    (void)rows, (void)in;
    return 0;
}

void spear_tiled_split(int64_t in, int64_t rows, const float *x, uint16_t *scratch)
{
    (void)in, (void)rows, (void)x, (void)scratch;
}

void spear_tiled_panels(int64_t first, int64_t last, const uint16_t *weights, int64_t in, int64_t out, int64_t rows,
                        const float *add, int64_t add_step, const uint16_t *scratch, float *y)
{
    (void)first, (void)last, (void)weights, (void)in, (void)out, (void)rows, (void)add, (void)add_step, (void)scratch;
    (void)y;
}

#endif

void spear_tiled_product(const uint16_t *weights, int64_t in, int64_t out, int64_t rows, const float *x,
                         const float *add, int64_t add_step, uint16_t *scratch, float *y)
{
    spear_tiled_split(in, rows, x, scratch);
    spear_tiled_panels(0, (out + EDGE - 1) / EDGE, weights, in, out, rows, add, add_step, scratch, y);
}
