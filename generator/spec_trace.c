/*
 * spec_trace.c: activations. The Lua function is called once on a symbol; every operation on
 * symbols adds a node to the loader's program. Called by the sandbox's globals while a spec runs.
 */
#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "expr.h"
#include "spec_loader.h"
#include "suggest.h"

static const char symbol_metatable[] = "megamlp.symbol";
static const double fp32_largest = 3.4028234663852886e38;

typedef struct symbol {
    int node;
    int serial; /* of the trace it belongs to */
} symbol;

/* A status of C code becomes a Lua error; only memory can fail here. */
static void require(lua_State *lua, mmlp_status status)
{
    if (status != MMLP_OK)
        loader_raise_memory(lua);
}

static int push_symbol(lua_State *lua, int node)
{
    symbol *s = lua_newuserdatauv(lua, sizeof *s, 0);
    *s = (symbol){node, loader_of(lua)->trace_serial};
    luaL_setmetatable(lua, symbol_metatable);
    return 1;
}

/* The node of an argument: a symbol of this trace, or a number. */
static int node_of(lua_State *lua, int index, const char *operation)
{
    spec_loader *loader = loader_of(lua);
    int node;
    const symbol *s = luaL_testudata(lua, index, symbol_metatable);
    if (s) {
        if (!loader->tracing || s->serial != loader->trace_serial)
            luaL_error(lua, "%s: the symbol of another activation", operation);
        return s->node;
    }
    if (lua_type(lua, index) != LUA_TNUMBER)
        luaL_error(lua, "%s: expected expression or number, got %s", operation,
                   tables_type_name(lua, index));
    double value = lua_tonumber(lua, index);
    if (!isfinite(value) || fabs(value) > fp32_largest)
        luaL_error(lua, "%s: the constant %f is not a finite fp32 number", operation, value);
    require(lua, program_constant(&node, &loader->trace, value));
    return node;
}

/* Applies an operation to the arguments at 1..arity: numbers give a number, else a symbol. */
static int apply(lua_State *lua, program_op op, const char *name)
{
    int arity = program_op_arity(op);
    bool numbers = true;
    for (int i = 1; i <= arity; i++)
        numbers = numbers && lua_type(lua, i) == LUA_TNUMBER;
    if (numbers) {
        program_node nodes[4] = {{op, {0, 1, 2}, 0, -1}};
        double values[4];
        program fold = {.nodes = nodes, .count = arity + 1};
        for (int i = 0; i < arity; i++)
            nodes[i] = (program_node){PROGRAM_constant, {-1, -1, -1}, lua_tonumber(lua, i + 1), -1};
        nodes[arity] = (program_node){op, {-1, -1, -1}, 0, -1};
        for (int i = 0; i < arity; i++)
            nodes[arity].args[i] = i;
        program_evaluate(&fold, NULL, values);
        lua_pushnumber(lua, values[arity]);
        return 1;
    }
    int args[3] = {-1, -1, -1}, node;
    for (int i = 0; i < arity; i++)
        args[i] = node_of(lua, i + 1, name);
    require(lua, program_add(&node, &loader_of(lua)->trace, op, args[0], args[1], args[2]));
    return push_symbol(lua, node);
}

/* Whether the operation is written as a function: exp, min, ..., and not as an operator. */
static bool is_function(program_op op)
{
    switch (op) {
    case PROGRAM_constant:
    case PROGRAM_input:
    case PROGRAM_add:
    case PROGRAM_sub:
    case PROGRAM_mul:
    case PROGRAM_div:
    case PROGRAM_neg:
        return false;
    default:
        return true;
    }
}

/* Upvalue 1: the operation, which is called by its name. */
static int call_function(lua_State *lua)
{
    program_op op = (program_op)lua_tointeger(lua, lua_upvalueindex(1));
    int wanted = program_op_arity(op), given = lua_gettop(lua);
    if (given != wanted)
        return luaL_error(lua, "%s: expected %d argument%s, got %d", program_op_name(op), wanted,
                          wanted == 1 ? "" : "s", given);
    return apply(lua, op, program_op_name(op));
}

