/*
 * ptxrun_fill.c: what a buffer holds before a run. An element of a random buffer depends on the
 * seed and on its index alone: the counter-based generator Philox4x32-10 (Salmon, Moraes, Dror,
 * Shaw, SC 2011) numbers groups of four elements.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ptxrun.h"
#include "tool.h"

typedef struct generator {
    const char *name;
    const char *first, *second; /* keys of its values, which it needs; NULL: it has none */
    bool is_random, takes_bytes;
    number (*element)(const buffer *of, uint64_t i); /* NULL: its bytes, or nothing */
} generator;

/* ---- random numbers ------------------------------------------------------------------------- */

typedef struct philox {
    uint32_t words[4];
} philox;

static philox philox_4x32_10(uint64_t group, uint64_t seed)
{
    uint32_t x[4] = {(uint32_t)group, (uint32_t)(group >> 32), 0, 0};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int round = 0; round < 10; ++round) {
        uint64_t p0 = (uint64_t)0xD2511F53 * x[0], p1 = (uint64_t)0xCD9E8D57 * x[2];
        uint32_t high0 = (uint32_t)(p0 >> 32), high1 = (uint32_t)(p1 >> 32);
        uint32_t next[4] = {high1 ^ x[1] ^ key[0], (uint32_t)p1, high0 ^ x[3] ^ key[1],
                            (uint32_t)p0};
        memcpy(x, next, sizeof x);
        key[0] += 0x9E3779B9;
        key[1] += 0xBB67AE85;
    }
    return (philox){{x[0], x[1], x[2], x[3]}};
}

/* In [first, second), or for integers in [first, second]. */
static number uniform(const buffer *of, uint64_t i)
{
    philox random = philox_4x32_10(i / 4, of->fill.seed);
    uint32_t word = random.words[i % 4];
    const fill *f = &of->fill;
    if (number_is_real(of->type)) {
        double unit = (double)(word >> 8) * 0x1p-24;
        return (number){.real = f->first.real + (f->second.real - f->first.real) * unit};
    }
    uint64_t span = f->second.whole - f->first.whole + 1;
    uint64_t wide = (uint64_t)random.words[(i + 1) % 4] << 32 | word;
    return (number){.whole = f->first.whole + (span ? wide % span : wide)};
}

/* first: the mean, second: the standard deviation; Box-Muller. */
static number normal(const buffer *of, uint64_t i)
{
    static const double pi = 3.14159265358979323846;
    philox random = philox_4x32_10(i / 4, of->fill.seed);
    const uint32_t *pair = &random.words[i % 4 / 2 * 2];
    double radius = sqrt(-2 * log(((double)pair[0] + 0.5) * 0x1p-32));
    double angle = 2 * pi * (double)pair[1] * 0x1p-32;
    double standard = radius * (i % 2 ? sin(angle) : cos(angle));
    return (number){.real = of->fill.first.real + of->fill.second.real * standard};
}

/* ---- others --------------------------------------------------------------------------------- */

static number constant(const buffer *of, uint64_t i)
{
    (void)i;
    return of->fill.first;
}

static number zeros(const buffer *of, uint64_t i)
{
    (void)of, (void)i;
    return (number){.whole = 0};
}

/* first, first + second, first + 2 second, ... */
static number iota(const buffer *of, uint64_t i)
{
    number index = number_convert(of->type, NUMBER_u64, (number){.whole = i});
    return number_add(of->type, of->fill.first, number_multiply(of->type, of->fill.second, index));
}

/* The first one is what a buffer without a fill has. */
static const generator generators[] = {
    {"uninitialised", NULL, NULL, false, false, NULL},
    {"zeros", NULL, NULL, false, false, zeros},
    {"constant", "value", NULL, false, false, constant},
    {"iota", "start", "step", false, false, iota},
    {"uniform", "low", "high", true, false, uniform},
    {"normal", "mean", "deviation", true, false, normal},
    {"hex", "bytes", NULL, false, true, NULL},
    {"file", "path", NULL, false, true, NULL},
};
enum { GENERATORS = sizeof generators / sizeof generators[0] };

