/*
 * spec_tables.c: the constructors of the spec language. They are C functions, so that a mistake has
 * the line of the call that made it; each checks its whole table against spec_fields.def before it
 * stops.
 */
#include <lauxlib.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "spec_loader.h"
#include "spec_source.h"
#include "suggest.h"

static const char object_metatable[] = "megamlp.object";

/* ---- objects --------------------------------------------------------------------------------- */

spec_object *tables_push_object(lua_State *lua, spec_object_kind kind)
{
    spec_object *object = lua_newuserdatauv(lua, sizeof *object, 0);
    memset(object, 0, sizeof *object);
    object->kind = kind;
    luaL_setmetatable(lua, object_metatable);
    return object;
}

spec_object *tables_object(lua_State *lua, int index, spec_object_kind kind)
{
    spec_object *object = luaL_testudata(lua, index, object_metatable);
    return object && object->kind == kind ? object : NULL;
}

static const char *const module_names[] = {"MLP", "ColumnParallelLinear", "RowParallelLinear"};

const char *tables_type_name(lua_State *lua, int index)
{
    const spec_object *object = luaL_testudata(lua, index, object_metatable);
    if (!object)
        return lua_type(lua, index) == LUA_TUSERDATA ? "expression" : luaL_typename(lua, index);
    switch (object->kind) {
    case SPEC_OBJECT_MODULE:
        return module_names[object->as.module];
    case SPEC_OBJECT_LINEAR:
    case SPEC_OBJECT_MLP:
        return "ModuleSpec";
    case SPEC_OBJECT_CONFIG:
        return "TransformerConfig";
    case SPEC_OBJECT_SUBMODULES:
        return "MLPSubmodules";
    case SPEC_OBJECT_ACTIVATION:
        return "activation";
    case SPEC_OBJECT_INIT:
        return "init";
    }
    return "userdata";
}

/* ---- the registry ---------------------------------------------------------------------------- */

typedef enum field_type {
    FIELD_integer,
    FIELD_number,
    FIELD_boolean,
    FIELD_dtype,
    FIELD_activation,
    FIELD_optional_integer,
    FIELD_optional_number,
    FIELD_init,
    FIELD_string,
    FIELD_config,
    FIELD_linear,
    FIELD_module,
    FIELD_table,
    FIELD_submodules
} field_type;

/* The word after "expected". */
static const char *const type_words[] = {"integer",
                                         "number",
                                         "boolean",
                                         "string",
                                         "activation",
                                         "integer",
                                         "number",
                                         "init.normal, init.zeros or init.uniform",
                                         "string",
                                         "TransformerConfig",
                                         "ColumnParallelLinear or RowParallelLinear",
                                         "MLP, ColumnParallelLinear or RowParallelLinear",
                                         "table",
                                         "MLPSubmodules"};

static const char *const dtype_names[] = {"bf16", "fp16", "fp32"};

typedef struct field {
    const char *name;
    field_type type;
    size_t offset;        /* of the member in the table's struct */
    const char *fallback; /* text of the default; "required" */
    long long least;      /* of integers */
    const char *help;
} field;

#define ROW(structure, type, name, text, least, help)                                              \
    {#name, FIELD_##type, offsetof(structure, name), text, least, help},
static const field config_fields[] = {
#define CONFIG_FIELD(type, name, value, text, least, help)                                         \
    ROW(spec_config, type, name, text, least, help)
#include "spec_fields.def"
};
static const field mlp_fields[] = {
#define MLP_FIELD(type, name, value, text, least, help) ROW(spec_mlp, type, name, text, least, help)
#include "spec_fields.def"
};
static const field linear_fields[] = {
#define LINEAR_FIELD(type, name, value, text, least, help)                                         \
    ROW(spec_linear, type, name, text, least, help)
#include "spec_fields.def"
};
static const field submodules_fields[] = {
#define SUBMODULES_FIELD(type, name, text, help) {#name, FIELD_##type, 0, text, 0, help},
#include "spec_fields.def"
};
static const field module_fields[] = {
#define MODULE_FIELD(type, name, text, help) {#name, FIELD_##type, 0, text, 0, help},
#include "spec_fields.def"
};

static const spec_config config_defaults = {
#define CONFIG_FIELD(type, name, value, text, least, help) .name = value,
#include "spec_fields.def"
};
static const spec_mlp mlp_defaults = {
#define MLP_FIELD(type, name, value, text, least, help) .name = value,
#include "spec_fields.def"
};
static const spec_linear linear_defaults = {
#define LINEAR_FIELD(type, name, value, text, least, help) .name = value,
#include "spec_fields.def"
};

typedef struct table_kind {
    const char *name;   /* in messages */
    const char *callee; /* in the text */
    const char *inside; /* the key whose braces hold the fields; NULL: the call's own */
    const field *fields;
    int count;
} table_kind;

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))
static const table_kind config_table = {"TransformerConfig", "TransformerConfig", NULL,
                                        config_fields, COUNT(config_fields)};
