/*
 * spec_sandbox.c: what a spec may use of Lua, and how much. An allow-list of globals; no patterns,
 * since they run unbounded in C; nothing that prints an address or depends on a hash order.
 */
#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

#include "spec_loader.h"
#include "suggest.h"

enum { HOOK_INSTRUCTIONS = 100 };

/* ---- limits ---------------------------------------------------------------------------------- */

static void *allocate(void *user, void *block, size_t old_size, size_t new_size)
{
    spec_loader *loader = user;
    size_t old = block ? old_size : 0; /* for a new block Lua passes its type there */
    if (new_size == 0) {
        free(block);
        loader->bytes -= old;
        return NULL;
    }
    if (new_size > old) {
        loader->allocations++;
        long long fail = loader->options->fail_allocation;
        if (fail > 0 && loader->allocations >= fail) {
            loader->memory_failed = true;
            return NULL;
        }
        if (loader->bytes - old + new_size > SPEC_MEMORY_LIMIT) {
            loader->limit_hit = true;
            return NULL;
        }
    }
    void *grown = realloc(block, new_size);
    if (!grown && new_size <= old)
        return block; /* Lua relies on shrinking never failing */
    if (grown)
        loader->bytes = loader->bytes - old + new_size;
    else
        loader->memory_failed = true;
    return grown;
}

static void count_instructions(lua_State *lua, lua_Debug *record)
{
    (void)record;
    spec_loader *loader = loader_of(lua);
    spec_place nowhere = {0, 0, 0};
    loader->instructions += HOOK_INSTRUCTIONS;
    if (loader->instructions > SPEC_INSTRUCTION_LIMIT)
        loader_mistake(lua, nowhere, "spec ran more than %d instructions", SPEC_INSTRUCTION_LIMIT);
    else if (clock() - loader->started > (clock_t)SPEC_SECONDS_LIMIT * CLOCKS_PER_SEC)
        loader_mistake(lua, nowhere, "spec ran longer than %d seconds", SPEC_SECONDS_LIMIT);
    else
        return;
    loader_raise(lua);
}

lua_State *sandbox_open(spec_loader *loader)
{
    lua_State *lua = lua_newstate(allocate, loader);
    if (!lua)
        return NULL;
    *(spec_loader **)lua_getextraspace(lua) = loader;
    lua_sethook(lua, count_instructions, LUA_MASKCOUNT, HOOK_INSTRUCTIONS);
    return lua;
}

/* ---- replacements for functions that are not bounded or not repeatable ----------------------- */

static int sandbox_tostring(lua_State *lua)
{
    luaL_checkany(lua, 1);
    switch (lua_type(lua, 1)) {
    case LUA_TSTRING:
    case LUA_TNUMBER:
    case LUA_TBOOLEAN:
    case LUA_TNIL:
        luaL_tolstring(lua, 1, NULL);
        break;
    default:
        lua_pushstring(lua, tables_type_name(lua, 1));
    }
    return 1;
}

static int sandbox_type(lua_State *lua)
{
    luaL_checkany(lua, 1);
    lua_pushstring(lua, luaL_typename(lua, 1));
    return 1;
}

/* string.format(format, ...): the original is upvalue 1. */
static int sandbox_format(lua_State *lua)
{
    const char *format = luaL_checkstring(lua, 1);
    for (const char *at = format; (at = strchr(at, '%')) != NULL;) {
        at++;
        at += strspn(at, "-+ #0123456789.");
        if (*at == 'p')
            return luaL_error(lua, "string.format: %%p is not allowed: it prints an address");
        if (*at)
            at++;
    }
    int count = lua_gettop(lua);
    for (int i = 2; i <= count; i++) {
        int type = lua_type(lua, i);
        if (type != LUA_TSTRING && type != LUA_TNUMBER && type != LUA_TBOOLEAN &&
            type != LUA_TNIL) {
            lua_pushstring(lua, tables_type_name(lua, i));
            lua_replace(lua, i);
        }
    }
    lua_pushvalue(lua, lua_upvalueindex(1));
    lua_insert(lua, 1);
    lua_call(lua, count, 1);
    return 1;
}

