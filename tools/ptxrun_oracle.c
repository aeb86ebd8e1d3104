/*
 * ptxrun_oracle.c: what a buffer must hold after a run, by a named oracle that computes it on the
 * host from what the buffers held before: one row of a table each.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <base/text.h>

#include "ptxrun.h"
#include "tool.h"

/* One call of an oracle: operand 0 is what the kernel wrote, and its type is that of the
 * calculation. */
typedef struct oracle_call {
    const expected_buffer *expected;
    const buffer *operands[3];
    const unsigned char *before[3];
} oracle_call;

typedef struct oracle {
    const char *name;
    const char *operands[4];              /* what its buffers are, in order */
    const char *sizes[PTXRUN_MOST_SIZES]; /* keys of numbers that it needs */
    const char *value;                    /* a key of its own: "alpha", "values", "path" */
    bool adds;                            /* to what operand 0 held before */
    /* The elements that operand `which` must have: exactly, or, `*at_least`, that many. */
    size_t (*count)(const expected_buffer *e, const buffer *const *operands, int which,
                    bool *at_least);
    void (*compute)(number *wanted, const oracle_call *c);
} oracle;

static number operand(const oracle_call *c, int which, size_t i)
{
    number_type from = c->operands[which]->type;
    const unsigned char *at = c->before[which] + i * number_bytes(from);
    return number_convert(c->operands[0]->type, from, number_load(from, at));
}

/* ---- the oracles ---------------------------------------------------------------------------- */

/* Every input has as many elements as the output, or more. */
static size_t count_as_output(const expected_buffer *e, const buffer *const *operands, int which,
                              bool *at_least)
{
    (void)e, (void)which;
    *at_least = true;
    return operands[0]->count;
}

static void copy(number *wanted, const oracle_call *c)
{
    for (size_t i = 0; i < c->operands[0]->count; ++i)
        wanted[i] = operand(c, 1, i);
}

static void axpy(number *wanted, const oracle_call *c)
{
    number_type type = c->operands[0]->type;
    for (size_t i = 0; i < c->operands[0]->count; ++i)
        wanted[i] = number_add(type, number_multiply(type, c->expected->alpha, operand(c, 1, i)),
                               operand(c, 0, i));
}

static void scan(number *wanted, const oracle_call *c)
{
    number sum = {0};
    for (size_t i = 0; i < c->operands[0]->count; ++i)
        wanted[i] = sum = number_add(c->operands[0]->type, sum, operand(c, 1, i));
}

/* The input falls into as many parts as the output has elements; the last one may be shorter. */
static void sum(number *wanted, const oracle_call *c)
{
    size_t count = c->operands[1]->count, parts = c->operands[0]->count;
    size_t part = (count + parts - 1) / parts;
    memset(wanted, 0, parts * sizeof *wanted);
    for (size_t i = 0; i < count; ++i)
        wanted[i / part] = number_add(c->operands[0]->type, wanted[i / part], operand(c, 1, i));
}

static size_t count_any(const expected_buffer *e, const buffer *const *operands, int which,
                        bool *at_least)
{
    (void)e, (void)operands, (void)which;
    *at_least = true;
    return 1;
}

/* Values that are no index of a bin are not counted. */
static void histogram(number *wanted, const oracle_call *c)
{
    size_t bins = c->operands[0]->count;
    number_type type = c->operands[0]->type, from = c->operands[1]->type;
    number one = number_convert(type, NUMBER_u64, (number){.whole = 1});
    for (size_t i = 0; i < bins; ++i)
        wanted[i] = operand(c, 0, i);
    for (size_t i = 0; i < c->operands[1]->count; ++i) {
        number value = number_load(from, c->before[1] + i * number_bytes(from));
        uint64_t bin = number_convert(NUMBER_u64, from, value).whole;
        if (bin < bins)
            wanted[bin] = number_add(type, wanted[bin], one);
    }
}

static size_t count_rows_columns(const expected_buffer *e, const buffer *const *operands, int which,
                                 bool *at_least)
{
    (void)operands, (void)which, (void)at_least;
    return e->sizes[0] * e->sizes[1];
}