static const table_kind submodules_table = {"MLPSubmodules", "MLPSubmodules", NULL,
                                            submodules_fields, COUNT(submodules_fields)};
static const table_kind module_table = {"ModuleSpec", "ModuleSpec", NULL, module_fields,
                                        COUNT(module_fields)};
static const table_kind mlp_table = {"ModuleSpec.params", "ModuleSpec", "params", mlp_fields,
                                     COUNT(mlp_fields)};
static const table_kind linear_table = {"ModuleSpec.params", "ModuleSpec", "params", linear_fields,
                                        COUNT(linear_fields)};
_Static_assert(COUNT(config_fields) <= SPEC_FIELDS_MAX, "places for every field");

/* ---- checking one table ---------------------------------------------------------------------- */

static spec_place find_place(lua_State *lua, const table_kind *kind, spec_place call,
                             const char *key)
{
    spec_place place = call;
    if (call.file >= 0 &&
        source_find_key(&place.line, &place.column, loader_of(lua)->files[call.file].text,
                        call.line, kind->callee, kind->inside, key))
        return place;
    return call;
}

/* "got ..." for a value of the wrong type: a number of the wrong kind is shown. */
static const char *describe(lua_State *lua, int index)
{
    if (lua_type(lua, index) == LUA_TNUMBER) {
        lua_pushvalue(lua, index);
        return lua_tostring(lua, -1); /* stays on the stack, which the caller resets */
    }
    return tables_type_name(lua, index);
}

static bool read_integer(lua_State *lua, int64_t *out, const table_kind *kind, const field *f,
                         spec_place place)
{
    int exact = 0;
    lua_Integer value = lua_type(lua, -1) == LUA_TNUMBER ? lua_tointegerx(lua, -1, &exact) : 0;
    enum { LARGEST = 1 << 24 };
    if (!exact)
        return false;
    if (value < f->least)
        loader_mistake(lua, place, "%s.%s: %lld is less than %lld", kind->name, f->name,
                       (long long)value, f->least);
    else if (value > LARGEST)
        loader_mistake(lua, place, "%s.%s: %lld is more than %d", kind->name, f->name,
                       (long long)value, LARGEST);
    else
        *out = value;
    return true;
}

static void read_dtype(lua_State *lua, spec_dtype *out, const table_kind *kind, const field *f,
                       spec_place place)
{
    const char *value = lua_tostring(lua, -1);
    suggestion near = {.wanted = value};
    for (int i = 0; i < COUNT(dtype_names); i++) {
        if (strcmp(value, dtype_names[i]) == 0) {
            *out = (spec_dtype)i;
            return;
        }
        suggest_consider(&near, dtype_names[i]);
    }
    loader_mistake(lua, place, "%s.%s: \"%s\" is not one of \"bf16\", \"fp16\", \"fp32\"%s%s%s",
                   kind->name, f->name, value, near.best ? " (did you mean \"" : "",
                   near.best ? near.best : "", near.best ? "\"?)" : "");
}

