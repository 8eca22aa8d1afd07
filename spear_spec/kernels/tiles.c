/* See tiles.h. A tile's state is large, so the system gives it only to processes that ask. */

#include "tiles.h"

#if TILES == 1
#include <cpuid.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ASK 0x1023      /* ARCH_REQ_XCOMP_PERM of arch_prctl */
#define TILE_DATA 18    /* of the processor's states */
#define AMX_TILE (1u << 24)
#define AMX_INT8 (1u << 25)

static int ask(void)
{
    const char *wish = getenv("SPEAR_SPEC_TILES");
    unsigned int a = 0, b = 0, c = 0, d = 0;
    if (wish && !strcmp(wish, "0")) return 0;
    if (spear_lanes() != 16 || !__builtin_cpu_supports("avx512bw")) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (AMX_TILE | AMX_INT8)) != (AMX_TILE | AMX_INT8)) return 0;
    return syscall(SYS_arch_prctl, ASK, TILE_DATA) == 0;
}

int spear_tiles(void)
{
    static atomic_int known = -1;
    int have = atomic_load_explicit(&known, memory_order_relaxed);
    if (have < 0) atomic_store_explicit(&known, have = ask(), memory_order_relaxed);
    return have;
}
#else
int spear_tiles(void) { return TILES == 2; }
#endif