/* string.find(text, wanted [, first [, plain]]): always plain, and linear in the text. */
static int sandbox_find(lua_State *lua)
{
    size_t length, wanted_length;
    const char *string = luaL_checklstring(lua, 1, &length);
    const char *wanted = luaL_checklstring(lua, 2, &wanted_length);
    lua_Integer first = luaL_optinteger(lua, 3, 1);
    if (!lua_toboolean(lua, 4) && strpbrk(wanted, "^$*+?.([%-"))
        return luaL_error(lua, "string.find: patterns are not allowed; pass true as 4th argument");
    if (first < 0)
        first = first < -(lua_Integer)length ? 1 : (lua_Integer)length + first + 1;
    if (first < 1)
        first = 1;
    const char *found = NULL;
    if ((lua_Unsigned)first <= length + 1)
        found = memmem(string + first - 1, length - (size_t)(first - 1), wanted, wanted_length);
    if (!found) {
        lua_pushnil(lua);
        return 1;
    }
    lua_pushinteger(lua, found - string + 1);
    lua_pushinteger(lua, found - string + (lua_Integer)wanted_length);
    return 2;
}

/* ---- pairs in sorted order ------------------------------------------------------------------- */

typedef struct sort_key {
    int type;
    lua_Number number;
    const char *string;
    size_t length;
    lua_Integer position; /* in the list of keys */
} sort_key;

static int compare_keys(const void *left, const void *right)
{
    const sort_key *a = left, *b = right;
    if (a->type != b->type)
        return a->type < b->type ? -1 : 1;
    if (a->type != LUA_TSTRING)
        return (a->number > b->number) - (a->number < b->number);
    size_t shorter = a->length < b->length ? a->length : b->length;
    int order = memcmp(a->string, b->string, shorter);
    return order ? order : (a->length > b->length) - (a->length < b->length);
}

/* Upvalues: the sorted keys, the next position. */
static int next_pair(lua_State *lua)
{
    lua_Integer position = lua_tointeger(lua, lua_upvalueindex(2));
    lua_pushinteger(lua, position + 1);
    lua_replace(lua, lua_upvalueindex(2));
    if (lua_geti(lua, lua_upvalueindex(1), position) == LUA_TNIL)
        return 1;
    lua_pushvalue(lua, -1);
    lua_rawget(lua, 1);
    return 2;
}

static int sandbox_pairs(lua_State *lua)
{
    luaL_checktype(lua, 1, LUA_TTABLE);
    lua_settop(lua, 1);
    lua_newtable(lua); /* 2: keys as they come */
    lua_Integer count = 0;
    for (lua_pushnil(lua); lua_next(lua, 1); lua_pop(lua, 1)) {
        int type = lua_type(lua, -2);
        if (type != LUA_TNUMBER && type != LUA_TSTRING && type != LUA_TBOOLEAN)
            return luaL_error(lua, "pairs: a key of type %s has no order",
                              tables_type_name(lua, -2));
        lua_pushvalue(lua, -2);
        lua_rawseti(lua, 2, ++count);
    }
    sort_key *keys = lua_newuserdatauv(lua, (size_t)count * sizeof *keys, 0); /* 3 */
    for (lua_Integer i = 0; i < count; i++) {
        lua_rawgeti(lua, 2, i + 1);
        keys[i] = (sort_key){lua_type(lua, -1), 0, NULL, 0, i + 1};
        if (keys[i].type == LUA_TSTRING)
            keys[i].string = lua_tolstring(lua, -1, &keys[i].length);
        else
            keys[i].number =
                keys[i].type == LUA_TNUMBER ? lua_tonumber(lua, -1) : lua_toboolean(lua, -1);
        lua_pop(lua, 1); /* the table keeps the string alive */
    }
    if (count > 0)
        qsort(keys, (size_t)count, sizeof *keys, compare_keys);
    lua_createtable(lua, 0, 0); /* 4: sorted */
    for (lua_Integer i = 0; i < count; i++) {
        lua_rawgeti(lua, 2, keys[i].position);
        lua_rawseti(lua, 4, i + 1);
    }
    lua_pushinteger(lua, 1);
    lua_pushcclosure(lua, next_pair, 2);
    lua_pushvalue(lua, 1);
    lua_pushnil(lua);
    return 3;
}

/* ---- include --------------------------------------------------------------------------------- */

static int sandbox_include(lua_State *lua)
{
    const char *name = luaL_checkstring(lua, 1);
    if (strchr(name, '/') || strcmp(name, "..") == 0 || strcmp(name, ".") == 0 || !*name)
        return luaL_error(lua, "include \"%s\": only a file beside the spec, named without folder",
                          name);
    const char *spec = loader_of(lua)->files[0].path;
    const char *slash = strrchr(spec, '/');
    lua_settop(lua, 1);
    if (slash)
        lua_pushlstring(lua, spec, (size_t)(slash - spec) + 1);
    else
        lua_pushliteral(lua, "");
    lua_pushstring(lua, name);
    lua_concat(lua, 2);
    return loader_run_file(lua, lua_tostring(lua, 2));
}

