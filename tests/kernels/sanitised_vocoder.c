/* The vocoder's kernel at odd sizes, each array on the heap at exactly the size that the headers name, for a build with
   sanitizers (test_asan_vocoder.py). An argument makes one array too short: that must be caught. */

#include <stdio.h>

#include "vocoder.h"

#define REQUIRE(truth)                                     \
    if (!(truth)) {                                        \
        fprintf(stderr, "line %d: %s\n", __LINE__, #truth); \
        exit(3);                                           \
    }

static const char *shorter = ""; /* which array has an element less */
static void *kept[4096];
static int64_t number;

static void *array(const char *name, int64_t count, size_t size)
{
    kept[number] = calloc(1, (size_t)(count - !strcmp(name, shorter)) * size + 1); /* a byte: never of no size */
    if (strcmp(name, shorter)) kept[number] = realloc(kept[number], (size_t)count * size);
    else kept[number] = realloc(kept[number], (size_t)(count - 1) * size);
    return kept[number++];
}

static uint32_t state = 1;
static float *floats(const char *name, int64_t count)
{
    float *x = array(name, count, sizeof *x);
    for (int64_t i = 0; i < count - !strcmp(name, shorter); i++)
        x[i] = (float)((state = state * 1664525u + 1013904223u) / 65536u % 2001) / 1000 - 1;
    return x;
}

static struct map map(const char *name, const char *bias, int64_t in, int64_t out)
{
    const int64_t weights = (out + STRIP - 1) / STRIP * in * STRIP;
    float *x = floats(name, weights);
    for (int64_t i = 0; i < weights - !strcmp(name, shorter); i++) x[i] *= .1f;
    return (struct map){{x, in, out, FLOATS, NULL}, floats(bias, out)};
}

static struct norm norm(int64_t dim) { return (struct norm){floats("gain", dim), floats("shift", dim)}; }

static struct context_block *blocks(int64_t count, const int64_t *right, int64_t kernel, int64_t dim, int64_t inner)
{
    struct context_block *made = array("blocks", count, sizeof *made);
    for (int64_t l = 0; l < count; l++)
        made[l] = (struct context_block){floats("taps", kernel * dim), norm(dim), map("up", "up bias", dim, inner),
                                         map("down", "down bias", inner, dim), floats("scale", dim), right[l]};
    return made;
}

static void speak(int64_t dim, int64_t wide, int64_t kernel, int64_t hop, int64_t phases, int64_t parts,
                  const int64_t *counts, const int64_t *right, double rate)
{
    const int64_t size = parts * hop, ids = 9, bins = size / 2 + 1;
    struct vocoder *v = array("vocoder", 1, sizeof *v);
    *v = (struct vocoder){
        ids, dim, wide, kernel, hop, phases, size, 24000, 50, 550, floats("embedding", ids * dim),
        norm(dim), counts[0], counts[1], counts[2],
        blocks(counts[0], right, kernel, dim, 2 * dim), blocks(counts[1], right + 1, kernel, wide, 3 * wide),
        blocks(counts[2], right + 2, kernel, dim, dim), map("prosody in", "prosody in bias", dim, wide), norm(wide),
        map("prosody out", "prosody out bias", wide, 3 * phases), map("upsample", "upsample bias", dim, phases * dim),
        floats("prosody", 4 * dim), norm(dim), norm(dim),
        map("head", "head bias", dim, 5 * bins), floats("window", size), floats("roots", 2 * size)};
    const int64_t bytes = spear_vocoder_size(v, rate), pushes[] = {1, 0, 3, 70, 2};
    char *room = array("room", bytes + 64, 1), *stream = room + 64 - (uintptr_t)room % 64;
    int64_t taken = 0, out = 0, made = 0, due = 0;
    spear_vocoder_open(v, floats("who", 2 * dim), 1.5, rate, stream);
    for (int p = 0; p < 6; p++) {
        const int64_t count = p < 5 ? pushes[p] : 0;
        int64_t *tokens = array("tokens", count + 1, sizeof *tokens);
        for (int64_t i = 0; i < count; i++) tokens[i] = (i * 7 + p) % ids;
        taken += count;
        const int64_t all = hop * (int64_t)((double)(taken * phases) / rate + 0.5);
        float *noise = floats("noise", all - due + 1) + 1;
        float *samples = array("samples", all - out, sizeof *samples);
        due = all;
        REQUIRE(spear_vocoder_push(v, stream, count, tokens, noise, p == 5, samples, &made) == 0);
        out += made;
    }
    REQUIRE(out == due);
    int64_t wrong = ids;
    spear_vocoder_open(v, floats("who", 2 * dim), 0, rate, stream);
    REQUIRE(spear_vocoder_push(v, stream, 1, &wrong, NULL, 0, NULL, &made) == NO_TOKEN);
    REQUIRE(spear_vocoder_push(v, stream, 0, NULL, NULL, 1, NULL, &made) == 0 && made == 0);
    while (number) free(kept[--number]);
}

int main(int count, char **arguments)
{
    if (count > 1) shorter = arguments[1];
    speak(16, 32, 7, 6, 4, 4, (const int64_t[]){2, 1, 3}, (const int64_t[]){2, 1, 0, 2, 1}, 1);
    speak(32, 16, 5, 10, 1, 6, (const int64_t[]){1, 2, 1}, (const int64_t[]){4, 0, 2, 1}, .5);
    speak(16, 16, 1, 2, 3, 4, (const int64_t[]){1, 0, 0}, (const int64_t[]){0, 0, 0}, 1);
    speak(16, 16, 3, 6, 4, 4, (const int64_t[]){1, 0, 1}, (const int64_t[]){2, 0, 1}, .83);
    speak(16, 16, 3, 4, 1, 6, (const int64_t[]){1, 1, 1}, (const int64_t[]){1, 2, 1}, 2);
    puts("walked");
    return 0;
}
