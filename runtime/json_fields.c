/* json_fields.c: JSON objects into structs, by tables, with messages that name place and key. */
#include "json_fields.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

static void describe(text *out, const json_t *found)
{
    if (!found) {
        text_puts(out, "nothing");
        return;
    }
    switch (json_typeof(found)) {
    case JSON_OBJECT:
        text_puts(out, "an object");
        return;
    case JSON_ARRAY:
        text_printf(out, "an array of %zu", json_array_size(found));
        return;
    case JSON_STRING:
        text_printf(out, "\"%.64s\"", json_string_value(found));
        return;
    case JSON_INTEGER:
        text_printf(out, "%lld", (long long)json_integer_value(found));
        return;
    case JSON_REAL:
        text_printf(out, "%g", json_real_value(found));
        return;
    case JSON_TRUE:
    case JSON_FALSE:
        text_puts(out, json_is_true(found) ? "true" : "false");
        return;
    case JSON_NULL:
        text_puts(out, "null");
        return;
    }
}

static void name_place(text *out, const json_place *place, const char *key)
{
    text_printf(out, "%s: ", place->document);
    if (place->array[0] && place->index >= 0)
        text_printf(out, "%s[%d].", place->array, place->index);
    else if (place->array[0])
        text_printf(out, "%s.", place->array);
    text_puts(out, key);
}

mmlp_status json_fail_field(const json_place *place, const char *key, const json_t *found,
                            const char *wanted)
{
    text where = TEXT_INIT, what = TEXT_INIT;
    name_place(&where, place, key);
    describe(&what, found);
    mmlp_status status = mmlp_fail(MMLP_ERROR_FORMAT, "%s: found %s, wanted %s",
                                   text_string(&where), text_string(&what), wanted);
    text_free(&where);
    text_free(&what);
    return status;
}

static mmlp_status fail_range(const json_place *place, const json_field *field, const json_t *found,
                              const char *kind)
{
    char wanted[128];
    snprintf(wanted, sizeof wanted, "%s %lld to %lld", kind, (long long)field->min,
             (long long)field->max);
    return json_fail_field(place, field->key, found, wanted);
}

static mmlp_status fail_word(const json_place *place, const json_field *field, const json_t *found)
{
    text wanted = TEXT_INIT;
    for (int i = 0; field->words[i]; i++)
        text_printf(&wanted, "%s\"%s\"", i ? " or " : "", field->words[i]);
    mmlp_status status = json_fail_field(place, field->key, found, text_string(&wanted));
    text_free(&wanted);
    return status;
}

static mmlp_status read_field(void *out, const json_t *found, const json_field *field,
                              const json_place *place)
{
    char *at = (char *)out + field->offset;
    switch (field->type) {
    case JSON_FIELD_INTEGER: {
        int64_t value = json_is_integer(found) ? json_integer_value(found) : 0;
        if (!json_is_integer(found) || value < field->min || value > field->max)
            return fail_range(place, field, found, "an integer from");
        memcpy(at, &value, sizeof value);
        return MMLP_OK;
    }
    case JSON_FIELD_NUMBER: {
        double value = json_is_number(found) ? json_number_value(found) : -1;
        if (!(value >= 0) || isinf(value))
            return json_fail_field(place, field->key, found, "a number of at least 0");
        memcpy(at, &value, sizeof value);
        return MMLP_OK;
    }
    case JSON_FIELD_REAL: {
        double value = json_number_value(found); /* 0 for what is none */
        if (!json_is_number(found) || !isfinite(value))
            return json_fail_field(place, field->key, found, "a finite number");
        memcpy(at, &value, sizeof value);
        return MMLP_OK;
    }
    case JSON_FIELD_FLAG: {
        bool value = json_is_true(found);
        if (!json_is_boolean(found))
            return json_fail_field(place, field->key, found, "true or false");
        memcpy(at, &value, sizeof value);
        return MMLP_OK;
    }
    case JSON_FIELD_STRING: {
        const char *value = json_string_value(found);
        if (!value || !value[0])
            return json_fail_field(place, field->key, found, "a string that is not empty");
        memcpy(at, &value, sizeof value);
        return MMLP_OK;
    }
    case JSON_FIELD_WORD: {
        const char *value = json_string_value(found);
        for (int i = 0; value && field->words[i]; i++) {
            if (strcmp(field->words[i], value) == 0) {
                memcpy(at, &i, sizeof i);
                return MMLP_OK;
            }
        }
        return fail_word(place, field, found);
    }
    case JSON_FIELD_OBJECT:
        if (!json_is_object(found))
            return json_fail_field(place, field->key, found, "an object");
        memcpy(at, &found, sizeof found);
        return MMLP_OK;
    case JSON_FIELD_ARRAY: {
        int64_t size = json_is_array(found) ? (int64_t)json_array_size(found) : -1;
        if (size < field->min || size > field->max)
            return fail_range(place, field, found, "an array of");
        memcpy(at, &found, sizeof found);
        return MMLP_OK;
    }
    }
    return MMLP_OK;
}

mmlp_status json_fields_read(void *out, const json_t *object, const json_field *fields,
                             size_t count, const json_place *place)
{
    for (size_t i = 0; i < count; i++)
        MMLP_TRY(read_field(out, json_object_get(object, fields[i].key), &fields[i], place));
    if (json_object_size(object) == count)
        return MMLP_OK;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < count; i++)
            known = known || strcmp(fields[i].key, key) == 0;
        if (!known)
            return json_fail_field(place, key, value, "no such key");
    }
    return MMLP_OK;
}