/* Stores the value at the top of the stack; false when its type is wrong. */
static bool read_value(lua_State *lua, void *member, const table_kind *kind, const field *f,
                       spec_place place)
{
    const spec_object *object = NULL;
    int type = lua_type(lua, -1);
    switch (f->type) {
    case FIELD_integer:
        return read_integer(lua, member, kind, f, place);
    case FIELD_optional_integer:
        ((spec_optional_integer *)member)->given = true;
        return read_integer(lua, &((spec_optional_integer *)member)->value, kind, f, place);
    case FIELD_number:
        if (type == LUA_TNUMBER)
            *(double *)member = lua_tonumber(lua, -1);
        return type == LUA_TNUMBER;
    case FIELD_optional_number:
        if (type == LUA_TNUMBER)
            *(spec_optional_number *)member = (spec_optional_number){true, lua_tonumber(lua, -1)};
        return type == LUA_TNUMBER;
    case FIELD_boolean:
        if (type == LUA_TBOOLEAN)
            *(bool *)member = lua_toboolean(lua, -1);
        return type == LUA_TBOOLEAN;
    case FIELD_dtype:
        if (type == LUA_TSTRING)
            read_dtype(lua, member, kind, f, place);
        return type == LUA_TSTRING;
    case FIELD_string:
        return type == LUA_TSTRING;
    case FIELD_table:
        return type == LUA_TTABLE;
    case FIELD_activation:
        object = tables_object(lua, -1, SPEC_OBJECT_ACTIVATION);
        if (object && member)
            *(int *)member = object->as.activation;
        return object;
    case FIELD_init:
        object = tables_object(lua, -1, SPEC_OBJECT_INIT);
        if (object)
            *(spec_init *)member = object->as.init;
        return object;
    case FIELD_config:
        return tables_object(lua, -1, SPEC_OBJECT_CONFIG);
    case FIELD_submodules:
        return tables_object(lua, -1, SPEC_OBJECT_SUBMODULES);
    case FIELD_module:
        return tables_object(lua, -1, SPEC_OBJECT_MODULE);
    case FIELD_linear:
        return tables_object(lua, -1, SPEC_OBJECT_MODULE) ||
               tables_object(lua, -1, SPEC_OBJECT_LINEAR);
    }
    return false;
}

static const char *advice(lua_State *lua, const field *f)
{
    int type = lua_type(lua, -1);
    if (f->type == FIELD_activation && type == LUA_TFUNCTION)
        return "; write activation(\"name\", function)";
    if (f->type == FIELD_activation && type == LUA_TSTRING)
        return "; write F.gelu, without quotes";
    return "";
}

/* Messages for keys that are no field of the table. */
static void refuse_key(lua_State *lua, const table_kind *kind, spec_place place, const char *key)
{
    static const struct {
        const char *name, *why;
    } unsupported[] = {
#define UNSUPPORTED_FIELD(name, why) {#name, why},
#include "spec_fields.def"
    };
    static const char *const unrelated[] = {
#define UNRELATED_FIELD(name) #name,
#include "spec_fields.def"
    };
    static const char *const owned[] = {
#define OWNED_FIELD(name) #name,
#include "spec_fields.def"
    };
    for (int i = 0; kind == &config_table && i < COUNT(unsupported); i++) {
        if (strcmp(key, unsupported[i].name) != 0)
            continue;
        if (lua_type(lua, -1) != LUA_TBOOLEAN || lua_toboolean(lua, -1))
            loader_mistake(lua, place, "not supported yet: TransformerConfig.%s (%s)", key,
                           unsupported[i].why);
        return;
    }
    for (int i = 0; kind == &config_table && i < COUNT(unrelated); i++)
        if (strcmp(key, unrelated[i]) == 0)
            return;
    for (int i = 0; kind == &linear_table && i < COUNT(owned); i++) {
        if (strcmp(key, owned[i]) == 0) {
            loader_mistake(lua, place, "%s.%s comes from the MLP; remove it here", kind->name, key);
            return;
        }
    }
    suggestion near = {.wanted = key};
    for (int i = 0; i < kind->count; i++)
        suggest_consider(&near, kind->fields[i].name);
    loader_mistake(lua, place, "unknown field '%s' in %s%s%s%s", key, kind->name,
                   near.best ? " (did you mean '" : "", near.best ? near.best : "",
                   near.best ? "'?)" : "");
}

/*
 * Checks the table at `index` against its kind and stores it at `members` (NULL: fields are objects
 * that the caller fetches). places[i], when not NULL, is where field i stands, or the call.
 */
