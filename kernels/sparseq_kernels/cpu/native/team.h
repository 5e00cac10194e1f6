/* The threads that share work. */
#ifndef SPARSEQ_TEAM_H
#define SPARSEQ_TEAM_H

#include <stdint.h>

/* Of OpenMP; its header is not everywhere where its library is. */
int omp_get_thread_num(void);
int omp_get_num_threads(void);

/* The threads that share a step: this one's number and how many they are. */
struct team {
    int number, size;
};

static void wait_for_all(const struct team *team)
{
    if (team->size > 1) {
#pragma omp barrier
    }
}

/* This thread's part of `count`: from *first to before *end. */
static void share(const struct team *team, int64_t count, int64_t *first, int64_t *end)
{
    *first = count * team->number / team->size;
    *end = count * (team->number + 1) / team->size;
}

#endif
