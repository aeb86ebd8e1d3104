/*
 * ptxrun_manifest.c: reads a manifest (docs/ptxrun.md). All of it is read before anything runs, and
 * the first mistake ends the reading with one line.
 */
#include <base/file.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "ptxrun.h"
#include "tool.h"

static const char *const manifest_keys[] = {"ptx",    "cuda",    "target", "options",
                                            "device", "buffers", "runs",   NULL};
static const char *const buffer_keys[] = {"type", "count", "fill", NULL};
static const char *const run_keys[] = {"entry",        "grid",       "block",  "cluster",
                                       "shared_bytes", "parameters", "expect", NULL};
static const char *const expect_keys[] = {"result", "diagnostic", "stdout", "buffers", NULL};
/* The GPUs that the emulator knows. */
static const char *const device_words[] = {"a100", "a10", "l40s", "h100", "b200", "rtx5090", NULL};

static int out_of_memory(void)
{
    return tool_fail(EXIT_DEVICE, "out of memory: a manifest");
}

/* ---- names and files ------------------------------------------------------------------------ */

int buffer_find(int *out, const json_path *at, const json_t *name, const buffer *buffers,
                size_t count)
{
    const char *names[PTXRUN_MOST_BUFFERS + 1] = {NULL};
    for (size_t i = 0; i < count; ++i)
        names[i] = buffers[i].name;
    if (count == 0)
        return json_path_fail(at, name,
                              "the name of a buffer, but the manifest has no \"buffers\"");
    return json_get_word(out, at, name, names);
}

static int read_file(char **out, size_t *bytes, const json_path *at, const char *name,
                     const char *folder)
{
    char *path = NULL;
    *out = NULL;
    if (asprintf(&path, "%s%s", name[0] == '/' ? "" : folder, name) < 0)
        return out_of_memory();
    mmlp_status status = file_read(out, bytes, path);
    free(path);
    return status == MMLP_OK ? 0 : json_path_say(at, "%s", mmlp_last_error());
}

int ptxrun_read_file(char **out, size_t *bytes, const json_path *at, const json_t *name,
                     const char *folder)
{
    const char *string;
    *out = NULL;
    int code = json_get_string(&string, at, name);
    return code ? code : read_file(out, bytes, at, string, folder);
}

/* ---- the source ----------------------------------------------------------------------------- */

static int read_options(manifest *m, const json_path *at, const json_t *json)
{
    const json_t *found = json_object_get(json, "options");
    const json_path *place = JSON_KEY(at, "options");
    int code = found ? json_get_array(place, found, 0, 64) : 0;
    if (code != 0)
        return code;
    size_t count = json_array_size(found);
    m->options = calloc(count + 1, sizeof *m->options);
    if (!m->options)
        return out_of_memory();
    for (size_t i = 0; code == 0 && i < count; ++i)
        code = json_get_string(&m->options[i], JSON_INDEX(place, i), json_array_get(found, i));
    return code;
}

static int read_source(manifest *m, const json_path *at, const json_t *json)
{
    size_t bytes;
    const json_t *ptx = json_object_get(json, "ptx"), *cuda = json_object_get(json, "cuda");
    const json_t *target = json_object_get(json, "target");
    if (!ptx == !cuda)
        return json_path_say(at, "found %s, wanted one of \"ptx\": FILE and \"cuda\": FILE",
                             ptx ? "both" : "no source");
    if (ptx && (target || json_object_get(json, "options")))
        return json_path_say(at, "\"target\" and \"options\" go with \"cuda\", not with \"ptx\"");
    m->source = json_string_value(ptx ? ptx : cuda);
    if (ptx)
        return ptxrun_read_file(&m->ptx, &bytes, JSON_KEY(at, "ptx"), ptx, m->folder);
    int code = ptxrun_read_file(&m->cuda, &bytes, JSON_KEY(at, "cuda"), cuda, m->folder);
    if (code == 0 && target)
        code = json_get_string(&m->target, JSON_KEY(at, "target"), target);
    return code ? code : read_options(m, at, json);
}

/* ---- buffers -------------------------------------------------------------------------------- */

static int read_buffer(buffer *out, const json_path *at, const json_t *json, const char *folder)
{
    enum { MOST_BYTES_LOG2 = 36 };
    int type;
    int64_t count;
    int code = json_get_object(at, json, buffer_keys);
    if (code == 0)
        code = json_get_word(&type, JSON_KEY(at, "type"), json_object_get(json, "type"),
                             number_type_names);
    if (code != 0)
        return code;
    out->type = (number_type)type;
    int64_t most = ((int64_t)1 << MOST_BYTES_LOG2) / (int64_t)number_bytes(out->type);
    code = json_get_integer(&count, JSON_KEY(at, "count"), json_object_get(json, "count"), 1, most);
    if (code != 0)
        return code;
    out->count = (size_t)count;
    out->bytes = out->count * number_bytes(out->type);
    return fill_read(&out->fill, JSON_KEY(at, "fill"), json_object_get(json, "fill"), out, folder);
}