static void check_table(lua_State *lua, int index, const table_kind *kind, void *members,
                        spec_place call, spec_place *places)
{
    for (int i = 0; i < kind->count; i++) {
        const field *f = &kind->fields[i];
        int top = lua_gettop(lua);
        spec_place place = call;
        lua_getfield(lua, index, f->name);
        if (!lua_isnil(lua, -1)) {
            place = find_place(lua, kind, call, f->name);
            void *member = members ? (char *)members + f->offset : NULL;
            if (!read_value(lua, member, kind, f, place))
                loader_mistake(lua, place, "%s.%s: expected %s, got %s%s", kind->name, f->name,
                               type_words[f->type], describe(lua, top + 1), advice(lua, f));
        } else if (strcmp(f->fallback, "required") == 0) {
            loader_mistake(lua, call, "%s.%s is missing", kind->name, f->name);
        }
        if (places)
            places[i] = place;
        lua_settop(lua, top);
    }
    for (lua_pushnil(lua); lua_next(lua, index); lua_pop(lua, 1)) {
        if (lua_type(lua, -2) != LUA_TSTRING) {
            loader_mistake(lua, call, "%s: a value without a name (write name = value)",
                           kind->name);
            continue;
        }
        const char *key = lua_tostring(lua, -2);
        bool known = false;
        for (int i = 0; i < kind->count; i++)
            known = known || strcmp(key, kind->fields[i].name) == 0;
        if (!known)
            refuse_key(lua, kind, find_place(lua, kind, call, key), key);
    }
}

/* The one argument of a constructor. */
static void need_table(lua_State *lua, const char *name)
{
    if (lua_gettop(lua) != 1 || lua_type(lua, 1) != LUA_TTABLE)
        luaL_error(lua, "%s: expected a table, as in %s { ... }", name, name);
}

/* ---- constructors ---------------------------------------------------------------------------- */

static int make_config(lua_State *lua)
{
    need_table(lua, "TransformerConfig");
    spec_object *object = tables_push_object(lua, SPEC_OBJECT_CONFIG);
    spec_config_object *made = &object->as.config;
    made->config = config_defaults;
    made->call = loader_caller(lua);
    check_table(lua, 1, &config_table, &made->config, made->call, made->places);
    if (made->config.ffn_hidden_size == 0)
        made->config.ffn_hidden_size = 4 * made->config.hidden_size;
    loader_raise(lua); /* rules are checked on values that are right by themselves */
    rules_check_config(lua, made);
    loader_raise(lua);
    return 1;
}

/* The linear that a submodule's value names: a bare module, or a ModuleSpec of one. */
static void take_linear(lua_State *lua, spec_linear_object *out, const char *name,
                        spec_module wanted, spec_place place)
{
    lua_getfield(lua, 1, name);
    const spec_object *module = tables_object(lua, -1, SPEC_OBJECT_MODULE);
    const spec_object *linear = tables_object(lua, -1, SPEC_OBJECT_LINEAR);
    if (linear)
        *out = linear->as.linear;
    else if (module)
        *out = (spec_linear_object){
            .module = module->as.module, .linear = linear_defaults, .call = place};
    if ((linear || module) && out->module != wanted)
        loader_mistake(lua, place, "MLPSubmodules.%s: expected %s, got %s", name,
                       module_names[wanted], module_names[out->module]);
    lua_pop(lua, 1);
}

static int make_submodules(lua_State *lua)
{
    need_table(lua, "MLPSubmodules");
    spec_object *object = tables_push_object(lua, SPEC_OBJECT_SUBMODULES);
    spec_submodules_object *made = &object->as.submodules;
    made->activation = -1;
    made->call = loader_caller(lua);
    check_table(lua, 1, &submodules_table, NULL, made->call, made->places);
    take_linear(lua, &made->linear_fc1, "linear_fc1", SPEC_MODULE_ColumnParallelLinear,
                made->places[0]);
    take_linear(lua, &made->linear_fc2, "linear_fc2", SPEC_MODULE_RowParallelLinear,
                made->places[1]);
    lua_getfield(lua, 1, "activation_func");
    const spec_object *activation = tables_object(lua, -1, SPEC_OBJECT_ACTIVATION);
    if (activation)
        made->activation = activation->as.activation;
    lua_pop(lua, 1);
    loader_raise(lua);
    return 1;
}