/* The input has rows x columns, row by row. */
static void transpose(number *wanted, const oracle_call *c)
{
    size_t rows = c->expected->sizes[0], columns = c->expected->sizes[1];
    for (size_t i = 0; i < rows * columns; ++i)
        wanted[i % columns * rows + i / columns] = operand(c, 1, i);
}

static size_t count_product(const expected_buffer *e, const buffer *const *operands, int which,
                            bool *at_least)
{
    (void)operands, (void)at_least;
    size_t m = e->sizes[0], n = e->sizes[1], k = e->sizes[2];
    return which == 0 ? m * n : which == 1 ? m * k : k * n;
}

/* c [m][n] = a [m][k] b [k][n], row by row. */
static void matmul(number *wanted, const oracle_call *c)
{
    size_t m = c->expected->sizes[0], n = c->expected->sizes[1], k = c->expected->sizes[2];
    number_type type = c->operands[0]->type;
    memset(wanted, 0, m * n * sizeof *wanted);
    for (size_t i = 0; i < m; ++i)
        for (size_t l = 0; l < k; ++l)
            for (size_t j = 0; j < n; ++j)
                wanted[i * n + j] = number_add(
                    type, wanted[i * n + j],
                    number_multiply(type, operand(c, 1, i * k + l), operand(c, 2, l * n + j)));
}

static void literal(number *wanted, const oracle_call *c)
{
    number_type type = c->operands[0]->type;
    for (size_t i = 0; i < c->operands[0]->count; ++i)
        wanted[i] = number_load(type, c->expected->literal + i * number_bytes(type));
}

static const oracle oracles[] = {
    {"equals", {"out"}, {NULL}, "values", false, count_any, literal},
    {"file", {"out"}, {NULL}, "path", false, count_any, literal},
    {"copy", {"out", "in"}, {NULL}, NULL, false, count_as_output, copy},
    {"axpy", {"y", "x"}, {NULL}, "alpha", true, count_as_output, axpy},
    {"sum", {"sums", "in"}, {NULL}, NULL, false, count_any, sum},
    {"scan", {"out", "in"}, {NULL}, NULL, false, count_as_output, scan},
    {"histogram", {"counts", "in"}, {NULL}, NULL, true, count_any, histogram},
    {"transpose", {"out", "in"}, {"rows", "columns"}, NULL, false, count_rows_columns, transpose},
    {"matmul", {"c", "a", "b"}, {"m", "n", "k"}, NULL, false, count_product, matmul},
};
enum { ORACLES = sizeof oracles / sizeof oracles[0] };

/* ---- reading -------------------------------------------------------------------------------- */

static size_t list_length(const char *const *list, size_t most)
{
    size_t count = 0;
    while (count < most && list[count])
        ++count;
    return count;
}

static int read_tolerance(expected_buffer *out, const json_path *at, const json_t *json)
{
    static const char *const kinds[] = {"exact", "ulp", "relative", NULL};
    if (!json)
        return 0;
    int code = json_get_object(at, json, &kinds[TOLERANCE_ULP]);
    if (code != 0)
        return code;
    if (json_object_size(json) != 1)
        return json_path_fail(at, json, "one of: {\"ulp\": N}, {\"relative\": R}");
    out->tolerance = json_object_get(json, "ulp") ? TOLERANCE_ULP : TOLERANCE_RELATIVE;
    const char *key = kinds[out->tolerance];
    code = json_get_real(&out->limit, JSON_KEY(at, key), json_object_get(json, key));
    if (code == 0 && out->limit < 0)
        return json_path_fail(JSON_KEY(at, key), json_object_get(json, key), "0 or more");
    return code;
}

/* The values of the buffer, or one number for all. */
static int read_values(expected_buffer *out, const json_path *at, const json_t *json,
                       const buffer *of)
{
    int code = json_is_number(json) ? 0 : json_get_array(at, json, of->count, of->count);
    out->literal = code == 0 ? malloc(of->bytes) : NULL;
    if (!out->literal)
        return code ? code : tool_fail(EXIT_DEVICE, "out of memory: %zu bytes", of->bytes);
    for (size_t i = 0; code == 0 && i < of->count; ++i) {
        number value;
        code = json_is_number(json)
                   ? json_get_number(&value, at, json, of->type)
                   : json_get_number(&value, JSON_INDEX(at, i), json_array_get(json, i), of->type);
        if (code == 0)
            number_store(of->type, out->literal + i * number_bytes(of->type), value);
    }
    return code;
}

