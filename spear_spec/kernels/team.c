/* See team.h. Threads are made when they are first needed and stay: one that has nothing to do looks for work for some
   microseconds, for the next product of a step comes soon, and then sleeps. */

#include "team.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#define MOST 64     /* threads in a team */
#define LOOKS 20000 /* before a thread sleeps: some 50 microseconds */

#if defined(__x86_64__) && defined(__GNUC__)
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() ((void)0)
#endif

/* Between two looks; now and then others of the same priority get the processor, whom one may be waiting for. */
static void rest(int64_t looks)
{
    if (looks % 1000 == 999) sched_yield();
    else PAUSE();
}

static struct {
    pthread_mutex_t taken, sleep; /* by the caller whose work is done; of those who sleep */
    pthread_cond_t wake;
    int64_t workers;              /* that have been made */
    pid_t owner;                  /* a fork has none of them */
    spear_part run;
    void *context;
    atomic_int_fast64_t parts, next;    /* how many, and the next one */
    atomic_int_fast64_t active, seats;  /* threads that look at the work; that may still join */
    atomic_int open;                         /* whether there is work */
    atomic_int_fast64_t sleepers;
} team = {.taken = PTHREAD_MUTEX_INITIALIZER, .sleep = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static void work(void)
{
    for (;;) {
        const int64_t part = atomic_fetch_add(&team.next, 1);
        if (part >= atomic_load(&team.parts)) return;
        team.run(team.context, part);
    }
}

/* Whoever counts as active has seen work that is open, and the caller waits for it before it changes anything. */
static void join(void)
{
    atomic_fetch_add(&team.active, 1);
    if (atomic_load(&team.open) && atomic_fetch_sub(&team.seats, 1) > 0) work();
    atomic_fetch_sub(&team.active, 1);
}

static void *live(void *unused)
{
    (void)unused;
    for (;;) {
        int64_t looks = 0;
        while (!atomic_load(&team.open) && looks < LOOKS) rest(looks++);
        if (!atomic_load(&team.open)) {
            pthread_mutex_lock(&team.sleep);
            atomic_fetch_add(&team.sleepers, 1);
            while (!atomic_load(&team.open)) pthread_cond_wait(&team.wake, &team.sleep);
            atomic_fetch_sub(&team.sleepers, 1);
            pthread_mutex_unlock(&team.sleep);
        }
        join();
        for (looks = 0; atomic_load(&team.open) && atomic_load(&team.next) >= atomic_load(&team.parts);) rest(looks++);
    }
    return NULL;
}

/* So many workers, or as many as there can be. */
static void gather(int64_t wanted)
{
    if (team.owner != getpid()) {
        team.owner = getpid();
        team.workers = 0;
        atomic_store(&team.active, 0);
        atomic_store(&team.sleepers, 0);
        pthread_mutex_init(&team.sleep, NULL);
        pthread_cond_init(&team.wake, NULL);
    }
    while (team.workers < wanted && team.workers < MOST) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, live, NULL)) return;
        pthread_detach(thread);
        team.workers++;
    }
}

void spear_together(int64_t threads, int64_t parts, spear_part run, void *context)
{
    if (threads < 2 || parts < 2 || pthread_mutex_trylock(&team.taken)) {
        for (int64_t part = 0; part < parts; part++) run(context, part);
        return;
    }
    gather(threads - 1);
    team.run = run;
    team.context = context;
    atomic_store(&team.parts, parts);
    atomic_store(&team.next, 0);
    atomic_store(&team.seats, threads - 1);
    atomic_store(&team.open, 1);
    if (atomic_load(&team.sleepers)) {
        pthread_mutex_lock(&team.sleep);
        pthread_cond_broadcast(&team.wake);
        pthread_mutex_unlock(&team.sleep);
    }
    work();
    atomic_store(&team.open, 0);
    for (int64_t looks = 0; atomic_load(&team.active);) rest(looks++);
    pthread_mutex_unlock(&team.taken);
}
#else
void spear_together(int64_t threads, int64_t parts, spear_part run, void *context)
{
    (void)threads;
    for (int64_t part = 0; part < parts; part++) run(context, part);
}
#endif
