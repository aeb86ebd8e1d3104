/*
 * spec.c: spec_load: runs the spec's Lua text in the sandbox, turns what went wrong into lines for
 * a person, and copies what the ModuleSpec says into plain C. The state is gone when it returns.
 */
#include "spec.h"

#include <ctype.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "expr.h"
#include "spec_loader.h"

/* The error value that stands for "see the loader's mistakes". */
static char mistakes_mark;

/* Chunks are named "=\1" and the number of their file: short, so that Lua never abbreviates it, and
 * not to be confused with anything in a message. */
static const char chunk_mark = '\1';

spec_loader *loader_of(lua_State *lua)
{
    return *(spec_loader **)lua_getextraspace(lua);
}

/* ---- mistakes -------------------------------------------------------------------------------- */

spec_place loader_caller(lua_State *lua)
{
    lua_Debug record;
    spec_place nowhere = {-1, 0, 0};
    if (!lua_getstack(lua, 1, &record) || !lua_getinfo(lua, "Sl", &record) ||
        record.currentline < 0 || record.source[0] != '=' || record.source[1] != chunk_mark)
        return nowhere;
    return (spec_place){atoi(record.source + 2), record.currentline, 0};
}

int loader_raise_memory(lua_State *lua)
{
    loader_of(lua)->memory_failed = true;
    return luaL_error(lua, "out of memory");
}

void loader_mistake(lua_State *lua, spec_place place, const char *format, ...)
{
    spec_loader *loader = loader_of(lua);
    size_t bytes = ((size_t)loader->mistake_count + 1) * sizeof *loader->mistakes;
    spec_mistake *grown = realloc(loader->mistakes, bytes);
    if (!grown)
        loader_raise_memory(lua);
    loader->mistakes = grown;
    char *line = NULL;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&line, format, args);
    va_end(args);
    if (length < 0)
        loader_raise_memory(lua);
    grown[loader->mistake_count++] = (spec_mistake){place, line};
}

void loader_raise(lua_State *lua)
{
    if (loader_of(lua)->mistake_count == 0)
        return;
    lua_pushlightuserdata(lua, &mistakes_mark);
    lua_error(lua);
}

static int compare_mistakes(const void *left, const void *right)
{
    const spec_mistake *a = left, *b = right;
    if (a->place.file != b->place.file)
        return a->place.file < b->place.file ? -1 : 1;
    if (a->place.line != b->place.line)
        return a->place.line < b->place.line ? -1 : 1;
    if (a->place.column != b->place.column)
        return a->place.column < b->place.column ? -1 : 1;
    return strcmp(a->text, b->text);
}

static void print_mistakes(text *out, spec_loader *loader)
{
    qsort(loader->mistakes, (size_t)loader->mistake_count, sizeof *loader->mistakes,
          compare_mistakes);
    for (int i = 0; i < loader->mistake_count; i++) {
        const spec_mistake *m = &loader->mistakes[i];
        text_printf(out, "%s%s:", i ? "\n" : "",
                    loader->files[m->place.file < 0 ? 0 : m->place.file].path);
        if (m->place.line > 0)
            text_printf(out, "%d:", m->place.line);
        if (m->place.line > 0 && m->place.column > 0)
            text_printf(out, "%d:", m->place.column);
        text_printf(out, " %s", m->text);
    }
}

/* Lua's text with the marks of chunks replaced by the paths of their files. */
static void print_with_paths(text *out, const spec_loader *loader, const char *string)
{
    while (*string) {
        size_t plain = strcspn(string, "\1");
        text_append(out, string, plain);
        string += plain;
        if (*string && isdigit((unsigned char)string[1])) {
            int file = (int)strtol(string + 1, (char **)&string, 10);
            text_puts(out, file < loader->file_count ? loader->files[file].path : "?");
        } else if (*string) {
            string++;
        }
    }
}

/* What the error value at the top of the stack says. Not under lua_pcall: nothing here may allocate
 * in Lua. */
static mmlp_status fail_with_error(spec_loader *loader)
{
    lua_State *lua = loader->lua;
    mmlp_status status;
    text message = TEXT_INIT;
    if (loader->memory_failed) {
        status =
            mmlp_fail(MMLP_ERROR_MEMORY, "out of memory while reading %s", loader->files[0].path);
        goto cleanup;
    }
    if (lua_touserdata(lua, -1) == &mistakes_mark) {
        print_mistakes(&message, loader);
    } else if (loader->limit_hit) {
        text_printf(&message, "%s: spec used more than %d MiB of memory", loader->files[0].path,
                    SPEC_MEMORY_LIMIT >> 20);
    } else if (lua_type(lua, -1) == LUA_TSTRING) {
        const char *string = lua_tostring(lua, -1);
        if (string[0] != chunk_mark)
            text_printf(&message, "%s: ", loader->files[0].path);
        print_with_paths(&message, loader, string);
    } else {
        text_printf(&message, "%s: error was called with a %s, wanted a string",
                    loader->files[0].path, luaL_typename(lua, -1));
    }
    if (loader->traceback.length > 0) {
        text_puts(&message, "\n");
        print_with_paths(&message, loader, text_string(&loader->traceback));
    }
    status = message.failed ? mmlp_fail_memory(message.length, "a message")
                            : mmlp_fail(MMLP_ERROR_SPEC, "%s", text_string(&message));

cleanup:
    text_free(&message);
    return status;
}

