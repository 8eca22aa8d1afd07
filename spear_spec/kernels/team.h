/* Several threads at one piece of work. */

#ifndef SPEAR_TEAM_H
#define SPEAR_TEAM_H

#include "common.h"

typedef void (*spear_part)(void *context, int64_t part);

/* Runs parts 0 to parts - 1 on up to so many threads, the caller's among them; returns when all are done. Whoever is
   free takes the next part, so a thread that the system holds back costs no more than its own part. Alone where there
   is no other thread: at one thread, in a platform without them, or while another caller has the team. */
void spear_together(int64_t threads, int64_t parts, spear_part run, void *context);

#endif
