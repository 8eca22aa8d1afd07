/* Every function of the kernels at odd sizes, each array on the heap at exactly the size that the headers name, for a build
   with sanitizers (test_asan.py). An argument makes one array too short: that must be caught. */

#include <stdio.h>

#include "draft.h"
#include "philox.h"

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
    kept[number] = calloc(1, (size_t)(count - !strcmp(name, shorter)) * size);
    return kept[number++];
}

static void release(void)
{
    while (number) free(kept[--number]);
}

static uint32_t state = 1;
static uint32_t random_below(uint32_t end) { return (state = state * 1664525u + 1013904223u) / 65536u % end; }

static float *floats(const char *name, int64_t count)
{
    float *x = array(name, count, sizeof *x);
    for (int64_t i = 0; i < count - !strcmp(name, shorter); i++) x[i] = (float)random_below(2001) / 1000 - 1;
    return x;
}

static struct linear map(const char *name, int64_t in, int64_t out)
{
    const int64_t codes = (out + PANEL - 1) / PANEL * in * PANEL;
    int8_t *code = array(name, codes, 1);
    for (int64_t i = 0; i < codes - !strcmp(name, shorter); i++) code[i] = (int8_t)((int)random_below(255) - 127);
    float *scale = floats("scale", out);
    return (struct linear){code, scale, in, out};
}

static void uniforms(void)
{
    for (uint64_t first = 0; first < 2; first++)
        for (int64_t count = 0; count < 8; count++) {
            double *out = array("uniforms", count + 1, sizeof *out);
            spear_uniforms(UINT64_MAX, UINT64_MAX - first, count + 1, out); /* the counter wraps around */
            for (int64_t i = 0; i <= count; i++) REQUIRE(out[i] >= 0 && out[i] < 1);
            release();
        }
}

static void laws(void)
{
    static const int64_t sizes[] = {1, 2, 3, 64, 1025};
    static const float temperatures[] = {0, 1e-6f, 1, 10}, scales[] = {0, 1, 300};
    static const double top_p[] = {1e-9, .5, 1};
    for (int s = 0; s < 5; s++)
        for (int t = 0; t < 12; t++) {
            const int64_t size = sizes[s], top_k[] = {0, 1, 2, size - 1, size, size + 1};
            struct sampling *how = array("how", 18, sizeof *how);
            for (int i = 0; i < 18; i++) how[i] = (struct sampling){temperatures[t % 4], top_p[i % 3], top_k[i / 3]};
            float *logits = floats("logits", 36 * size), *law = floats("laws", 36 * size);
            double *table = array("table", size, sizeof *table);
            for (int64_t i = 0; i < 36 * size; i++) logits[i] *= scales[t / 4];
            REQUIRE(spear_laws(how, 1, 18, 2, size, logits, law) == 0);
            for (int64_t r = 0; r < 36; r++) {
                REQUIRE(law[r * size + spear_draw(law + r * size, size, .999999, table)] > 0);
                REQUIRE(spear_entropy(law + r * size, size) >= -1e-3);
            }
            logits[36 * size - 1] = NAN;
            REQUIRE(spear_laws(how, 0, 1, 36, size, logits, law) == NO_NUMBER);
            release();
        }
}

