/* Two callers, a fork, work of many sizes: for a build with ThreadSanitizer (test_team.py). */

#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "team.h"

struct sums {
    int64_t parts[64];
};

static void add(void *context, int64_t part)
{
    struct sums *sums = context;
    if (part % 16 == 1) usleep(30); /* so that the others come to the end while this one is on its way */
    for (int64_t i = 0; i < 50; i++) sums->parts[part] += i * part; /* not atomic: a part is nobody else's */
}

static void *call(void *rounds)
{
    for (int64_t round = 0; round < *(int64_t *)rounds; round++) {
        struct sums sums = {{0}};
        const int64_t parts = round % 64;
        spear_together(1 + round % 4, parts, add, &sums);
        for (int64_t part = 0; part < 64; part++)
            if (sums.parts[part] != (part < parts ? 1225 * part : 0)) {
                printf("part %d of %d: %d\n", (int)part, (int)parts, (int)sums.parts[part]);
                _exit(3);
            }
        if (round % 500 == 499) usleep(2000); /* they go to sleep */
    }
    return NULL;
}

int main(int count, char **arguments)
{
    int64_t rounds = 3000;
    pthread_t other;
    pthread_create(&other, NULL, call, &rounds);
    call(&rounds);
    pthread_join(other, NULL);
    if (count > 1) { /* a sanitizer does not follow a fork of several threads */
        (void)arguments;
        const pid_t child = fork();
        if (!child) {
            call(&rounds);
            _exit(0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        if (status) return 4;
        call(&rounds);
    }
    puts("done");
    return 0;
}