static int read_buffers(manifest *m, const json_path *at, const json_t *json)
{
    const char *name;
    json_t *value;
    size_t count = json_object_size(json);
    if (!json)
        return 0;
    if (!json_is_object(json) || count == 0 || count > PTXRUN_MOST_BUFFERS)
        return json_path_fail(at, json, "an object of 1 to %d buffers", PTXRUN_MOST_BUFFERS);
    m->buffers = calloc(count, sizeof *m->buffers);
    if (!m->buffers)
        return out_of_memory();
    json_object_foreach((json_t *)json, name, value)
    {
        buffer *b = &m->buffers[m->buffer_count++];
        b->name = name;
        int code = read_buffer(b, JSON_KEY(at, name), value, m->folder);
        if (code != 0)
            return code;
    }
    return 0;
}

/* ---- runs ----------------------------------------------------------------------------------- */

/* One to three sizes, the others 1. */
static int read_shape(unsigned out[3], const json_path *at, const json_t *json, const char *key,
                      int64_t least)
{
    const json_t *found = json_object_get(json, key);
    const json_path *place = JSON_KEY(at, key);
    out[0] = out[1] = out[2] = 1;
    int code = json_get_array(place, found, 1, 3);
    for (size_t i = 0; code == 0 && i < json_array_size(found); ++i) {
        int64_t size;
        code =
            json_get_integer(&size, JSON_INDEX(place, i), json_array_get(found, i), least, INT_MAX);
        out[i] = (unsigned)size;
    }
    return code;
}

static int read_parameters(run *r, const json_path *at, const json_t *json, const manifest *m)
{
    int code = json ? json_get_array(at, json, 0, PTXRUN_MOST_PARAMETERS) : 0;
    size_t count = json_array_size(json);
    if (code != 0 || count == 0)
        return code;
    r->parameters = calloc(count, sizeof *r->parameters);
    if (!r->parameters)
        return out_of_memory();
    for (size_t i = 0; code == 0 && i < count; ++i)
        code = parameter_read(&r->parameters[r->parameter_count++], JSON_INDEX(at, i),
                              json_array_get(json, i), m->buffers, m->buffer_count);
    return code;
}

/* Parts of a text, each of which must be in it. */
static int read_parts(const json_t **out, const json_path *at, const json_t *json)
{
    const char *part;
    int code = json ? json_get_array(at, json, 1, 64) : 0;
    for (size_t i = 0; code == 0 && i < json_array_size(json); ++i)
        code = json_get_string(&part, JSON_INDEX(at, i), json_array_get(json, i));
    *out = json;
    return code;
}

static int read_expected_buffers(run *r, const json_path *at, const json_t *json, const manifest *m)
{
    int code = json ? json_get_array(at, json, 1, PTXRUN_MOST_BUFFERS) : 0;
    size_t count = json_array_size(json);
    if (code != 0 || count == 0)
        return code;
    r->expected = calloc(count, sizeof *r->expected);
    if (!r->expected)
        return out_of_memory();
    for (size_t i = 0; code == 0 && i < count; ++i)
        code =
            expected_buffer_read(&r->expected[r->expected_count++], JSON_INDEX(at, i),
                                 json_array_get(json, i), m->buffers, m->buffer_count, m->folder);
    return code;
}

static int read_expect(run *r, const json_path *at, const json_t *json, const manifest *m)
{
    r->result = "CUDA_SUCCESS";
    if (!json)
        return 0;
    int code = json_get_object(at, json, expect_keys);
    const json_t *result = json_object_get(json, "result");
    if (code == 0 && result)
        code = json_get_string(&r->result, JSON_KEY(at, "result"), result);
    if (code == 0 && strncmp(r->result, "CUDA_", 5) != 0)
        code = json_path_fail(JSON_KEY(at, "result"), result,
                              "the name of a CUresult, as CUDA_ERROR_ILLEGAL_ADDRESS");
    if (code == 0)
        code = read_parts(&r->diagnostic, JSON_KEY(at, "diagnostic"),
                          json_object_get(json, "diagnostic"));
    if (code == 0)
        code = read_parts(&r->printed, JSON_KEY(at, "stdout"), json_object_get(json, "stdout"));
    if (code == 0)
        code =
            read_expected_buffers(r, JSON_KEY(at, "buffers"), json_object_get(json, "buffers"), m);
    if (code != 0)
        return code;
    bool succeeds = strcmp(r->result, "CUDA_SUCCESS") == 0;
    if (!succeeds && r->expected_count > 0)
        return json_path_say(at, "found \"buffers\" with a result that is an error, wanted one of "
                                 "the two: memory is lost after an error");
    if (succeeds && r->diagnostic)
        return json_path_say(at, "found \"diagnostic\" without a \"result\" that is an error");
    return 0;
}

