/*
 * emit_bind.c: fills the table `kernel` that the templates read: names, sizes, parameters, operands
 * and the epilogue's expression as CUDA text.
 */
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "emit.h"

/* ---- values ---------------------------------------------------------------------------------- */

/* A tensor's name as a parameter: linear_fc1.weight is linear_fc1_weight. */
static void push_parameter_name(lua_State *lua, const char *tensor)
{
    luaL_gsub(lua, tensor, ".", "_");
}

static void set_string(lua_State *lua, const char *key, const char *value)
{
    lua_pushstring(lua, value);
    lua_setfield(lua, -2, key);
}

static void set_integer(lua_State *lua, const char *key, int64_t value)
{
    lua_pushinteger(lua, value);
    lua_setfield(lua, -2, key);
}

static void set_flag(lua_State *lua, const char *key, bool value)
{
    lua_pushboolean(lua, value);
    lua_setfield(lua, -2, key);
}

static void set_parameter(lua_State *lua, const char *key, const char *tensor)
{
    push_parameter_name(lua, tensor);
    lua_setfield(lua, -2, key);
}

/* "tokens", or the number; pushes it. */
static void push_size(lua_State *lua, int64_t size)
{
    if (size)
        lua_pushfstring(lua, "%I", (lua_Integer)size);
    else
        lua_pushliteral(lua, "tokens");
}

/* The CUDA type of elements: the storage types have structs of their names. */
static const char *type_name(spec_dtype dtype)
{
    return dtype == SPEC_DTYPE_fp32 ? "float" : spec_dtype_name(dtype);
}

static spec_dtype storage_of(const emit_kernel *kernel)
{
    return kernel->plan->spec->config.params_dtype;
}

/* ---- parameters ------------------------------------------------------------------------------ */

/* Where the numbers among the arguments have their types; pointers are not in the list. */
static const char *number_type(const char *name)
{
    static const struct {
        const char *name, *type;
    } numbers[] = {
        {"tokens", "long long"},
        {"beta", "int"},
        {"grad.linear_fc1.bias.dtype", "int"},
        {"grad.linear_fc2.bias.dtype", "int"},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(numbers[i].name, name) == 0)
            return numbers[i].type;
    return NULL;
}

/* The type of a tensor or buffer of a GEMM, and whether the kernel writes it. */
static const char *pointer_type(bool *written, const emit_kernel *kernel, const char *tensor)
{
    const plan_epilogue *e = &kernel->step->epilogue;
    *written = false;
    for (int i = 0; i < e->output_count; i++) {
        if (strcmp(e->outputs[i].tensor, tensor) != 0)
            continue;
        *written = true;
        return e->outputs[i].kind == PLAN_STORE ? type_name(e->outputs[i].dtype) : "float";
    }
    return strcmp(tensor, "per_token_scale") == 0 ? "float" : type_name(storage_of(kernel));
}

/* Pushes { declaration = "const bf16 *__restrict__ hidden_states", name = "hidden_states" }. */
static void push_parameter(lua_State *lua, const emit_kernel *kernel, const char *argument)
{
    bool written;
    lua_newtable(lua);
    push_parameter_name(lua, argument);
    const char *name = lua_tostring(lua, -1), *number = number_type(argument);
    if (number) {
        lua_pushfstring(lua, "%s %s", number, name);
    } else {
        const char *type = pointer_type(&written, kernel, argument);
        lua_pushfstring(lua, "%s%s *__restrict__ %s", written ? "" : "const ", type, name);
    }
    lua_setfield(lua, -3, "declaration");
    lua_setfield(lua, -2, "name");
}

/* A list of all arguments, or of those that only the epilogue uses. */
static void set_parameters(lua_State *lua, const emit_kernel *kernel, bool epilogue_only)
{
    const plan_step *step = kernel->step;
    int count = 0;
    lua_newtable(lua);
    for (int i = 0; i < kernel->argument_count; i++) {
        const char *argument = kernel->arguments[i];
        if (epilogue_only &&
            (strcmp(argument, step->a.tensor) == 0 || strcmp(argument, step->b.tensor) == 0 ||
             strcmp(argument, "tokens") == 0))
            continue;
        push_parameter(lua, kernel, argument);
        lua_rawseti(lua, -2, ++count);
    }
    lua_setfield(lua, -2, "parameters");
}