static int read_path(expected_buffer *out, const json_path *at, const json_t *json,
                     const buffer *of, const char *folder)
{
    size_t bytes;
    int code = ptxrun_read_file((char **)&out->literal, &bytes, at, json, folder);
    if (code == 0 && bytes != of->bytes)
        return json_path_say(at, "found %zu bytes, wanted %zu: those of %s", bytes, of->bytes,
                             of->name);
    return code;
}

static int read_own_value(expected_buffer *out, const json_path *at, const json_t *json,
                          const char *key, const buffer *of, const char *folder)
{
    const json_t *found = json_object_get(json, key);
    const json_path *place = JSON_KEY(at, key);
    if (strcmp(key, "alpha") == 0)
        return json_get_number(&out->alpha, place, found, of->type);
    if (strcmp(key, "path") == 0)
        return read_path(out, place, found, of, folder);
    return read_values(out, place, found, of);
}

static int read_sizes(expected_buffer *out, const json_path *at, const json_t *json,
                      const oracle *o)
{
    enum { MOST = 1 << 20 }; /* three of them multiplied fit 64 bits */
    int code = 0;
    for (size_t i = 0; code == 0 && i < PTXRUN_MOST_SIZES && o->sizes[i]; ++i) {
        int64_t size;
        code = json_get_integer(&size, JSON_KEY(at, o->sizes[i]),
                                json_object_get(json, o->sizes[i]), 1, MOST);
        out->sizes[i] = (size_t)size;
    }
    return code;
}

static int read_operands(expected_buffer *out, const json_path *at, const json_t *json,
                         const oracle *o, const buffer *buffers, size_t buffer_count)
{
    size_t count = list_length(o->operands, 4);
    if (json_array_size(json) != count)
        return json_path_fail(at, json, "an array of %zu: %s%s%s%s%s", count, o->operands[0],
                              count > 1 ? ", " : "", count > 1 ? o->operands[1] : "",
                              count > 2 ? ", " : "", count > 2 ? o->operands[2] : "");
    int code = 0;
    for (size_t i = 0; code == 0 && i < count; ++i)
        code = buffer_find(&out->buffers[i], JSON_INDEX(at, i), json_array_get(json, i), buffers,
                           buffer_count);
    return code;
}

/* Operands are as large as the oracle needs them, and hold something where it reads them. */
static int check_operands(const expected_buffer *e, const json_path *at, const oracle *o,
                          const buffer *buffers)
{
    const buffer *operands[3] = {0};
    size_t count = list_length(o->operands, 4);
    for (size_t i = 0; i < count; ++i)
        operands[i] = &buffers[e->buffers[i]];
    for (size_t i = 0; i < count; ++i) {
        bool at_least = false;
        size_t wanted = o->count(e, operands, (int)i, &at_least);
        if (operands[i]->count < wanted || (!at_least && operands[i]->count != wanted))
            return json_path_say(JSON_INDEX(at, i), "found %s of %zu elements, wanted %s%zu",
                                 operands[i]->name, operands[i]->count, at_least ? "at least " : "",
                                 wanted);
        if ((i > 0 || o->adds) && !fill_is_made(&operands[i]->fill))
            return json_path_say(
                JSON_INDEX(at, i),
                "found %s, which is uninitialised, wanted a buffer with a \"fill\": "
                "the oracle reads it",
                operands[i]->name);
    }
    return 0;
}