static const struct {
    const char *event, *sign;
    program_op op;
} arithmetic[] = {
    {"__add", "+", PROGRAM_add}, {"__sub", "-", PROGRAM_sub}, {"__mul", "*", PROGRAM_mul},
    {"__div", "/", PROGRAM_div}, {"__unm", "-", PROGRAM_neg},
};

static int do_arithmetic(lua_State *lua)
{
    lua_Integer row = lua_tointeger(lua, lua_upvalueindex(1));
    return apply(lua, arithmetic[row].op, arithmetic[row].sign);
}

static const struct {
    const char *event, *message;
} refused[] = {
    {"__lt", "a comparison of expressions: use where(greater(a, b), yes, no)"},
    {"__le", "a comparison of expressions: use where(greater(a, b), yes, no)"},
    {"__eq", "a comparison of expressions: use where(greater(a, b), yes, no)"},
    {"__pow", "'^' on an expression: write x * x"},
    {"__mod", "'%' on an expression is not supported"},
    {"__idiv", "'//' on an expression is not supported"},
    {"__concat", "'..' on an expression is not supported"},
    {"__len", "'#' on an expression is not supported"},
    {"__index", "an expression has no fields"},
    {"__newindex", "an expression has no fields"},
    {"__call", "an expression is not a function"},
};

static int refuse(lua_State *lua)
{
    return luaL_error(lua, "%s", lua_tostring(lua, lua_upvalueindex(1)));
}

mmlp_status formula_inline(int *out, program *into, const program *formula, int result, int x,
                           int up)
{
    int inputs[2] = {-1, -1};
    for (int i = 0; i < formula->input_count; i++)
        inputs[i] = strcmp(formula->inputs[i], "up") == 0 ? up : x;
    return expr_inline(out, into, formula, result, inputs);
}

/* ---- activation(name, function) -------------------------------------------------------------- */

/* Whether the function at the top has two parameters: gate and up. */
static bool takes_up(lua_State *lua)
{
    lua_Debug record;
    lua_pushvalue(lua, -1);
    return lua_getinfo(lua, ">u", &record) && record.nparams == 2;
}

/* Calls the function at the top on a symbol, or on one for each half, and pops it; the trace then
 * holds the program. */
static int trace_function(lua_State *lua, const char *name, bool both_halves)
{
    spec_loader *loader = loader_of(lua);
    int x, up;
    if (loader->tracing)
        luaL_error(lua, "activation \"%s\" is made inside an activation", name);
    program_free(&loader->trace);
    loader->trace_serial++;
    loader->tracing = true;
    require(lua, program_input(&x, &loader->trace, "x"));
    push_symbol(lua, x);
    if (both_halves) {
        require(lua, program_input(&up, &loader->trace, "up"));
        push_symbol(lua, up);
    }
    lua_call(lua, both_halves ? 2 : 1, 1);
    if (lua_type(lua, -1) != LUA_TNUMBER && !luaL_testudata(lua, -1, symbol_metatable))
        luaL_error(lua, "activation \"%s\": the function returned %s, wanted an expression of x",
                   name, tables_type_name(lua, -1));
    int result = node_of(lua, -1, name);
    loader->tracing = false;
    lua_pop(lua, 1);
    return result;
}

/* Traces the function at the top of the stack and replaces it with an activation object. */
static void add_activation(lua_State *lua, const char *name, spec_activation identity)
{
    spec_loader *loader = loader_of(lua);
    bool both_halves = takes_up(lua);
    int result = trace_function(lua, name, both_halves);
    size_t bytes = ((size_t)loader->activation_count + 1) * sizeof *loader->activations;
    spec_traced *grown = realloc(loader->activations, bytes);
    if (!grown)
        loader_raise_memory(lua);
    loader->activations = grown;
    spec_traced *added = &grown[loader->activation_count];
    *added = (spec_traced){
        .name = strdup(name), .identity = identity, .takes_up = both_halves, .result = result};
    int number = loader->activation_count++;
    if (!added->name)
        loader_raise_memory(lua);
    require(lua, expr_simplify(&added->formula, &loader->trace, &added->result, 1, NULL));
    tables_push_object(lua, SPEC_OBJECT_ACTIVATION)->as.activation = number;
}

