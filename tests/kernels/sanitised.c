/* Every function of the kernels at odd sizes, each array on the heap at exactly the size that the headers name, for a build
   with sanitizers (test_asan.py). An array that is made too short must be caught. */

#include <stdio.h>

#include "block.h"
#include "draft.h"
#include "encoder.h"
#include "judge.h"
#include "philox.h"
#include "round.h"

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

static float *weights(const char *name, int64_t count)
{
    float *x = floats(name, count);
    for (int64_t i = 0; i < count - !strcmp(name, shorter); i++) x[i] = fabsf(x[i]);
    return x;
}

static struct matrix map(const char *name, int64_t format, int64_t in, int64_t out)
{
    const int64_t codes = (out + STRIP - 1) / STRIP * (format == BYTES ? spear_tile_in(in) : in) * STRIP;
    if (format == FLOATS) return (struct matrix){floats(name, codes), in, out, format, NULL};
    if (format == HALVES) {
        uint16_t *half = array(name, codes, sizeof *half);
        for (int64_t i = 0; i < codes - !strcmp(name, shorter); i++) half[i] = (uint16_t)random_below(0x3c00);
        return (struct matrix){half, in, out, format, NULL};
    }
    int8_t *code = array(name, codes, 1);
    for (int64_t i = 0; i < codes - !strcmp(name, shorter); i++) code[i] = (int8_t)((int)random_below(255) - 127);
    return (struct matrix){code, in, out, format, floats("scale", out)};
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
    const int64_t width = heads * dim_head, ids = 64, memory = 1 + batch, nodes = 5, count = 1 + batch % 4, most = 7;
    const int64_t steps = 3, capacity = most + nodes, size = ids - 1, gap = 2;
    struct matrix enter = map("enter", BYTES, dim, dim), head = map("head", BYTES, dim, size);
    struct layer *layers = array("layers", depth, sizeof *layers);
    const float **cross = array("cross", 2 * depth, sizeof *cross);
    for (int64_t l = 0; l < depth; l++) {
        layers[l] = (struct layer){map("to_qkv", BYTES, dim, 3 * width), map("self_out", BYTES, width, dim),
                                   map("to_q", BYTES, dim, width), map("cross_out", BYTES, width, dim),
                                   map("up", BYTES, dim, 2 * inner), map("down", BYTES, inner, dim), floats("up_bias", 2 * inner), floats("down_bias", dim)};
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

    const float *fused[2] = {floats("fused 0", batch * count * dim), floats("fused 1", batch * count * dim)};
    struct matrix fuse = map("fuse", BYTES, 2 * dim, dim);
    REQUIRE(spear_draft_fuse(&fuse, 2, dim, batch, count, count, fused, floats("fed", batch * count * dim)) == 0);
    release();
}

/* Products of 1 to 30 rows, with an addition that is a bias, rows, or nothing. */
static void products(int64_t format, int64_t in, int64_t out)
{
    for (int64_t rows = 1; rows <= 30; rows++) {
        struct matrix w = map("matrix", format, in, out);
        float *x = floats("x", rows * in), *y = floats("y", rows * out);
        spear_product(&w, rows, x, NULL, 0, y);
        spear_product(&w, rows, x, floats("bias", out), 0, y);
        spear_product(&w, rows, x, y, out, y);
        release();
    }
}

/* The target on ragged rows at the end of their room: a chain, a tree, some of its layers. */
static void target(int64_t format, int64_t dim, int64_t heads, int64_t kv_heads, int64_t dim_head, int64_t inner,
                   int64_t batch, int masked)
{
    const int64_t threads = 1 + batch % 3, depth = 2, width = heads * dim_head, ids = 64, memory = 1 + batch, nodes = 5, count = 1 + batch % 4;
    const int64_t most = 7, capacity = most + nodes, size = ids - 1, gap = 2, all = width + 2 * kv_heads * dim_head;
    struct matrix head = map("head of the target", format, dim, size);
    struct target_layer *layers = array("layers", depth, sizeof *layers);
    const float **cross = array("cross", 2 * depth, sizeof *cross);
    for (int64_t l = 0; l < depth; l++) {
        layers[l] = (struct target_layer){map("target qkv", format, dim, all), map("self_out", format, width, dim),
                                          map("to_q", format, dim, width), map("cross_out", format, width, dim),
                                          map("up", format, dim, 2 * inner), map("target down", format, inner, dim),
                                          floats("gain", dim), floats("gain", dim), floats("gain", dim),
                                          floats("target up_bias", 2 * inner), floats("target down_bias", dim)};
        cross[2 * l] = floats("target text keys", batch * width * memory);
        cross[2 * l + 1] = floats("target text values", batch * width * memory);
    }
    const struct target target = {dim, heads, kv_heads, dim_head, inner, depth, ids,
                                  floats("target table", ids * dim), layers, floats("last gain", dim), &head};
    const int64_t own = kv_heads * dim_head * capacity, layer = (batch + gap) * own;
    const int64_t store = (depth - 1) * layer + batch * own;
    int64_t *lengths = array("lengths", batch, sizeof *lengths), *deep = array("node_depth", batch * count, sizeof *deep);
    int64_t *tokens = array("tokens", batch * count, sizeof *tokens);
    uint8_t *mask = array("mask", batch * memory, 1), *sees = array("node_mask", batch * count * nodes, 1);
    uint8_t *skip = array("skip", depth, 1);
    for (int64_t b = 0; b < batch; b++) {
        lengths[b] = most + nodes - count - b % 3;
        for (int64_t j = 0; j < memory; j++) mask[b * memory + j] = j <= b;
    }
    for (int64_t i = 0; i < batch * count; i++) {
        tokens[i] = random_below((uint32_t)ids);
        for (int64_t j = 0; j < nodes; j++) sees[i * nodes + j] = j == nodes - count + i % count || random_below(2);
        deep[i] = nodes - 1 - random_below((uint32_t)nodes);
    }
    skip[0] = 1;
    skip[1] = 2;
    struct past past = {lengths, floats("target angles", (most + nodes) * dim_head), floats("target keys", store),
                        floats("target values", store), capacity, layer, cross, memory, masked ? mask : NULL};
    const int64_t stream = batch * count * dim;
    float *x = floats("stream", stream), *hidden = floats("target hidden", stream);
    float *logits = floats("target logits", batch * count * size), *features[2] = {floats("feature", stream), NULL};
    REQUIRE(spear_target_step(threads, &target, 0, depth, batch, count, tokens, x, &past, 0, NULL, NULL, NULL, features, hidden,
                              logits) == 0);
    REQUIRE(spear_target_step(threads, &target, 0, depth, batch, count, tokens, x, &past, 0, NULL, NULL, skip, NULL, hidden,
                              logits) == 0);
    REQUIRE(spear_target_step(threads, &target, 0, 1, batch, count, tokens, x, &past, 0, NULL, NULL, NULL, NULL, NULL, NULL) == 0);
    REQUIRE(spear_target_step(threads, &target, 1, depth, batch, count, NULL, x, &past, nodes, sees, deep, NULL, NULL, hidden,
                              logits) == 0);
    deep[0] = -1;
    REQUIRE(spear_target_step(threads, &target, 0, depth, batch, count, tokens, x, &past, nodes, sees, deep, NULL, NULL, hidden,
                              logits) == NO_TREE);
    tokens[0] = -1;
    REQUIRE(spear_target_step(threads, &target, 0, depth, batch, count, tokens, x, &past, 0, NULL, NULL, NULL, NULL, hidden,
                              logits) == NO_TOKEN);
    release();
}

/* Texts of ragged lengths, one of them empty. */
static void encode(int64_t format, int64_t dim, int64_t heads, int64_t dim_head, int64_t inner, int64_t batch)
{
    const int64_t depth = 2, readers = 2, width = heads * dim_head, symbols = 9, count = 1 + batch;
    struct encoder_layer *layers = array("layers", depth, sizeof *layers);
    struct matrix *to_kv = array("to_kv", readers, sizeof *to_kv);
    const float **nulls = array("nulls", readers, sizeof *nulls);
    float **cross = array("cross", 2 * readers, sizeof *cross);
    for (int64_t l = 0; l < depth; l++)
        layers[l] = (struct encoder_layer){map("encoder qkv", format, dim, 3 * width), map("self_out", format, width, dim),
                                           map("up", format, dim, 2 * inner), map("encoder down", format, inner, dim),
                                           floats("encoder gain", dim), floats("gain", dim), floats("up_bias", 2 * inner),
                                           floats("encoder bias", dim)};
    for (int64_t l = 0; l < readers; l++) {
        to_kv[l] = map("encoder kv", format, dim, 2 * width);
        nulls[l] = floats("encoder null", 2 * width);
        for (int which = 0; which < 2; which++) cross[2 * l + which] = floats("read keys", batch * width * (1 + count));
    }
    const struct encoder encoder = {dim, heads, dim_head, inner, depth, symbols, readers, floats("symbols", symbols * dim),
                                    layers, floats("gain", dim), to_kv, nulls};
    int64_t *ids = array("texts", batch * count, sizeof *ids), *counts = array("text counts", batch, sizeof *counts);
    for (int64_t i = 0; i < batch * count - !strcmp("texts", shorter); i++) ids[i] = random_below((uint32_t)symbols);
    for (int64_t b = 0; b < batch - !strcmp("text counts", shorter); b++) counts[b] = b ? (b + 1) % (count + 1) : count;
    float *angles = floats("encoder angles", count * dim_head), *hidden = floats("encoded", batch * count * dim);
    REQUIRE(spear_encode(1 + batch % 3, &encoder, batch, count, ids, counts, angles, hidden, cross) == 0);
    ids[count - 1] = symbols;
    REQUIRE(spear_encode(1, &encoder, batch, count, ids, counts, angles, hidden, cross) == NO_TOKEN);
    release();
}

/* Keys and values of rows at the end of their room. */
static struct past room(int64_t depth, int64_t batch, int64_t width, int64_t dim_head, int64_t before, int64_t count,
                        int64_t **lengths)
{
    const int64_t capacity = before + count, layer = batch * width * capacity, memory = 3;
    const float **cross = array("round cross", 2 * depth, sizeof *cross);
    for (int64_t l = 0; l < 2 * depth; l++) cross[l] = floats("round text", batch * width * memory);
    *lengths = array("round lengths", batch, sizeof **lengths);
    for (int64_t b = 0; b < batch - !strcmp("round lengths", shorter); b++) (*lengths)[b] = before - b % 2;
    return (struct past){*lengths, floats("round angles", capacity * dim_head), floats("round keys", depth * layer),
                         floats("round values", depth * layer), capacity, layer, cross, memory, NULL};
}

/* Whole rounds, with a draft and without. */
static void rounds(int64_t dim, int64_t heads, int64_t dim_head, int64_t inner, int64_t batch, int64_t steps)
{
    const int64_t width = heads * dim_head, ids = 64, size = ids - 1, count = 2, length = count, most = steps + 1;
    struct matrix enter = map("enter", BYTES, dim, dim), head = map("head", BYTES, dim, size);
    struct matrix fuse = map("round fuse", BYTES, dim, dim), last = map("head of the target", HALVES, dim, size);
    struct layer own = {map("to_qkv", BYTES, dim, 3 * width), map("self_out", BYTES, width, dim), map("to_q", BYTES, dim, width),
                        map("cross_out", BYTES, width, dim), map("up", BYTES, dim, 2 * inner), map("down", BYTES, inner, dim),
                        floats("up_bias", 2 * inner), floats("down_bias", dim)};
    struct target_layer layer = {map("to_qkv", HALVES, dim, 3 * width), map("self_out", HALVES, width, dim),
                                 map("to_q", HALVES, dim, width), map("cross_out", HALVES, width, dim),
                                 map("up", HALVES, dim, 2 * inner), map("down", HALVES, inner, dim), floats("gain", dim),
                                 floats("gain", dim), floats("gain", dim), floats("up_bias", 2 * inner), floats("down_bias", dim)};
    const struct draft draft = {dim, heads, dim_head, inner, 1, ids, floats("table", ids * dim), &enter, &own};
    const struct target target = {dim, heads, heads, dim_head, inner, 1, ids, floats("table", ids * dim), &layer,
                                  floats("last gain", dim), &last};
    int64_t *reached, *lengths;
    struct past read = room(1, batch, width, dim_head, 5, count + steps, &reached);
    struct past past = room(1, batch, width, dim_head, 5, most, &lengths);
    struct sampling how = {.7f, .9, 0};
    const float *said[1] = {floats("round features", batch * length * dim)};
    float *kept[1] = {floats("round kept", batch * most * dim)};
    double *u = array("round u", batch * (2 * steps + 1), sizeof *u);
    int64_t *numbers[8];
    static const char *const names[8] = {"round newest", "round limits", "fresh counts", "round drafted", "round accepted", "round last", "round used", ""};
    for (int i = 0; i < 7; i++) numbers[i] = array(names[i], batch, sizeof **numbers);
    int64_t *fresh = array("fresh", batch * count, sizeof *fresh), *tokens = array("round tokens", batch * steps, sizeof *tokens);
    for (int64_t i = 0; i < batch * (2 * steps + 1) - !strcmp("round u", shorter); i++) u[i] = random_below(1000) / 1000.;
    for (int64_t i = 0; i < batch * count - !strcmp("fresh", shorter); i++) fresh[i] = random_below((uint32_t)ids);
    for (int64_t b = 0; b < batch; b++) {
        numbers[0][b] = random_below((uint32_t)ids);
        numbers[1][b] = steps - b % most;
        numbers[2][b] = b ? 1 + b % count : count;
    }
    struct round round = {batch, steps, 1 + batch % 2, BLOCK, 0, size, &how, numbers[0], u, &draft, &fuse, &head, numbers[1],
                          fresh, numbers[2], count, 1, length, said, &read, reached, &target, &past, kept,
                          floats("round hidden", batch * most * dim), floats("round logits", batch * most * size), tokens,
                          numbers[3], numbers[4], numbers[5], numbers[6], 0};
    REQUIRE(spear_round(&round) == 0);
    for (int64_t b = 0; b < batch; b++) REQUIRE(numbers[4][b] <= numbers[3][b] && numbers[6][b] <= 2 * numbers[3][b] + 1);
    numbers[0][batch - 1] = ids;
    round.steps = 0; /* the plain loop */
    REQUIRE(spear_round(&round) == NO_TOKEN);
    numbers[0][batch - 1] = 0;
    REQUIRE(spear_round(&round) == 0 && round.longest == 0);
    release();
}

static struct bytes byte_map(const char *name, int64_t in, int64_t out)
{
    const int64_t codes = (out + TILE_OUT - 1) / TILE_OUT * TILE_OUT * spear_tile_in(in);
    uint8_t *code = array(name, codes, 1);
    for (int64_t i = 0; i < codes - !strcmp(name, shorter); i++) code[i] = (uint8_t)(1 + random_below(255));
    return (struct bytes){code, floats("byte scale", out), in, out};
}

/* The block decoder on ragged rows at the end of their room: settled tokens with padding, a pass, drafts. */
static void block(int64_t dim, int64_t heads, int64_t dim_head, int64_t inner, int64_t batch, int masked)
{
    const int64_t depth = 2, width = heads * dim_head, ids = 40, memory = 1 + batch, count = 1 + batch % 4, most = 7;
    const int64_t steps = 3, rank = 5, size = ids - 1, gap = 2, longest = count > steps ? count : steps;
    const int64_t capacity = most + longest;
    struct bytes enter = byte_map("block enter", dim, dim), head = byte_map("block head", dim, size);
    struct bytes gates = byte_map("block gate", dim, rank + 1), after = byte_map("block after", rank, size);
    struct block_layer *layers = array("layers", depth, sizeof *layers);
    const float **cross = array("cross", 2 * depth, sizeof *cross);
    for (int64_t l = 0; l < depth; l++) {
        layers[l] = (struct block_layer){byte_map("block past", dim, 2 * width), byte_map("block qkv", dim, 3 * width),
                                         byte_map("block out", width, dim), byte_map("block to_q", dim, width),
                                         byte_map("block cross", width, dim), byte_map("block up", dim, 2 * inner),
                                         byte_map("block down", inner, dim), floats("block up_bias", 2 * inner),
                                         floats("block down_bias", dim)};
        cross[2 * l] = floats("block text keys", batch * width * memory);
        cross[2 * l + 1] = floats("block text values", batch * width * memory);
    }
    const struct block block = {dim, heads, dim_head, inner, depth, ids, steps, 4, rank, floats("block table", ids * dim),
                                &enter, layers, floats("positions", steps * dim), &head, &gates,
                                floats("gate_bias", rank + 1), floats("before", ids * rank), &after};
    const int64_t layer = (batch + gap) * width * capacity, store = (depth - 1) * layer + batch * width * capacity;
    int64_t *lengths = array("lengths", batch, sizeof *lengths), *counts = array("counts", batch, sizeof *counts);
    int64_t *tokens = array("tokens", batch * count, sizeof *tokens), *limits = array("limits", batch, sizeof *limits);
    uint8_t *mask = array("mask", batch * memory, 1);
    for (int64_t b = 0; b < batch; b++) {
        lengths[b] = capacity - count - b % 3;
        counts[b] = b ? (b + 1) % (count + 1) : count;
        limits[b] = steps - b % steps;
        for (int64_t j = 0; j < memory; j++) mask[b * memory + j] = j <= b;
    }
    for (int64_t i = 0; i < batch * count; i++) tokens[i] = i ? random_below((uint32_t)ids) : ids - 1;
    struct past past = {lengths, floats("block angles", capacity * dim_head), floats("block keys", store),
                        floats("block values", store), capacity, layer, cross, memory, masked ? mask : NULL};
    float *features = floats("block features", batch * count * dim), *contexts = floats("contexts", batch * count * dim);
    REQUIRE(spear_block_read(&block, batch, count, tokens, features, &past, counts, contexts) == 0);
    REQUIRE(spear_block_read(&block, batch, count, tokens, features, &past, NULL, contexts) == 0);
    tokens[batch * count - 1] = -1;
    REQUIRE(spear_block_read(&block, batch, count, tokens, features, &past, NULL, contexts) == NO_TOKEN);

    for (int64_t b = 0; b < batch; b++) lengths[b] = capacity - steps;
    float *logits = floats("block logits", batch * steps * size), *gate = floats("gates", batch * steps * rank);
    float *sure = floats("sure", batch * steps), *newest = floats("block newest", batch * dim);
    REQUIRE(spear_block_pass(&block, batch, steps, limits, newest, &past, logits, gate, sure) == 0);
    int64_t *before = array("token before", batch * steps, sizeof *before), *made = array("made", batch, sizeof *made);
    for (int64_t i = 0; i < batch * steps; i++) before[i] = random_below((uint32_t)ids);
    float *out = floats("followed", batch * steps * size);
    REQUIRE(spear_block_follow(&block, batch * steps, logits, gate, before, out) == 0);

    double *u = array("block u", batch * steps, sizeof *u), *bound = array("bounds", batch, sizeof *bound);
    struct sampling how = {.7f, .9, 0};
    for (int64_t i = 0; i < batch * steps; i++) u[i] = random_below(1000) / 1000.;
    for (int64_t b = 0; b < batch; b++) bound[b] = b % 2 ? 2 : 0;
    int64_t *drawn = array("block drawn", batch * steps, sizeof *drawn);
    float *law = floats("block laws", batch * steps * size);
    REQUIRE(spear_block_chain(&block, &how, 0, batch, steps, limits, size, u, NULL, NULL, -1, newest, before, &past, drawn,
                              made, law) == 0);
    for (int64_t b = 0; b < batch; b++) REQUIRE(made[b] == limits[b]);
    REQUIRE(spear_block_chain(&block, &how, 0, batch, steps, limits, size, u, bound, bound, .1, newest, before, &past,
                              drawn, made, law) == 0);
    release();
}

/* Ragged chains under both rules, drawn from laws or chosen. */
static void judge(int64_t batch, int64_t steps, int64_t size)
{
    for (int kind = 0; kind < 64; kind++) { /* often enough that a chain is rejected at its last token */
        const int block = kind & 1;
        int64_t *tokens = array("tokens", batch * steps, sizeof *tokens), *counts = array("counts", batch, sizeof *counts);
        float *q = weights("drafted laws", batch * steps * size), *p = weights("target's laws", batch * (steps + 1) * size);
        double *u = array("judged", batch * (steps + 1), sizeof *u);
        for (int64_t i = 0; i < batch * steps; i++) tokens[i] = random_below((uint32_t)size);
        for (int64_t i = 0; i < batch * (steps + 1) - !strcmp("judged", shorter); i++) u[i] = i < (batch - 1) * (steps + 1) ? random_below(1000) / 1000. : 0;
        for (int64_t b = 0; b < batch; b++) counts[b] = steps - (batch - 1 - b) % (steps + 1); /* the last keeps all */
        int64_t *accepted = array("accepted", batch, sizeof *accepted), *last = array("last", batch, sizeof *last);
        int64_t *used = array("used", batch, sizeof *used);
        REQUIRE(spear_judge(block, batch, steps, size, tokens, counts, kind & 2 ? NULL : q, steps * size, p,
                            (steps + 1) * size, u, accepted, last, used) == 0);
        for (int64_t b = 0; b < batch; b++) REQUIRE(accepted[b] <= counts[b] && last[b] < size && used[b] <= steps + 1);
        release();
    }
}

static void blocks(void)
{
    for (int64_t batch = 1; batch <= 5; batch++) {
        block(20, 3, 6, 26, batch, batch % 2);
        block(33, 2, 34, 88, batch, batch % 2);
        block(64, 1, 64, 43, batch, batch % 2);
    }
}

static void all_products(void)
{
    for (int64_t format = FLOATS; format <= BYTES; format++) {
        products(format, 7, 70);
        products(format, 33, 1);
        products(format, 1, 32);
    }
}

static void targets(void)
{
    for (int64_t format = FLOATS; format <= BYTES; format++)
        for (int64_t batch = 1; batch <= 5; batch++)
            for (int masked = 0; masked < 2; masked++) {
                target(format, 20, 3, 3, 6, 26, batch, masked);
                target(format, 33, 4, 2, 34, 88, batch, masked);
                target(format, 64, 2, 1, 64, 43, batch, masked);
            }
}

static void encoders(void)
{
    for (int64_t batch = 1; batch <= 4; batch++) {
        encode(FLOATS, 33, 2, 34, 88, batch);
        encode(HALVES, 64, 1, 64, 43, batch);
    }
}

static void all_rounds(void)
{
    for (int64_t batch = 1; batch <= 4; batch++) {
        rounds(20, 3, 6, 26, batch, 3);
        rounds(64, 1, 64, 43, batch, 1);
    }
}

static void judges(void)
{
    judge(4, 3, 2);
    judge(5, 4, 33);
}

static void drafts(void)
{
    for (int64_t batch = 1; batch <= 5; batch++)
        for (int64_t depth = 1; depth <= 2; depth++)
            for (int masked = 0; masked < 2; masked++) {
                draft(20, 3, 6, 26, depth, batch, masked);
                draft(33, 2, 34, 88, depth, batch, masked);
                draft(64, 1, 64, 43, depth, batch, masked);
            }
}

/* No argument: all parts. PART [ARRAY]: one of them, with an array that is too short. */
int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        void (*walk)(void);
    } parts[] = {{"uniforms", uniforms}, {"laws", laws},         {"block", blocks},  {"products", all_products}, {"target", targets},
                 {"encoder", encoders},  {"rounds", all_rounds}, {"judge", judges}, {"draft", drafts}};
    int walked = 0;
    if (count > 2) shorter = arguments[2];
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (count < 2 || !strcmp(parts[i].name, arguments[1])) parts[i].walk(), walked++;
    REQUIRE(walked);
    puts("walked");
    return 0;
}
