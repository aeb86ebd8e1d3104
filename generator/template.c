/*
 * template.c: a template becomes one Lua chunk, line for line: Lua lines as they are, text lines as
 * a call that appends them. So an error of Lua has the template's own file and line. Templates are
 * ours and are trusted; they get no io or os because they need none.
 */
#include "template.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct expansion {
    const template_file *files;
    template_output *out;
    int output_line;          /* the line that the next character of the output belongs to */
    const template_file *now; /* the template that is being expanded */
    text chunk;               /* Lua text of the template that is being translated */
    template_bind bind;
    const void *user;
    mmlp_status bind_status;
    bool memory_failed;
} expansion;

static expansion *expansion_of(lua_State *lua)
{
    return *(expansion **)lua_getextraspace(lua);
}

static int fail_memory(lua_State *lua)
{
    expansion_of(lua)->memory_failed = true;
    return luaL_error(lua, "out of memory");
}

/* ---- translation ----------------------------------------------------------------------------- */

static void quote(text *out, const char *chars, size_t length)
{
    text_puts(out, "\"");
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)chars[i];
        if (c == '"' || c == '\\')
            text_printf(out, "\\%c", c);
        else if (c < 32)
            text_printf(out, "\\%03u", c);
        else
            text_append(out, &chars[i], 1);
    }
    text_puts(out, "\"");
}

/* The length of the expression whose first character is `start`, up to its '}'; -1: none. */
static long expression_length(const char *start, const char *end)
{
    int depth = 0;
    for (const char *at = start; at < end; at++) {
        if (*at == '"' || *at == '\'') {
            char mark = *at++;
            while (at < end && *at != mark)
                at += *at == '\\' ? 2 : 1;
        } else if (*at == '{') {
            depth++;
        } else if (*at == '}' && depth-- == 0) {
            return at - start;
        }
    }
    return -1;
}

/* _line(number, "text", "expression", (expression), "text", ...) */
static bool translate_text(text *out, const char *line, size_t length, int number)
{
    const char *end = line + length;
    text_printf(out, "_line(%d, ", number);
    for (;;) {
        const char *mark = memmem(line, (size_t)(end - line), "${", 2);
        quote(out, line, (size_t)((mark ? mark : end) - line));
        if (!mark)
            break;
        long expression = expression_length(mark + 2, end);
        if (expression < 0)
            return false;
        text_puts(out, ", ");
        quote(out, mark + 2, (size_t)expression);
        text_printf(out, ", (%.*s), ", (int)expression, mark + 2);
        line = mark + 2 + expression + 1;
    }
    text_puts(out, ")");
    return true;
}

/* Returns the number of a line that is not well formed, else 0. */
static int translate(text *out, const template_file *file)
{
    const char *at = file->text, *end = file->text + file->bytes;
    for (int number = 1; at < end; number++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((newline ? newline : end) - at);
        size_t blanks = 0;
        while (blanks < length && (at[blanks] == ' ' || at[blanks] == '\t'))
            blanks++;
        if (length - blanks >= 3 && memcmp(at + blanks, "//%", 3) == 0)
            text_append(out, at + blanks + 3, length - blanks - 3);
        else if (!translate_text(out, at, length, number))
            return number;
        text_puts(out, "\n");
        at += length + (newline ? 1 : 0);
    }
    return 0;
}

/* ---- output ---------------------------------------------------------------------------------- */

/* Says where the output's current line comes from; lines that continue the last run add nothing. */
static bool map_line(expansion *e, int line)
{
    template_output *out = e->out;
    const template_run *last = out->run_count ? &out->runs[out->run_count - 1] : NULL;
    if (last && last->name == e->now->name &&
        line - last->line == e->output_line - last->first_line)
        return true;
    size_t bytes = ((size_t)out->run_count + 1) * sizeof *out->runs;
    template_run *grown = realloc(out->runs, bytes);
    if (!grown)
        return false;
    out->runs = grown;
    grown[out->run_count++] = (template_run){e->output_line, e->now->name, line};
    return true;
}

/* Appends a value; its further lines begin at the column of its `${` when that opened the line. */
static void append_value(lua_State *lua, int line, const char *value, size_t indent)
{
    expansion *e = expansion_of(lua);
    for (const char *newline; (newline = strchr(value, '\n')) != NULL; value = newline + 1) {
        text_append(&e->out->text, value, (size_t)(newline - value) + 1);
        e->output_line++;
        if (!map_line(e, line))
            fail_memory(lua);
        for (size_t i = 0; i < indent && newline[1] != '\n'; i++)
            text_puts(&e->out->text, " ");
    }
    text_puts(&e->out->text, value);
}