static int make_activation(lua_State *lua)
{
    const char *name = luaL_checkstring(lua, 1);
    luaL_checktype(lua, 2, LUA_TFUNCTION);
    lua_settop(lua, 2);
    if (!*name || strlen(name) > 63 ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") !=
            strlen(name) ||
        (*name >= '0' && *name <= '9'))
        return luaL_error(lua, "activation: the name \"%s\" is not made of letters, digits and _",
                          name);
    add_activation(lua, name, SPEC_ACTIVATION_custom);
    return 1;
}

/* F.silu(x) inside an activation inlines it. Metamethod of activation objects. */
static int call_activation(lua_State *lua)
{
    spec_loader *loader = loader_of(lua);
    const spec_object *object = tables_object(lua, 1, SPEC_OBJECT_ACTIVATION);
    if (!object || !loader->tracing)
        return luaL_error(lua,
                          "an activation can be called only inside activation(name, function)");
    const spec_traced *called = &loader->activations[object->as.activation];
    int x = node_of(lua, 2, called->name), node;
    int up = called->takes_up ? node_of(lua, 3, called->name) : -1;
    require(lua, formula_inline(&node, &loader->trace, &called->formula, called->result, x, up));
    return push_symbol(lua, node);
}

static int unknown_activation(lua_State *lua)
{
    const char *name = luaL_checkstring(lua, 2);
    suggestion near = {.wanted = lua_pushfstring(lua, "F.%s", name)};
#define ACTIVATION(identity, known, body) suggest_consider(&near, known);
#include "activations.def"
    if (near.best)
        return luaL_error(lua, "unknown activation '%s' (did you mean '%s'?)", near.wanted,
                          near.best);
    return luaL_error(lua, "unknown activation '%s'", near.wanted);
}

/* ---- globals --------------------------------------------------------------------------------- */

void trace_add_functions(lua_State *lua)
{
    luaL_newmetatable(lua, symbol_metatable);
    lua_pushstring(lua, "expression"); /* what Lua's own messages call it */
    lua_setfield(lua, -2, "__name");
    for (size_t i = 0; i < sizeof arithmetic / sizeof *arithmetic; i++) {
        lua_pushinteger(lua, (lua_Integer)i);
        lua_pushcclosure(lua, do_arithmetic, 1);
        lua_setfield(lua, -2, arithmetic[i].event);
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        lua_pushstring(lua, refused[i].message);
        lua_pushcclosure(lua, refuse, 1);
        lua_setfield(lua, -2, refused[i].event);
    }
    lua_pop(lua, 1);
    for (int op = 0; op < PROGRAM_OP_COUNT; op++) {
        if (!is_function((program_op)op))
            continue;
        lua_pushinteger(lua, op);
        lua_pushcclosure(lua, call_function, 1);
        lua_setglobal(lua, program_op_name((program_op)op));
    }
    lua_pushcfunction(lua, make_activation);
    lua_setglobal(lua, "activation");
}

void trace_add_activations(lua_State *lua)
{
    static const struct {
        const char *name, *identity, *body;
    } shipped[] = {
#define ACTIVATION(identity, name, body) {name, #identity, "local x = ... " body},
#include "activations.def"
    };
    lua_newtable(lua); /* F */
    for (size_t i = 0; i < sizeof shipped / sizeof *shipped; i++) {
        const char *name = shipped[i].name;
        if (luaL_loadbufferx(lua, shipped[i].body, strlen(shipped[i].body), "=activations", "t") !=
            LUA_OK)
            lua_error(lua);
        add_activation(lua, *name ? name : shipped[i].identity, (spec_activation)i);
        if (strncmp(name, "F.", 2) == 0)
            lua_setfield(lua, -2, name + 2);
        else if (*name)
            lua_setglobal(lua, name);
        else
            lua_pop(lua, 1);
    }
    lua_newtable(lua);
    lua_pushcfunction(lua, unknown_activation);
    lua_setfield(lua, -2, "__index");
    lua_setmetatable(lua, -2);
    lua_setglobal(lua, "F");

    tables_push_object(lua, SPEC_OBJECT_ACTIVATION);
    lua_getmetatable(lua, -1);
    lua_pushcfunction(lua, call_activation);
    lua_setfield(lua, -2, "__call");
    lua_pop(lua, 2);
}
