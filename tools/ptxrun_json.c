/* ptxrun_json.c: values out of a JSON document, with messages that name the place. */
#include "ptxrun_json.h"

#include <base/text.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

/* ---- messages ------------------------------------------------------------------------------- */

static void print_path(text *out, const json_path *at)
{
    if (!at->parent) {
        text_printf(out, "%s: ", at->key);
        return;
    }
    print_path(out, at->parent);
    if (!at->key)
        text_printf(out, "[%zu]", at->index);
    else
        text_printf(out, "%s%s", at->parent->parent ? "." : "", at->key);
}

static void print_found(text *out, const json_t *found)
{
    static const char *const plain[] = {
        [JSON_OBJECT] = "an object",
        [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",
        [JSON_NULL] = "null",
    };
    if (!found)
        text_puts(out, "nothing");
    else if (json_is_string(found))
        text_printf(out, "\"%.64s\"", json_string_value(found));
    else if (json_is_integer(found))
        text_printf(out, "%lld", (long long)json_integer_value(found));
    else if (json_is_real(found))
        text_printf(out, "%g", json_real_value(found));
    else if (json_is_array(found))
        text_printf(out, "an array of %zu", json_array_size(found));
    else
        text_puts(out, plain[json_typeof(found)]);
}

static int fail(const json_path *at, text *message)
{
    text line = TEXT_INIT;
    print_path(&line, at);
    /* What stands behind the file's name needs no second colon. */
    if (at->parent)
        text_puts(&line, ": ");
    text_puts(&line, text_string(message));
    tool_fail(EXIT_INPUT, "%s", text_string(&line));
    text_free(&line);
    text_free(message);
    return EXIT_INPUT;
}

int json_path_fail(const json_path *at, const json_t *found, const char *wanted, ...)
{
    text message = TEXT_INIT;
    va_list args;
    text_puts(&message, "found ");
    print_found(&message, found);
    text_puts(&message, ", wanted ");
    va_start(args, wanted);
    text_vprintf(&message, wanted, args);
    va_end(args);
    return fail(at, &message);
}

int json_path_say(const json_path *at, const char *words, ...)
{
    text message = TEXT_INIT;
    va_list args;
    va_start(args, words);
    text_vprintf(&message, words, args);
    va_end(args);
    return fail(at, &message);
}

static int fail_list(const json_path *at, const char *found, const char *const *words)
{
    text list = TEXT_INIT;
    for (size_t i = 0; words[i]; ++i)
        text_printf(&list, "%s%s", i ? ", " : "", words[i]);
    int code = json_path_say(at, "found %s, wanted one of: %s", found, text_string(&list));
    text_free(&list);
    return code;
}

/* ---- values --------------------------------------------------------------------------------- */

static int find_word(const char *const *words, const char *word)
{
    for (int i = 0; words[i]; ++i)
        if (strcmp(words[i], word) == 0)
            return i;
    return -1;
}

int json_get_object(const json_path *at, const json_t *found, const char *const *keys)
{
    if (!json_is_object(found))
        return json_path_fail(at, found, "an object");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)found, key, value)
    {
        if (find_word(keys, key) < 0) {
            text what = TEXT_INIT;
            text_printf(&what, "the key \"%.64s\"", key);
            int code = fail_list(at, text_string(&what), keys);
            text_free(&what);
            return code;
        }
    }
    return 0;
}

int json_get_array(const json_path *at, const json_t *found, size_t least, size_t most)
{
    size_t count = json_array_size(found);
    if (json_is_array(found) && count >= least && count <= most)
        return 0;
    if (least == most)
        return json_path_fail(at, found, "an array of %zu", least);
    return json_path_fail(at, found, "an array of %zu to %zu", least, most);
}

int json_get_integer(int64_t *out, const json_path *at, const json_t *found, int64_t least,
                     int64_t most)
{
    *out = json_integer_value(found);
    if (json_is_integer(found) && *out >= least && *out <= most)
        return 0;
    return json_path_fail(at, found, "an integer from %lld to %lld", (long long)least,
                          (long long)most);
}

int json_get_real(double *out, const json_path *at, const json_t *found)
{
    *out = json_number_value(found);
    return json_is_number(found) ? 0 : json_path_fail(at, found, "a number");
}

int json_get_number(number *out, const json_path *at, const json_t *found, number_type type)
{
    int64_t whole = 0;
    if (number_is_real(type)) {
        unsigned char stored[8];
        int code = json_get_real(&out->real, at, found);
        if (code != 0)
            return code;
        number_store(type, stored, *out);
        if (isinf(number_load(type, stored).real))
            return json_path_fail(at, found, "a number that %s can hold", number_type_names[type]);
        return 0;
    }
    int code = json_get_integer(&whole, at, found, number_least(type), number_most(type));
    out->whole = (uint64_t)whole;
    return code;
}

int json_get_string(const char **out, const json_path *at, const json_t *found)
{
    *out = json_string_value(found);
    if (*out && **out)
        return 0;
    return json_path_fail(at, found, "a string that is not empty");
}

int json_get_word(int *out, const json_path *at, const json_t *found, const char *const *words)
{
    text what = TEXT_INIT;
    *out = json_is_string(found) ? find_word(words, json_string_value(found)) : -1;
    if (*out >= 0)
        return 0;
    print_found(&what, found);
    int code = fail_list(at, text_string(&what), words);
    text_free(&what);
    return code;
}

static int digit(char c)
{
    const char *digits = "0123456789abcdef0123456789ABCDEF", *place = strchr(digits, c);
    return c && place ? (int)(place - digits) % 16 : -1;
}

int json_get_hex(unsigned char **out, size_t *count, const json_path *at, const json_t *found)
{
    *out = NULL;
    *count = json_string_length(found) / 2;
    const char *string = json_string_value(found);
    if (!string || !*string || json_string_length(found) % 2)
        return json_path_fail(at, found, "an even number of hexadecimal digits");
    unsigned char *bytes = malloc(*count);
    if (!bytes)
        return tool_fail(EXIT_DEVICE, "out of memory: %zu bytes", *count);
    for (size_t i = 0; i < *count; ++i) {
        int high = digit(string[2 * i]), low = digit(string[2 * i + 1]);
        if (high < 0 || low < 0) {
            free(bytes);
            return json_path_fail(at, found, "hexadecimal digits: byte %zu has another", i);
        }
        bytes[i] = (unsigned char)(16 * high + low);
    }
    *out = bytes;
    return 0;
}