/* Message handler: keeps the traceback when it was asked for. */
static int keep_traceback(lua_State *lua)
{
    spec_loader *loader = loader_of(lua);
    if (loader->options->traceback && loader->traceback.length == 0) {
        luaL_traceback(lua, lua, NULL, 1);
        text_puts(&loader->traceback, lua_tostring(lua, -1));
        lua_pop(lua, 1);
    }
    return 1;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* file_read without the byte order mark that some editors put first. */
static mmlp_status read_text(char **out, size_t *bytes, const char *path)
{
    static const char mark[] = "\xef\xbb\xbf";
    const size_t length = sizeof mark - 1;
    MMLP_TRY(file_read(out, bytes, path));
    if (strncmp(*out, mark, length) == 0) {
        *bytes -= length;
        memmove(*out, *out + length, *bytes + 1);
    }
    return MMLP_OK;
}

/* Takes ownership of the file's text; false when out of memory. */
static bool add_file(spec_loader *loader, const char *path, char *content)
{
    size_t bytes = ((size_t)loader->file_count + 1) * sizeof *loader->files;
    spec_file *grown = realloc(loader->files, bytes);
    char *copy = strdup(path);
    if (grown)
        loader->files = grown;
    if (!grown || !copy) {
        free(copy);
        free(content);
        return false;
    }
    grown[loader->file_count++] = (spec_file){copy, content, false};
    return true;
}

/* Runs file `number`; what it returns is left on the stack. */
static int run_file(lua_State *lua, int number, size_t bytes)
{
    spec_loader *loader = loader_of(lua);
    int base = lua_gettop(lua);
    const char *chunk = lua_pushfstring(lua, "=%c%d", chunk_mark, number);
    if (luaL_loadbufferx(lua, loader->files[number].text, bytes, chunk, "t") != LUA_OK)
        return lua_error(lua);
    loader->files[number].running = true;
    lua_call(lua, 0, LUA_MULTRET);
    loader->files[number].running = false; /* files may have moved */
    lua_remove(lua, base + 1);
    return lua_gettop(lua) - base;
}

int loader_run_file(lua_State *lua, const char *path)
{
    spec_loader *loader = loader_of(lua);
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    char *content;
    size_t bytes;
    for (int i = 0; i < loader->file_count; i++)
        if (loader->files[i].running && strcmp(loader->files[i].path, path) == 0)
            return luaL_error(lua, "include \"%s\": the file includes itself", name);
    if (read_text(&content, &bytes, path) != MMLP_OK)
        return luaL_error(lua, "include \"%s\": %s", name, mmlp_last_error());
    if (!add_file(loader, path, content))
        return loader_raise_memory(lua);
    return run_file(lua, loader->file_count - 1, bytes);
}

/* ---- the spec -------------------------------------------------------------------------------- */

static int run_spec(lua_State *lua)
{
    size_t bytes = (size_t)lua_tointeger(lua, 1);
    lua_settop(lua, 0);
    sandbox_add_lua(lua);
    tables_add_constructors(lua);
    trace_add_functions(lua);
    trace_add_activations(lua);
    sandbox_seal(lua);
    int results = run_file(lua, 0, bytes);
    lua_settop(lua, results > 0 ? 1 : 0);
    loader_of(lua)->returned = results == 1 ? tables_object(lua, 1, SPEC_OBJECT_MLP) : NULL;
    if (!loader_of(lua)->returned) {
        spec_place place = {0, 0, 0};
        if (results == 0)
            loader_mistake(lua, place, "spec returned nothing, wanted return ModuleSpec { ... }");
        else if (results == 1)
            loader_mistake(lua, place, "spec returned %s, wanted a ModuleSpec of MLP",
                           tables_object(lua, 1, SPEC_OBJECT_LINEAR) ? "the ModuleSpec of a linear"
                                                                     : tables_type_name(lua, 1));
        else
            loader_mistake(lua, place, "spec returned %d values, wanted one ModuleSpec", results);
        loader_raise(lua);
    }
    return 1;
}

/* The file's name without folder and extension: kernels are named after it. */
static mmlp_status name_of_spec(char **out, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *start = slash ? slash + 1 : path;
    size_t length = strlen(start);
    if (length > 4 && strcmp(start + length - 4, ".lua") == 0)
        length -= 4;
    bool good = length > 0 && length < 64 && !isdigit((unsigned char)*start);
    for (size_t i = 0; i < length; i++)
        good = good && ((isalnum((unsigned char)start[i]) && (unsigned char)start[i] < 128) ||
                        start[i] == '_');
    if (!good)
        return mmlp_fail(MMLP_ERROR_SPEC,
                         "%s: the file's name names the kernels: wanted letters, digits and _ (at "
                         "most 63, no digit first)",
                         path);
    *out = strndup(start, length);
    return *out ? MMLP_OK : mmlp_fail_memory(length + 1, "the name of a spec");
}

static mmlp_status copy_spec(module_spec *out, const spec_loader *loader,
                             const spec_mlp_object *object)
{
    out->config = object->config.config;
    out->mlp = object->mlp;
    out->linear_fc1 = object->submodules.linear_fc1.linear;
    out->linear_fc2 = object->submodules.linear_fc2.linear;
    const spec_traced *named = &loader->activations[out->config.activation_func];
    out->activation = named->identity;
    out->activation_name = strdup(named->name);
    if (!out->activation_name)
        return mmlp_fail_memory(strlen(named->name) + 1, "the name of an activation");
    const spec_traced *computed = named;
    if (named->identity == SPEC_ACTIVATION_gelu &&
        (out->config.bias_activation_fusion || out->config.use_te_activation_func))
        computed = &loader->activations[SPEC_ACTIVATION_fused_gelu];
    out->activation_takes_up = computed->takes_up;
    int x, up = -1;
    MMLP_TRY(program_input(&x, &out->formula, "x"));
    if (computed->takes_up)
        MMLP_TRY(program_input(&up, &out->formula, "up"));
    MMLP_TRY(formula_inline(&out->formula_result, &out->formula, &computed->formula,
                            computed->result, x, up));
    rules_warn(&out->warnings, out, object->submodules.activation >= 0);
    return out->warnings.failed ? mmlp_fail_memory(256, "warnings") : MMLP_OK;
}

static void free_loader(spec_loader *loader)
{
    if (loader->lua)
        lua_close(loader->lua);
    for (int i = 0; i < loader->file_count; i++) {
        free(loader->files[i].path);
        free(loader->files[i].text);
    }
    for (int i = 0; i < loader->mistake_count; i++)
        free(loader->mistakes[i].text);
    for (int i = 0; i < loader->activation_count; i++) {
        free(loader->activations[i].name);
        program_free(&loader->activations[i].formula);
    }
    free(loader->files);
    free(loader->mistakes);
    free(loader->activations);
    program_free(&loader->trace);
    text_free(&loader->traceback);
}

mmlp_status spec_load(module_spec *out, const char *path, const spec_options *options)
{
    static const spec_options no_options;
    *out = (module_spec){0};
    mmlp_status status = MMLP_OK;
    spec_loader loader = {.options = options ? options : &no_options, .started = clock()};
    module_spec spec = {0};
    char *content;
    size_t bytes;

    MMLP_TRY(read_text(&content, &bytes, path));
    if (!add_file(&loader, path, content)) {
        status = mmlp_fail_memory(bytes, path);
        goto cleanup;
    }
    MMLP_TRY_CLEANUP(name_of_spec(&spec.name, path));
    loader.lua = sandbox_open(&loader);
    if (!loader.lua) {
        status = mmlp_fail(MMLP_ERROR_MEMORY, "out of memory while reading %s", path);
        goto cleanup;
    }
    lua_pushcfunction(loader.lua, keep_traceback);
    lua_pushcfunction(loader.lua, run_spec);
    lua_pushinteger(loader.lua, (lua_Integer)bytes);
    if (lua_pcall(loader.lua, 1, 1, 1) != LUA_OK) {
        status = fail_with_error(&loader);
        goto cleanup;
    }
    MMLP_TRY_CLEANUP(copy_spec(&spec, &loader, &loader.returned->as.mlp));
    *out = spec;
    spec = (module_spec){0};

cleanup:
    spec_free(&spec);
    free_loader(&loader);
    return status;
}

void spec_free(module_spec *spec)
{
    free(spec->name);
    free(spec->activation_name);
    program_free(&spec->formula);
    text_free(&spec->warnings);
    *spec = (module_spec){0};
}

const char *spec_dtype_name(spec_dtype dtype)
{
    static const char *const names[] = {"bf16", "fp16", "fp32"};
    return names[dtype];
}

int64_t spec_dtype_bytes(spec_dtype dtype)
{
    return dtype == SPEC_DTYPE_fp32 ? 4 : 2;
}