/* ---- epilogue -------------------------------------------------------------------------------- */

/* Of what comes or goes by a tensor map: the map's name, see emit_maps.c. */
static void set_map_name(lua_State *lua, const char *name)
{
    lua_pushfstring(lua, "map_%s", name);
    lua_setfield(lua, -2, "map");
}

static void set_inputs(lua_State *lua, const char *key, const plan_epilogue *e,
                       plan_input_kind kind)
{
    int count = 0;
    lua_newtable(lua);
    for (int i = 0; i < e->input_count; i++) {
        const plan_input *input = &e->inputs[i];
        if (input->kind != kind)
            continue;
        lua_newtable(lua);
        set_string(lua, "name", input->name);
        set_parameter(lua, "pointer", input->tensor);
        set_integer(lua, "column_offset", input->column_offset);
        set_integer(lua, "stride", input->stride);
        set_flag(lua, "where_beta_is_1", input->where_beta_is_1);
        set_map_name(lua, input->name);
        lua_rawseti(lua, -2, ++count);
    }
    lua_setfield(lua, -2, key);
}

static void set_accumulators(lua_State *lua, const plan_epilogue *e)
{
    int count = 0;
    lua_newtable(lua);
    for (int i = 0; i < e->input_count; i++) {
        if (e->inputs[i].kind != PLAN_INPUT_ACCUMULATOR)
            continue;
        lua_pushstring(lua, e->inputs[i].name);
        lua_rawseti(lua, -2, ++count);
    }
    lua_setfield(lua, -2, "accumulators");
}

static void set_outputs(lua_State *lua, const char *key, const plan_epilogue *e, const text *values,
                        plan_output_kind kind)
{
    int count = 0;
    lua_newtable(lua);
    for (int i = 0; i < e->output_count; i++) {
        const plan_output *output = &e->outputs[i];
        if (output->kind != kind)
            continue;
        lua_newtable(lua);
        set_string(lua, "name", output->name);
        set_parameter(lua, "pointer", output->tensor);
        set_integer(lua, "column_offset", output->column_offset);
        set_integer(lua, "stride", output->stride);
        set_flag(lua, "optional", output->optional);
        set_flag(lua, "copied", plan_store_place(e, i) == PLAN_PLACE_COPIED);
        set_flag(lua, "in_input", plan_store_place(e, i) == PLAN_PLACE_INPUT);
        set_flag(lua, "adds_where_beta_is_1", output->adds_where_beta_is_1);
        set_string(lua, "type", type_name(output->dtype));
        set_map_name(lua, output->name);
        set_string(lua, "value", text_string(&values[i]));
        lua_rawseti(lua, -2, ++count);
    }
    lua_setfield(lua, -2, key);
}

static mmlp_status push_epilogue(lua_State *lua, const emit_kernel *kernel)
{
    const plan_epilogue *e = &kernel->step->epilogue;
    text statements = TEXT_INIT, values[PLAN_OUTPUTS_MAX] = {TEXT_INIT};
    mmlp_status status = expr_print(&statements, values, &e->graph, e->results, e->output_count,
                                    e->names, e->name_count);
    if (status == MMLP_OK) {
        lua_newtable(lua);
        set_parameters(lua, kernel, true);
        set_accumulators(lua, e);
        set_inputs(lua, "column_inputs", e, PLAN_INPUT_COLUMN);
        set_inputs(lua, "row_inputs", e, PLAN_INPUT_ROW);
        set_inputs(lua, "element_inputs", e, PLAN_INPUT_ELEMENT);
        set_outputs(lua, "stores", e, values, PLAN_STORE);
        set_outputs(lua, "column_sums", e, values, PLAN_COLUMN_SUMS);
        set_outputs(lua, "row_sums", e, values, PLAN_ROW_SUMS);
        set_string(lua, "statements", text_string(&statements));
    }
    text_free(&statements);
    for (int i = 0; i < e->output_count; i++)
        text_free(&values[i]);
    return status;
}

