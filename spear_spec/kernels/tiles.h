/* Matrix tiles of the processor (AMX): up to 16 rows by 16 outputs by 64 inputs of 8 bits in one instruction. */

#ifndef SPEAR_TILES_H
#define SPEAR_TILES_H

#include "common.h"
#include "wider.h"

#ifndef TILES /* 0: none; 1: the processor's; 2: the same written out in C, for tests and sanitizers on any machine */
#if WIDER && defined(__linux__) && !defined(__clang__) && __GNUC__ >= 12
#define TILES 1
#else
#define TILES 0
#endif
#endif

#define TILE_ROWS 16 /* at most */
#define TILE_WORTH 3 /* rows from which on tiles are quicker: below, reading the weights is all that counts */
#define TILE_IN 64   /* inputs of a tile: rows of codes are padded with 0 up to a multiple of these */

INLINE int64_t spear_tile_in(int64_t in) { return (in + TILE_IN - 1) / TILE_IN * TILE_IN; }

/* A tile of weights that comes some tiles later, asked for while others are multiplied: left to itself the processor brings
   half as much in the same time, since the lines of a tile do not follow each other. */
INLINE void spear_tile_ahead(const void *weights)
{
    UNROLL_ALL
    for (int i = 0; i < 16; i++) PREFETCH((const char *)weights + 64 * i);
}

/* Whether there are tiles and the system lets this process use them; it is asked once. The environment's
   SPEAR_SPEC_TILES=0 keeps them out. */
int spear_tiles(void);

/* Whether so many rows go through tiles. */
INLINE int spear_tiled(int64_t rows) { return rows >= TILE_WORTH && spear_tiles(); }

/* Rows in blocks of at most TILE_ROWS, all of one height, for which tiles are shaped once: the last block begins earlier
   where rows are left over, and computes some of them again. */
struct tiled_rows {
    int64_t blocks, height;
};

INLINE struct tiled_rows spear_tiled_rows(int64_t rows)
{
    const int64_t blocks = (rows + TILE_ROWS - 1) / TILE_ROWS;
    return (struct tiled_rows){blocks, blocks ? (rows + blocks - 1) / blocks : 0};
}

/* Tiles 0 to 3: sums of `height` rows by 16 outputs, 32 bits; 4 and 5: codes of as many rows by TILE_IN inputs; 6 and 7:
   weights of TILE_IN inputs, four side by side, by 16 outputs. Whoever has shaped them calls TILES_DONE. A step goes
   from one row of a tile to the next, in bytes. Sums are whole numbers, so no order of them matters. */
#if TILES == 1
#define TILED __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,amx-tile,amx-int8")))
#define TILES_SHAPED(height) spear_shape_tiles(height)
#define TILES_DONE() __asm__ volatile("tilerelease" ::: "memory")
#define TILE_ZERO(to) __asm__ volatile("tilezero\t%%tmm" #to ::: "memory")
#define TILE_LOAD(to, at, step)                                                                                        \
    __asm__ volatile("tileloadd\t(%0,%1,1), %%tmm" #to ::"r"((const void *)(at)), "r"((int64_t)(step)) : "memory")
#define TILE_STORE(from, at, step)                                                                                     \
    __asm__ volatile("tilestored\t%%tmm" #from ", (%0,%1,1)" ::"r"((void *)(at)), "r"((int64_t)(step)) : "memory")
#define TILE_ADD_SS(sum, rows, weights)                                                                                \
    __asm__ volatile("tdpbssd\t%%tmm" #weights ", %%tmm" #rows ", %%tmm" #sum ::: "memory")
#define TILE_ADD_US(sum, rows, weights)                                                                                \
    __asm__ volatile("tdpbusd\t%%tmm" #weights ", %%tmm" #rows ", %%tmm" #sum ::: "memory")
#define TILE_ADD_SU(sum, rows, weights)                                                                                \
    __asm__ volatile("tdpbsud\t%%tmm" #weights ", %%tmm" #rows ", %%tmm" #sum ::: "memory")

INLINE TILED void spear_shape_tiles(int64_t height)
{
    struct {
        uint8_t palette, start, none[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) {
        shape.bytes[tile] = 64;
        shape.rows[tile] = tile < 6 ? (uint8_t)height : 16;
    }
    __asm__ volatile("ldtilecfg\t%0" ::"m"(shape) : "memory");
}
#elif TILES == 2
#define TILED
/* A row of a tile, as it lies in memory. */
struct written_tiles {
    uint8_t tile[8][16][64];
    int64_t height;
};
INLINE void spear_add_tile(struct written_tiles *all, int sum, int rows, int weights, int row_sign, int weight_sign)
{
    for (int64_t r = 0; r < all->height; r++)
        for (int out = 0; out < 16; out++) {
            int32_t to;
            memcpy(&to, all->tile[sum][r] + 4 * out, sizeof to);
            for (int in = 0; in < 64; in++) {
                const uint8_t x = all->tile[rows][r][in], w = all->tile[weights][in / 4][4 * out + in % 4];
                to += (row_sign ? (int8_t)x : x) * (weight_sign ? (int8_t)w : w);
            }
            memcpy(all->tile[sum][r] + 4 * out, &to, sizeof to);
        }
}
#define TILES_SHAPED(rows_) struct written_tiles tiles_ = {.height = (rows_)}
#define TILES_DONE() ((void)0)
#define TILE_ZERO(to) memset(tiles_.tile[to], 0, sizeof tiles_.tile[to])
#define TILE_LOAD(to, at, step)                                                                                        \
    for (int64_t r_ = 0; r_ < ((to) < 6 ? tiles_.height : 16); r_++)                                                   \
    memcpy(tiles_.tile[to][r_], (const char *)(at) + r_ * (int64_t)(step), 64)
#define TILE_STORE(from, at, step)                                                                                     \
    for (int64_t r_ = 0; r_ < tiles_.height; r_++)                                                                     \
    memcpy((char *)(at) + r_ * (int64_t)(step), tiles_.tile[from][r_], 64)
#define TILE_ADD_SS(sum, rows, weights) spear_add_tile(&tiles_, sum, rows, weights, 1, 1)
#define TILE_ADD_US(sum, rows, weights) spear_add_tile(&tiles_, sum, rows, weights, 0, 1)
#define TILE_ADD_SU(sum, rows, weights) spear_add_tile(&tiles_, sum, rows, weights, 1, 0)
#endif

#endif
