/* Large pages for weights: a step reads some thousand small ones, more than the processor remembers the places of. */

#include "common.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

/* Ask for large pages in `bytes` from `at` on, which nobody has written to yet. Advice: nothing is told of its fate. */
void spear_large_pages(void *at, int64_t bytes)
{
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (bytes > 0) (void)madvise(at, (size_t)bytes, MADV_HUGEPAGE);
#else
    (void)at;
    (void)bytes;
#endif
}