/* Fields of a linear that only the other one has. */
static void refuse_fields_of_other(lua_State *lua, const spec_linear_object *made)
{
    static const struct {
        const char *field;
        spec_module of;
    } rows[] = {
        {"gather_output", SPEC_MODULE_ColumnParallelLinear},
        {"stride", SPEC_MODULE_ColumnParallelLinear},
        {"input_is_parallel", SPEC_MODULE_RowParallelLinear},
    };
    for (int i = 0; i < COUNT(rows); i++) {
        lua_getfield(lua, -1, rows[i].field);
        if (made->module != rows[i].of && !lua_isnil(lua, -1))
            loader_mistake(lua, find_place(lua, &linear_table, made->call, rows[i].field),
                           "unknown field '%s' in the params of %s (%s has it)", rows[i].field,
                           module_names[made->module], module_names[rows[i].of]);
        lua_pop(lua, 1);
    }
}

static int make_linear_spec(lua_State *lua, spec_module module, spec_place call)
{
    spec_object *object = tables_push_object(lua, SPEC_OBJECT_LINEAR);
    spec_linear_object *made = &object->as.linear;
    made->module = module;
    made->linear = linear_defaults;
    made->call = call;
    if (lua_getfield(lua, 1, "submodules") != LUA_TNIL)
        loader_mistake(lua, find_place(lua, &module_table, call, "submodules"),
                       "ModuleSpec.submodules: %s has none", module_names[module]);
    if (lua_getfield(lua, 1, "params") == LUA_TTABLE) {
        check_table(lua, lua_gettop(lua), &linear_table, &made->linear, call, made->places);
        refuse_fields_of_other(lua, made);
    }
    loader_raise(lua);
    lua_pop(lua, 2);
    return 1;
}

static int make_mlp_spec(lua_State *lua, spec_place call)
{
    spec_object *object = tables_push_object(lua, SPEC_OBJECT_MLP);
    spec_mlp_object *made = &object->as.mlp;
    made->mlp = mlp_defaults;
    made->call = call;
    if (lua_getfield(lua, 1, "params") == LUA_TTABLE)
        check_table(lua, lua_gettop(lua), &mlp_table, &made->mlp, call, made->places);
    else
        loader_mistake(lua, call, "ModuleSpec.params is missing");
    lua_getfield(lua, 1, "submodules");
    const spec_object *submodules = tables_object(lua, -1, SPEC_OBJECT_SUBMODULES);
    if (!submodules)
        loader_mistake(lua, call, "ModuleSpec.submodules is missing");
    loader_raise(lua);
    made->submodules = submodules->as.submodules;
    lua_getfield(lua, -2, "config");
    made->config = tables_object(lua, -1, SPEC_OBJECT_CONFIG)->as.config;
    lua_pop(lua, 3);
    rules_check_mlp(lua, made);
    loader_raise(lua);
    return 1;
}

static int make_module_spec(lua_State *lua)
{
    need_table(lua, "ModuleSpec");
    spec_place call = loader_caller(lua);
    check_table(lua, 1, &module_table, NULL, call, NULL);
    loader_raise(lua);
    lua_getfield(lua, 1, "module");
    spec_module module = tables_object(lua, -1, SPEC_OBJECT_MODULE)->as.module;
    lua_pop(lua, 1);
    if (module == SPEC_MODULE_MLP)
        return make_mlp_spec(lua, call);
    return make_linear_spec(lua, module, call);
}

/* init.normal(std), init.zeros(), init.uniform(a, b): the kind is upvalue 1. */
static int make_init(lua_State *lua)
{
    spec_init init = {(spec_init_kind)lua_tointeger(lua, lua_upvalueindex(1)), 0, 0};
    if (init.kind != SPEC_INIT_ZEROS)
        init.a = luaL_checknumber(lua, 1);
    if (init.kind == SPEC_INIT_UNIFORM)
        init.b = luaL_checknumber(lua, 2);
    if (!isfinite(init.a) || !isfinite(init.b) || (init.kind == SPEC_INIT_NORMAL && init.a < 0) ||
        (init.kind == SPEC_INIT_UNIFORM && init.b < init.a))
        return luaL_error(lua, "init: expected normal(std >= 0) or uniform(a, b) with a <= b");
    tables_push_object(lua, SPEC_OBJECT_INIT)->as.init = init;
    return 1;
}

