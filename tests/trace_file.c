/* trace_file.c: see trace_file.h. */
#include "trace_file.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "temporary_folder.h"

char *trace_folder, trace_path[512];

void trace_begin(const char *name)
{
    trace_folder = temporary_folder_make();
    snprintf(trace_path, sizeof trace_path, "%s/%s", trace_folder, name);
    cr_assert_eq(setenv("MMLP_EMULATOR_TRACE", trace_path, 1), 0);
}

void trace_end(json_t *trace)
{
    json_decref(trace);
    temporary_folder_remove(trace_folder);
}

json_t *trace_read(const char *file)
{
    json_error_t error;
    json_t *trace = json_load_file(file, JSON_REJECT_DUPLICATES, &error);
    cr_assert(json_is_array(trace), "%s:%d: %s", file, error.line, error.text);
    return trace;
}

/* NULL: it has none. */
static const json_t *number_of(const json_t *event, const char *key)
{
    const json_t *number = json_object_get(event, key);
    return number ? number : json_object_get(json_object_get(event, "args"), key);
}

json_t *trace_where(const json_t *trace, const char *key, double value)
{
    size_t i;
    json_t *event, *found = json_array();
    json_array_foreach(trace, i, event)
    {
        const json_t *number = number_of(event, key);
        if (json_is_number(number) && json_number_value(number) == value)
            json_array_append(found, event);
    }
    return found;
}

static bool has_text(const json_t *event, const char *key, const char *wanted)
{
    const char *found = json_string_value(json_object_get(event, key));
    return found && strcmp(found, wanted) == 0;
}

/* The nth, or NULL when there are fewer. */
static const json_t *find_event(const json_t *trace, const char *phase, const char *name,
                                size_t nth)
{
    size_t i;
    const json_t *event;
    json_array_foreach(trace, i, event)
    {
        if (has_text(event, "ph", phase) && has_text(event, "name", name) && nth-- == 0)
            return event;
    }
    return NULL;
}

size_t trace_count(const json_t *trace, const char *phase, const char *name)
{
    size_t count = 0;
    while (find_event(trace, phase, name, count))
        count++;
    return count;
}

const json_t *trace_event(const json_t *trace, const char *phase, const char *name, size_t nth)
{
    const json_t *event = find_event(trace, phase, name, nth);
    cr_assert(event, "the trace has no event %zu of phase %s with the name %s", nth, phase, name);
    return event;
}

const json_t *trace_ran(const json_t *trace, const json_t *enqueued)
{
    size_t i;
    const json_t *event, *ran = NULL;
    double number = trace_number_in(enqueued, "op");
    json_array_foreach(trace, i, event)
    {
        if (has_text(event, "ph", "X") && trace_number_in(event, "op") == number)
            ran = event;
    }
    cr_assert(ran, "operation %.0f did not run", number);
    return ran;
}

double trace_number_in(const json_t *event, const char *key)
{
    const json_t *number = number_of(event, key);
    cr_assert(json_is_number(number), "%s has no number %s",
              json_string_value(json_object_get(event, "name")), key);
    return json_number_value(number);
}

double trace_begun(const json_t *ran)
{
    return trace_number_in(ran, "ts");
}

double trace_ended(const json_t *ran)
{
    return trace_number_in(ran, "ts") + trace_number_in(ran, "dur");
}