/* ---- GEMM ------------------------------------------------------------------------------------ */

/* What the kernel is, for the comment at its top. */
static void set_title(lua_State *lua, const emit_kernel *kernel)
{
    const module_spec *spec = kernel->plan->spec;
    const plan_step *step = kernel->step;
    bool fc1_forward = step->pass == PLAN_FORWARD && strcmp(step->name, "linear_fc1") == 0;
    bool fc2_dgrad = step->pass == PLAN_DGRAD && strcmp(step->name, "linear_fc2") == 0;
    bool bias = false, scale = false;
    for (int i = 0; i < step->epilogue.input_count; i++) {
        bias = bias || step->epilogue.inputs[i].kind == PLAN_INPUT_COLUMN;
        scale = scale || step->epilogue.inputs[i].kind == PLAN_INPUT_ROW;
    }
    lua_pushfstring(lua, "%s: %s%s%s%s%s%s, %s, %s", spec->name, step->name, bias ? " + bias" : "",
                    fc1_forward || fc2_dgrad ? ", " : "", fc2_dgrad ? "gradient of " : "",
                    fc1_forward || fc2_dgrad ? spec->activation_name : "",
                    scale ? ", per-token scale" : "", plan_pass_name(step->pass),
                    spec_dtype_name(spec->config.params_dtype));
    lua_setfield(lua, -2, "title");
}