void tables_add_constructors(lua_State *lua)
{
    static const struct {
        const char *name;
        lua_CFunction make;
    } constructors[] = {
        {"TransformerConfig", make_config},
        {"MLPSubmodules", make_submodules},
        {"ModuleSpec", make_module_spec},
    };
    static const struct {
        const char *name;
        spec_module module;
    } modules[] = {
        {"MLP", SPEC_MODULE_MLP},
        {"ColumnParallelLinear", SPEC_MODULE_ColumnParallelLinear},
        {"TEColumnParallelLinear", SPEC_MODULE_ColumnParallelLinear},
        {"RowParallelLinear", SPEC_MODULE_RowParallelLinear},
        {"TERowParallelLinear", SPEC_MODULE_RowParallelLinear},
    };
    static const struct {
        const char *name;
        spec_init_kind kind;
    } inits[] = {
        {"normal", SPEC_INIT_NORMAL}, {"zeros", SPEC_INIT_ZEROS}, {"uniform", SPEC_INIT_UNIFORM}};

    luaL_newmetatable(lua, object_metatable);
    lua_pop(lua, 1);
    for (int i = 0; i < COUNT(constructors); i++) {
        lua_pushcfunction(lua, constructors[i].make);
        lua_setglobal(lua, constructors[i].name);
    }
    for (int i = 0; i < COUNT(modules); i++) {
        tables_push_object(lua, SPEC_OBJECT_MODULE)->as.module = modules[i].module;
        lua_setglobal(lua, modules[i].name);
    }
    lua_newtable(lua);
    for (int i = 0; i < COUNT(inits); i++) {
        lua_pushinteger(lua, inits[i].kind);
        lua_pushcclosure(lua, make_init, 1);
        lua_setfield(lua, -2, inits[i].name);
    }
    lua_setglobal(lua, "init");
}

/* ---- documentation --------------------------------------------------------------------------- */

void spec_print_fields(text *out)
{
    static const struct {
        const char *title;
        const field *fields;
        int count;
    } tables[] = {
        {"TransformerConfig { ... }", config_fields, COUNT(config_fields)},
        {"ModuleSpec { ... }", module_fields, COUNT(module_fields)},
        {"params of MLP", mlp_fields, COUNT(mlp_fields)},
        {"MLPSubmodules { ... }", submodules_fields, COUNT(submodules_fields)},
        {"params of ColumnParallelLinear (fc1) and RowParallelLinear (fc2)", linear_fields,
         COUNT(linear_fields)},
    };
    for (int t = 0; t < COUNT(tables); t++) {
        text_printf(out, "%s%s\n\n", t ? "\n" : "", tables[t].title);
        for (int i = 0; i < tables[t].count; i++) {
            const field *f = &tables[t].fields[i];
            bool optional = f->type == FIELD_optional_integer || f->type == FIELD_optional_number;
            bool required = strncmp(f->fallback, "required", strlen("required")) == 0;
            text_printf(out, "  %-32s %s%s, %s%s\n  %-32s %s\n", f->name,
                        optional ? "optional " : "", type_words[f->type],
                        required ? "" : "default ", f->fallback, "", f->help);
        }
    }
    text_puts(out, "\nActivations\n\n ");
#define ACTIVATION(identity, name, body) text_printf(out, "%s%s", *(name) ? " " : "", name);
#include "activations.def"
    text_puts(out,
              "\n  activation(\"name\", function(x) return ... end), or function(gate, up), with\n"
              "  + - * / and\n ");
    for (int op = 0; op < PROGRAM_OP_COUNT; op++)
        if (program_op_arity((program_op)op) > 0 && op > PROGRAM_neg)
            text_printf(out, " %s", program_op_name((program_op)op));
    text_puts(out, "\n");
}