/* Rows of ragged lengths at the end of their room: a step with padding, a tree, a chain. */
static void draft(int64_t dim, int64_t heads, int64_t dim_head, int64_t inner, int64_t depth, int64_t batch, int masked)
{
    const int64_t width = heads * dim_head, ids = 40, memory = 1 + batch, nodes = 5, count = 1 + batch % 4, most = 7;
    const int64_t steps = 3, capacity = most + nodes, size = ids - 1, gap = 2;
    struct linear enter = map("enter", dim, dim), head = map("head", dim, size);
    struct layer *layers = array("layers", depth, sizeof *layers);
    const float **cross = array("cross", 2 * depth, sizeof *cross);
    for (int64_t l = 0; l < depth; l++) {
        layers[l] = (struct layer){map("to_qkv", dim, 3 * width), map("self_out", width, dim), map("to_q", dim, width),
                                   map("cross_out", width, dim), map("up", dim, 2 * inner), map("down", inner, dim),
                                   floats("up_bias", 2 * inner), floats("down_bias", dim)};
        cross[2 * l] = floats("text keys", batch * width * memory);
        cross[2 * l + 1] = floats("text values", batch * width * memory);
    }
    const struct draft draft = {dim, heads, dim_head, inner, depth, ids, floats("table", ids * dim), &enter, layers};
    const int64_t layer = (batch + gap) * width * capacity, store = (depth - 1) * layer + batch * width * capacity;
    int64_t *lengths = array("lengths", batch, sizeof *lengths), *counts = array("counts", batch, sizeof *counts);
    uint8_t *mask = array("mask", batch * memory, 1);
    for (int64_t b = 0; b < batch; b++) {
        lengths[b] = most - b % 3;
        counts[b] = (b + 1) % (count + 1);
        for (int64_t j = 0; j < memory; j++) mask[b * memory + j] = j <= b;
    }
    struct past past = {lengths, floats("angles", (most + nodes) * dim_head), floats("keys", store),
                        floats("values", store), capacity, layer, cross, memory, masked ? mask : NULL};
    int64_t *tokens = array("tokens", batch * count, sizeof *tokens);
    for (int64_t i = 0; i < batch * count; i++) tokens[i] = random_below((uint32_t)ids);
    float *features = floats("features", batch * count * dim), *hidden = floats("hidden", batch * count * dim);
    REQUIRE(spear_draft_step(&draft, batch, count, tokens, features, &past, 0, NULL, NULL, counts, hidden) == 0);

    uint8_t *sees = array("node_mask", batch * count * nodes, 1);
    int64_t *deep = array("node_depth", batch * count, sizeof *deep);
    for (int64_t i = 0; i < batch * count; i++) {
        for (int64_t j = 0; j < nodes; j++) sees[i * nodes + j] = j == nodes - count + i % count || random_below(2);
        deep[i] = nodes - 1 - random_below((uint32_t)nodes);
    }
    for (int64_t b = 0; b < batch; b++) lengths[b] += nodes - count; /* the tree's first nodes lie there */
    REQUIRE(spear_draft_step(&draft, batch, count, tokens, features, &past, nodes, sees, deep, NULL, hidden) == 0);
    deep[0] = nodes;
    REQUIRE(spear_draft_step(&draft, batch, count, tokens, features, &past, nodes, sees, deep, NULL, hidden) == NO_TREE);
    tokens[batch * count - 1] = ids;
    REQUIRE(spear_draft_step(&draft, batch, count, tokens, features, &past, 0, NULL, NULL, NULL, hidden) == NO_TOKEN);

    for (int64_t b = 0; b < batch; b++) lengths[b] = most + nodes - steps + 1; /* a draft's last token is not read */
    float *logits = floats("logits", batch * size), *newest = floats("newest", batch * dim);
    REQUIRE(spear_draft_logits(&head, batch, newest, logits) == 0);
    int64_t *limits = array("limits", batch, sizeof *limits), *drawn = array("drawn", batch * steps, sizeof *drawn);
    int64_t *made = array("made", batch, sizeof *made);
    double *u = array("u", batch * steps, sizeof *u), *entropy = array("entropy", batch, sizeof *entropy);
    double *least = array("least", batch, sizeof *least);
    struct sampling *how = array("samplings", batch, sizeof *how);
    for (int64_t b = 0; b < batch; b++) {
        limits[b] = steps - b % (steps + 1);
        entropy[b] = b % 2 ? 2 : 99;
        least[b] = b % 3 ? .01 : 0;
        how[b] = (struct sampling){(float)b, b % 2 ? .8 : 1, b};
    }
    for (int64_t i = 0; i < batch * steps; i++) u[i] = random_below(1000) / 1000.;
    float *law = floats("chain laws", batch * steps * size);
    REQUIRE(spear_draft_chain(&draft, &head, how, 1, batch, steps, limits, size, u, entropy, least, newest, &past, drawn,
                              made, law) == 0);
    REQUIRE(spear_draft_chain(&draft, &head, how, 0, batch, steps, limits, size, u, NULL, NULL, newest, &past, drawn, made,
                              law) == 0);
    for (int64_t b = 0; b < batch; b++) REQUIRE(made[b] == limits[b]);
    release();
}

int main(int count, char **arguments)
{
    if (count > 1) shorter = arguments[1];
    uniforms();
    laws();
    for (int64_t batch = 1; batch <= 5; batch++)
        for (int64_t depth = 1; depth <= 2; depth++)
            for (int masked = 0; masked < 2; masked++) {
                draft(20, 3, 6, 26, depth, batch, masked);
                draft(33, 2, 34, 88, depth, batch, masked);
                draft(64, 1, 64, 43, depth, batch, masked);
            }
    puts("walked");
    return 0;
}