static void set_tile(lua_State *lua, const plan_candidate *candidate)
{
    const plan_tile *tile = &candidate->tile;
    const struct {
        const char *key;
        int value;
    } rows[] = {{"tile_m", tile->tile_m},       {"tile_n", tile->tile_n},
                {"tile_k", tile->tile_k},       {"stages", tile->stages},
                {"warps_m", tile->warps_m},     {"warps_n", tile->warps_n},
                {"group_m", candidate->group_m}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        set_integer(lua, rows[i].key, rows[i].value);
}

/*
 * The table of an operand: its struct's and parameter's names, the constant that names its side of
 * the tile, that side's size, the elements of a row in memory, and `bound`, the constructor's
 * argument that tells where it ends, "" where whole tiles always fit: the rows of a K-major
 * operand, the reduction of the other.
 */
static void set_operand(lua_State *lua, const emit_kernel *kernel, bool is_a)
{
    const plan_step *step = kernel->step;
    const plan_tile *tile = &kernel->candidate->tile;
    const plan_operand *operand = is_a ? &step->a : &step->b;
    int64_t size = is_a ? step->m : step->n;
    int64_t side = is_a ? tile->tile_m : tile->tile_n;
    int64_t bounded = operand->k_major ? (is_a ? size : step->columns) : step->k;
    int64_t unit = operand->k_major ? (is_a ? side : side / step->halves) : tile->tile_k;
    lua_newtable(lua);
    set_string(lua, "struct", is_a ? "OperandA" : "OperandB");
    set_string(lua, "tile", is_a ? "tile_m" : "tile_n");
    set_parameter(lua, "name", operand->tensor);
    set_integer(lua, "tile_size", side);
    set_flag(lua, "k_major", operand->k_major);
    set_integer(lua, "stride", operand->k_major ? step->k : size);
    push_size(lua, operand->k_major ? size : step->k);
    lua_setfield(lua, -2, "rows_text");
    if (bounded && bounded % unit == 0)
        lua_pushliteral(lua, "");
    else if (operand->k_major)
        lua_pushstring(lua, is_a ? "rows, " : "columns, ");
    else
        lua_pushfstring(lua, "%s, ", bounded ? "reduction" : "tokens");
    lua_setfield(lua, -2, "bound");
    lua_setfield(lua, -2, is_a ? "a" : "b");
}

/* "X [tokens, 64] times the transpose of W [128, 64]" */
static void set_product(lua_State *lua, const plan_step *step)
{
    const plan_operand *operands[] = {&step->a, &step->b};
    const int64_t sizes[] = {step->m, step->n};
    luaL_Buffer buffer;
    luaL_buffinit(lua, &buffer);
    for (int i = 0; i < 2; i++) {
        bool k_major = operands[i]->k_major;
        if (i == 1)
            luaL_addstring(&buffer, " times ");
        if (k_major == (i == 1))
            luaL_addstring(&buffer, "the transpose of ");
        push_parameter_name(lua, operands[i]->tensor);
        luaL_addvalue(&buffer);
        luaL_addstring(&buffer, " [");
        push_size(lua, k_major ? sizes[i] : step->k);
        luaL_addvalue(&buffer);
        luaL_addstring(&buffer, ", ");
        push_size(lua, k_major ? step->k : sizes[i]);
        luaL_addvalue(&buffer);
        luaL_addstring(&buffer, "]");
    }
    luaL_pushresult(&buffer);
    lua_setfield(lua, -2, "product");
}

/* What the templates of kernels with tensor maps need besides. */
static void set_maps(lua_State *lua, const emit_kernel *kernel)
{
    const plan_candidate *chosen = kernel->candidate;
    set_integer(lua, "accumulators", chosen->tile.tile_n / 2);
    set_integer(lua, "cluster", kernel->cluster);
    set_integer(lua, "staged_panels", chosen->staged_panels);
    set_integer(lua, "input_panels", chosen->input_panels);
    lua_newtable(lua);
    for (int i = 0; i < kernel->map_count; i++) {
        lua_newtable(lua);
        set_string(lua, "name", kernel->maps[i].name);
        set_flag(lua, "optional", kernel->maps[i].optional);
        lua_rawseti(lua, -2, i + 1);
    }
    lua_setfield(lua, -2, "maps");
}

static mmlp_status bind_gemm(lua_State *lua, const emit_kernel *kernel)
{
    const plan_step *step = kernel->step;
    if (kernel->map_count > 0)
        set_maps(lua, kernel);
    set_tile(lua, kernel->candidate);
    if (step->m)
        set_integer(lua, "m", step->m);
    if (step->k)
        set_integer(lua, "k", step->k);
    push_size(lua, step->m);
    lua_setfield(lua, -2, "m_text");
    set_integer(lua, "halves", step->halves);
    set_operand(lua, kernel, true);
    set_operand(lua, kernel, false);
    set_product(lua, step);
    set_parameters(lua, kernel, false);
    set_title(lua, kernel);
    MMLP_TRY(push_epilogue(lua, kernel));
    lua_setfield(lua, -2, "epilogue");
    return MMLP_OK;
}

/* ---- all kernels ----------------------------------------------------------------------------- */

/* The sums' kernels: tensors by their parameter names. */
static void bind_sums(lua_State *lua, const plan_step *step)
{
    set_parameter(lua, "input", step->input);
    set_parameter(lua, "output", step->output);
    set_flag(lua, "has_second_input", step->second_input != NULL);
    set_parameter(lua, "second_input", step->second_input ? step->second_input : "");
}

mmlp_status emit_bind(lua_State *lua, const void *user)
{
    const emit_kernel *kernel = user;
    lua_newtable(lua);
    set_string(lua, "entry", kernel->entry);
    set_string(lua, "spec_name", kernel->plan->spec->name);
    set_string(lua, "step", kernel->step_name);
    set_string(lua, "storage", type_name(storage_of(kernel)));
    set_integer(lua, "threads", kernel->threads);
    set_integer(lua, "shared_bytes", kernel->shared_bytes);
    set_integer(lua, "hidden_size", kernel->plan->hidden_size);
    set_integer(lua, "summed_rows", PLAN_SUMMED_ROWS);
    set_integer(lua, "summed_columns", PLAN_SUMMED_COLUMNS);
    if (kernel->step)
        set_integer(lua, "columns", kernel->step->columns);
    if (kernel->step && kernel->step->kind == PLAN_GEMM)
        MMLP_TRY(bind_gemm(lua, kernel));
    else if (kernel->step)
        bind_sums(lua, kernel->step);
    lua_setfield(lua, -2, "kernel");
    return MMLP_OK;
}