int expected_buffer_read(expected_buffer *out, const json_path *at, const json_t *json,
                         const buffer *buffers, size_t buffer_count, const char *folder)
{
    const char *names[ORACLES + 1] = {NULL};
    *out = (expected_buffer){0};
    if (!json_is_object(json))
        return json_path_fail(at, json, "an object with an oracle");
    for (size_t i = 0; i < ORACLES; ++i)
        names[i] = oracles[i].name;
    int code =
        json_get_word(&out->oracle, JSON_KEY(at, "oracle"), json_object_get(json, "oracle"), names);
    if (code != 0)
        return code;
    const oracle *o = &oracles[out->oracle];
    const char *keys[5 + PTXRUN_MOST_SIZES] = {"oracle", "buffers", "tolerance"};
    size_t count = 3;
    for (size_t i = 0; i < PTXRUN_MOST_SIZES && o->sizes[i]; ++i)
        keys[count++] = o->sizes[i];
    keys[count] = o->value;
    code = json_get_object(at, json, keys);
    const json_path *operands = JSON_KEY(at, "buffers");
    if (code == 0)
        code = read_operands(out, operands, json_object_get(json, "buffers"), o, buffers,
                             buffer_count);
    if (code == 0)
        code = read_sizes(out, at, json, o);
    if (code == 0)
        code = check_operands(out, operands, o, buffers);
    if (code == 0)
        code = read_tolerance(out, JSON_KEY(at, "tolerance"), json_object_get(json, "tolerance"));
    if (code == 0 && o->value)
        code = read_own_value(out, at, json, o->value, &buffers[out->buffers[0]], folder);
    return code;
}

void expected_buffer_free(expected_buffer *e)
{
    free(e->literal);
    e->literal = NULL;
}

/* ---- comparing ------------------------------------------------------------------------------ */

/* Rounds the results as a store would, and gives the largest magnitude among them. */
static double round_all(number *wanted, const buffer *of)
{
    double largest = 0;
    for (size_t i = 0; i < of->count; ++i) {
        unsigned char stored[8];
        number_store(of->type, stored, wanted[i]);
        wanted[i] = number_load(of->type, stored);
        double magnitude = fabs(number_convert(NUMBER_f64, of->type, wanted[i]).real);
        if (magnitude > largest && isfinite(magnitude))
            largest = magnitude;
    }
    return largest;
}

static bool is_near(const expected_buffer *e, number_type type, number got, number wanted,
                    double largest)
{
    if (number_equal(type, got, wanted))
        return true;
    if (e->tolerance == TOLERANCE_ULP)
        return (double)number_ulps(type, got, wanted) <= e->limit;
    double a = number_convert(NUMBER_f64, type, got).real;
    double b = number_convert(NUMBER_f64, type, wanted).real;
    return e->tolerance == TOLERANCE_RELATIVE && fabs(a - b) <= e->limit * largest;
}

static char *differences(const expected_buffer *e, const buffer *of, const unsigned char *got,
                         number *wanted)
{
    enum { SHOWN = 5 };
    text lines = TEXT_INIT;
    size_t different = 0;
    double largest = round_all(wanted, of);
    for (size_t i = 0; i < of->count; ++i) {
        char found_text[NUMBER_TEXT], wanted_text[NUMBER_TEXT];
        number found = number_load(of->type, got + i * number_bytes(of->type));
        if (is_near(e, of->type, found, wanted[i], largest) || different++ >= SHOWN)
            continue;
        number_print(found_text, of->type, found);
        number_print(wanted_text, of->type, wanted[i]);
        text_printf(&lines, "  %s[%zu]: got %s, expected %s\n", of->name, i, found_text,
                    wanted_text);
    }
    if (different > 0)
        text_printf(&lines, "  %s: %zu of %zu elements differ from the oracle \"%s\"\n", of->name,
                    different, of->count, oracles[e->oracle].name);
    return text_take(&lines);
}

int expected_buffer_compare(char **report, const expected_buffer *e, const buffer *buffers,
                            unsigned char *const *before, const unsigned char *got)
{
    *report = NULL;
    const buffer *of = &buffers[e->buffers[0]];
    oracle_call call = {.expected = e};
    for (size_t i = 0; i < list_length(oracles[e->oracle].operands, 4); ++i) {
        call.operands[i] = &buffers[e->buffers[i]];
        call.before[i] = before[e->buffers[i]];
    }
    number *wanted = calloc(of->count, sizeof *wanted);
    if (!wanted)
        return tool_fail(EXIT_DEVICE, "out of memory: %zu numbers", of->count);
    oracles[e->oracle].compute(wanted, &call);
    *report = differences(e, of, got, wanted);
    free(wanted);
    return 0;
}