/* ---- globals --------------------------------------------------------------------------------- */

static const char *const base_functions[] = {"ipairs", "error", "assert", NULL};
static const char *const math_functions[] = {
    "abs", "ceil", "cos",        "deg",        "exp", "floor", "fmod", "huge",
    "log", "max",  "maxinteger", "mininteger", "min", "modf",  "pi",   "rad",
    "sin", "sqrt", "tan",        "tointeger",  "ult", "type",  NULL};
static const char *const string_functions[] = {"byte", "char",    "len",   "lower", "rep",
                                               "sub",  "reverse", "upper", NULL};
static const char *const table_functions[] = {"concat", "insert", "pack", "remove",
                                              "sort",   "unpack", NULL};

/* Copies the named members of the table at the top into the table below it, and pops the source. */
static void copy_members(lua_State *lua, const char *const *names)
{
    for (; *names; names++) {
        lua_getfield(lua, -1, *names);
        lua_setfield(lua, -3, *names);
    }
    lua_pop(lua, 1);
}

static void add_library(lua_State *lua, const char *name, lua_CFunction open,
                        const char *const *functions)
{
    lua_newtable(lua);
    luaL_requiref(lua, name, open, 0);
    copy_members(lua, functions);
    lua_setglobal(lua, name);
}

void sandbox_add_lua(lua_State *lua)
{
    lua_newtable(lua);
    lua_pushglobaltable(lua);
    luaL_requiref(lua, LUA_GNAME, luaopen_base, 0); /* fills the globals: they are emptied below */
    lua_pop(lua, 1);
    copy_members(lua, base_functions);
    lua_pushcfunction(lua, sandbox_tostring);
    lua_setfield(lua, -2, "tostring");
    lua_pushcfunction(lua, sandbox_type);
    lua_setfield(lua, -2, "type");
    lua_pushcfunction(lua, sandbox_pairs);
    lua_setfield(lua, -2, "pairs");
    lua_pushcfunction(lua, sandbox_include);
    lua_setfield(lua, -2, "include");
    lua_rawseti(lua, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);

    add_library(lua, "math", luaopen_math, math_functions);
    add_library(lua, "table", luaopen_table, table_functions);
    add_library(lua, "string", luaopen_string, string_functions);

    /* ("x"):rep(2) looks functions up in the metatable of strings. */
    lua_getglobal(lua, "string");
    luaL_getsubtable(lua, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(lua, -1, "string");
    lua_getfield(lua, -1, "format");
    lua_pushcclosure(lua, sandbox_format, 1);
    lua_setfield(lua, -4, "format");
    lua_pop(lua, 2);
    lua_pushcfunction(lua, sandbox_find);
    lua_setfield(lua, -2, "find");
    lua_pushliteral(lua, "");
    lua_getmetatable(lua, -1);
    lua_pushvalue(lua, -3);
    lua_setfield(lua, -2, "__index");
    lua_pop(lua, 3);
}

static int unknown_global(lua_State *lua)
{
    if (lua_type(lua, 2) != LUA_TSTRING)
        return 0;
    suggestion near = {.wanted = lua_tostring(lua, 2)};
    lua_pushglobaltable(lua);
    int globals = lua_gettop(lua);
    /* The nearest in the order of the alphabet, whatever the order of the table. */
    for (lua_pushnil(lua); lua_next(lua, globals); lua_pop(lua, 1)) {
        suggestion one = {.wanted = near.wanted};
        const char *name = lua_tostring(lua, -2);
        suggest_consider(&one, name);
        if (one.best && (!near.best || one.distance < near.distance ||
                         (one.distance == near.distance && strcmp(name, near.best) < 0)))
            near = one;
    }
    if (near.best)
        return luaL_error(lua, "unknown name '%s' (did you mean '%s'?)", near.wanted, near.best);
    return luaL_error(lua, "unknown name '%s'", near.wanted);
}

static int assign_global(lua_State *lua)
{
    const char *name = lua_type(lua, 2) == LUA_TSTRING ? lua_tostring(lua, 2) : "?";
    return luaL_error(lua, "assignment to global '%s'; write 'local %s'", name, name);
}

void sandbox_seal(lua_State *lua)
{
    lua_pushglobaltable(lua);
    lua_newtable(lua);
    lua_pushcfunction(lua, unknown_global);
    lua_setfield(lua, -2, "__index");
    lua_pushcfunction(lua, assign_global);
    lua_setfield(lua, -2, "__newindex");
    lua_setmetatable(lua, -2);
    lua_pop(lua, 1);
}