/* ---- reading -------------------------------------------------------------------------------- */

/* The buffer's bytes, written down or in a file. */
static int read_bytes(fill *out, const json_path *at, const json_t *json, const char *key,
                      const buffer *of, const char *folder)
{
    const json_t *found = json_object_get(json, key);
    const json_path *place = JSON_KEY(at, key);
    int code = strcmp(key, "path") == 0
                   ? ptxrun_read_file((char **)&out->bytes, &out->byte_count, place, found, folder)
                   : json_get_hex(&out->bytes, &out->byte_count, place, found);
    if (code == 0 && out->byte_count != of->bytes)
        return json_path_say(place, "found %zu bytes, wanted %zu: %zu of %s", out->byte_count,
                             of->bytes, of->count, number_type_names[of->type]);
    return code;
}

static int read_values(fill *out, const json_path *at, const json_t *json, const generator *g,
                       const buffer *of)
{
    int code = 0;
    int64_t seed = 0;
    if (g->first)
        code = json_get_number(&out->first, JSON_KEY(at, g->first), json_object_get(json, g->first),
                               of->type);
    if (code == 0 && g->second)
        code = json_get_number(&out->second, JSON_KEY(at, g->second),
                               json_object_get(json, g->second), of->type);
    if (code == 0 && g->is_random)
        code = json_get_integer(&seed, JSON_KEY(at, "seed"), json_object_get(json, "seed"), 0,
                                INT64_MAX);
    out->seed = (uint64_t)seed;
    bool is_upside_down = number_is_real(of->type)
                              ? out->first.real > out->second.real
                              : (int64_t)out->first.whole > (int64_t)out->second.whole;
    if (code == 0 && g->element == uniform && is_upside_down)
        return json_path_fail(JSON_KEY(at, "high"), json_object_get(json, "high"),
                              "at least what low is");
    return code;
}

int fill_read(fill *out, const json_path *at, const json_t *json, const buffer *of,
              const char *folder)
{
    const char *names[GENERATORS + 1] = {NULL};
    *out = (fill){0};
    if (!json)
        return 0;
    if (!json_is_object(json))
        return json_path_fail(at, json, "an object with a generator");
    for (size_t i = 0; i < GENERATORS; ++i)
        names[i] = generators[i].name;
    int code = json_get_word(&out->generator, JSON_KEY(at, "generator"),
                             json_object_get(json, "generator"), names);
    if (code != 0)
        return code;
    const generator *g = &generators[out->generator];
    const char *keys[5] = {"generator"};
    size_t count = 1;
    if (g->first)
        keys[count++] = g->first;
    if (g->second)
        keys[count++] = g->second;
    if (g->is_random)
        keys[count++] = "seed";
    code = json_get_object(at, json, keys);
    if (code != 0)
        return code;
    if (g->takes_bytes)
        return read_bytes(out, at, json, g->first, of, folder);
    if (g->element == normal && !number_is_real(of->type))
        return json_path_say(at, "found normal, wanted another generator: the buffer is of %s",
                             number_type_names[of->type]);
    return read_values(out, at, json, g, of);
}

void fill_free(fill *f)
{
    free(f->bytes);
    f->bytes = NULL;
}

bool fill_is_made(const fill *f)
{
    return generators[f->generator].element || f->bytes;
}

void fill_make(unsigned char *bytes, const buffer *of)
{
    const generator *g = &generators[of->fill.generator];
    if (g->takes_bytes)
        memcpy(bytes, of->fill.bytes, of->bytes);
    for (size_t i = 0; g->element && i < of->count; ++i)
        number_store(of->type, bytes + i * number_bytes(of->type), g->element(of, i));
}