static int read_run(run *r, const json_path *at, const json_t *json, const manifest *m)
{
    enum { MOST_SHARED = 1 << 20 };
    int64_t shared = 0;
    const json_t *shared_bytes = json_object_get(json, "shared_bytes");
    int code = json_get_object(at, json, run_keys);
    if (code == 0)
        code = json_get_string(&r->entry, JSON_KEY(at, "entry"), json_object_get(json, "entry"));
    if (code == 0)
        code = read_shape(r->grid, at, json, "grid", 0);
    if (code == 0)
        code = read_shape(r->block, at, json, "block", 0);
    if (code == 0 && json_object_get(json, "cluster"))
        code = read_shape(r->cluster, at, json, "cluster", 1);
    if (code == 0 && shared_bytes)
        code =
            json_get_integer(&shared, JSON_KEY(at, "shared_bytes"), shared_bytes, 0, MOST_SHARED);
    r->shared_bytes = (unsigned)shared;
    if (code == 0)
        code =
            read_parameters(r, JSON_KEY(at, "parameters"), json_object_get(json, "parameters"), m);
    if (code == 0)
        code = read_expect(r, JSON_KEY(at, "expect"), json_object_get(json, "expect"), m);
    return code;
}

static int read_runs(manifest *m, const json_path *at, const json_t *json)
{
    enum { MOST_RUNS = 1000 };
    int code = json_get_array(at, json, 1, MOST_RUNS);
    if (code != 0)
        return code;
    m->runs = calloc(json_array_size(json), sizeof *m->runs);
    if (!m->runs)
        return out_of_memory();
    for (size_t i = 0; code == 0 && i < json_array_size(json); ++i)
        code = read_run(&m->runs[m->run_count++], JSON_INDEX(at, i), json_array_get(json, i), m);
    return code;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static int load_document(manifest *m, const char *path)
{
    char *file = NULL;
    size_t bytes;
    json_error_t error;
    if (file_read(&file, &bytes, path) != MMLP_OK)
        return tool_fail(EXIT_INPUT, "%s", mmlp_last_error());
    m->document = json_loadb(file, bytes, JSON_REJECT_DUPLICATES, &error);
    free(file);
    if (!m->document)
        return tool_fail(EXIT_INPUT, "%s:%d:%d: is not JSON: %s", path, error.line, error.column,
                         error.text);
    return 0;
}

int ptxrun_read(manifest *out, const char *path)
{
    *out = (manifest){.root = {NULL, path, 0}};
    const char *slash = strrchr(path, '/');
    out->folder = strndup(path, slash ? (size_t)(slash - path) + 1 : 0);
    if (!out->folder)
        return out_of_memory();
    int code = load_document(out, path), word = 0;
    const json_path *root = &out->root;
    const json_t *json = out->document;
    if (code == 0)
        code = json_get_object(root, json, manifest_keys);
    if (code == 0)
        code = read_source(out, root, json);
    if (code == 0 && json_object_get(json, "device")) {
        code = json_get_word(&word, JSON_KEY(root, "device"), json_object_get(json, "device"),
                             device_words);
        out->device = code ? NULL : device_words[word];
    }
    if (code == 0)
        code = read_buffers(out, JSON_KEY(root, "buffers"), json_object_get(json, "buffers"));
    if (code == 0)
        code = read_runs(out, JSON_KEY(root, "runs"), json_object_get(json, "runs"));
    return code;
}

static void run_free(run *r)
{
    for (size_t i = 0; i < r->parameter_count; ++i)
        parameter_free(&r->parameters[i]);
    for (size_t i = 0; i < r->expected_count; ++i)
        expected_buffer_free(&r->expected[i]);
    free(r->parameters);
    free(r->expected);
}

void ptxrun_free(manifest *m)
{
    for (size_t i = 0; i < m->run_count; ++i)
        run_free(&m->runs[i]);
    for (size_t i = 0; i < m->buffer_count; ++i)
        fill_free(&m->buffers[i].fill);
    free(m->runs);
    free(m->buffers);
    free(m->options);
    free(m->ptx);
    free(m->cuda);
    free(m->folder);
    json_decref(m->document);
    *m = (manifest){0};
}