static int append_line(lua_State *lua)
{
    expansion *e = expansion_of(lua);
    int line = (int)luaL_checkinteger(lua, 1), count = lua_gettop(lua);
    size_t first_length;
    const char *first = luaL_checklstring(lua, 2, &first_length);
    bool opens = strspn(first, " \t") == first_length;
    bool alone = count == 5 && opens && *lua_tostring(lua, 5) == '\0';
    for (int i = 3; i + 1 <= count; i += 3) {
        if (lua_isnil(lua, i + 1))
            return luaL_error(lua, "'%s' is nil", lua_tostring(lua, i));
        if (!lua_isstring(lua, i + 1))
            return luaL_error(lua, "'%s' is a %s, wanted text or number", lua_tostring(lua, i),
                              luaL_typename(lua, i + 1));
    }
    if (alone && *lua_tostring(lua, 4) == '\0')
        return 0; /* a line that holds nothing but an empty value is none */
    if (!map_line(e, line))
        return fail_memory(lua);
    text_append(&e->out->text, first, first_length);
    for (int i = 3; i + 1 <= count; i += 3) {
        append_value(lua, line, lua_tostring(lua, i + 1), opens && i == 3 ? first_length : 0);
        text_puts(&e->out->text, lua_tostring(lua, i + 2));
    }
    text_puts(&e->out->text, "\n");
    e->output_line++;
    return 0;
}

/* ---- running --------------------------------------------------------------------------------- */

static int expand_file(lua_State *lua, const char *name)
{
    expansion *e = expansion_of(lua);
    const template_file *file = e->files, *outer = e->now;
    const char *chunk_name = lua_pushfstring(lua, "@templates/%s", name);
    while (file->name && strcmp(file->name, chunk_name + 1) != 0)
        file++;
    if (!file->name)
        return luaL_error(lua, "include \"%s\": there is no such template", name);
    text_clear(&e->chunk);
    int bad_line = translate(&e->chunk, file);
    if (bad_line)
        return luaL_error(lua, "%s:%d: '${' without '}'", file->name, bad_line);
    if (e->chunk.failed)
        return fail_memory(lua);
    if (luaL_loadbufferx(lua, text_string(&e->chunk), e->chunk.length, chunk_name, "t") != LUA_OK)
        return lua_error(lua);
    e->now = file;
    lua_call(lua, 0, 0);
    e->now = outer;
    lua_pop(lua, 1);
    return 0;
}

static int include(lua_State *lua)
{
    return expand_file(lua, luaL_checkstring(lua, 1));
}

static int unknown_name(lua_State *lua)
{
    return luaL_error(lua, "unknown name '%s'", luaL_tolstring(lua, 2, NULL));
}

static int run(lua_State *lua)
{
    static const struct {
        const char *name;
        lua_CFunction open;
    } libraries[] = {{LUA_TABLIBNAME, luaopen_table},
                     {LUA_STRLIBNAME, luaopen_string},
                     {LUA_MATHLIBNAME, luaopen_math}};
    static const char *const base[] = {"ipairs", "tostring", "type", "error", "assert", NULL};
    expansion *e = expansion_of(lua);
    lua_newtable(lua);
    luaL_requiref(lua, LUA_GNAME, luaopen_base, 0);
    for (const char *const *name = base; *name; name++) {
        lua_getfield(lua, -1, *name);
        lua_setfield(lua, -3, *name);
    }
    lua_pop(lua, 1);
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
        luaL_requiref(lua, libraries[i].name, libraries[i].open, 0);
        lua_setfield(lua, -2, libraries[i].name);
    }
    lua_pushcfunction(lua, append_line);
    lua_setfield(lua, -2, "_line");
    lua_pushcfunction(lua, include);
    lua_setfield(lua, -2, "include");
    e->bind_status = e->bind(lua, e->user);
    if (e->bind_status != MMLP_OK)
        return luaL_error(lua, "%s", mmlp_last_error());
    lua_newtable(lua);
    lua_pushcfunction(lua, unknown_name);
    lua_setfield(lua, -2, "__index");
    lua_setmetatable(lua, -2);
    lua_rawseti(lua, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    return expand_file(lua, lua_touserdata(lua, 1));
}

mmlp_status template_expand(template_output *out, const template_file *files, const char *name,
                            template_bind bind, const void *user)
{
    *out = (template_output){0};
    mmlp_status status = MMLP_OK;
    expansion e = {.files = files, .out = out, .output_line = 1, .bind = bind, .user = user};
    lua_State *lua = luaL_newstate();
    if (!lua)
        return mmlp_fail_memory(sizeof e, "a template");
    *(expansion **)lua_getextraspace(lua) = &e;
    lua_pushcfunction(lua, run);
    lua_pushlightuserdata(lua, (void *)(size_t)name);
    int error = lua_pcall(lua, 1, 0, 0);
    if (error == LUA_ERRMEM || e.memory_failed || out->text.failed)
        status = mmlp_fail_memory(out->text.length, "an expanded template");
    else if (error != LUA_OK && e.bind_status != MMLP_OK)
        status = e.bind_status;
    else if (error != LUA_OK)
        status = mmlp_fail(MMLP_ERROR_FORMAT, "%s",
                           lua_type(lua, -1) == LUA_TSTRING ? lua_tostring(lua, -1)
                                                            : luaL_typename(lua, -1));
    lua_close(lua);
    text_free(&e.chunk);
    return status;
}

void template_output_free(template_output *output)
{
    text_free(&output->text);
    free(output->runs);
    *output = (template_output){0};
}

void template_locate(const char **name, int *line, const template_output *output, int output_line)
{
    *name = NULL;
    *line = 0;
    for (int i = 0; i < output->run_count && output->runs[i].first_line <= output_line; i++) {
        *name = output->runs[i].name;
        *line = output->runs[i].line + output_line - output->runs[i].first_line;
    }
}
