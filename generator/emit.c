/*
 * emit.c: from a planned step to CUDA text: fills the table `kernel` that the templates read. What
 * a kernel looks like is the templates' business; names, sizes and expressions come from here.
 */
#include "emit.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FILL_THREADS = 256,
    FILL_ELEMENTS_PER_BLOCK = 4 * FILL_THREADS,
    GROUP_M = 8 /* row tiles that share a column while it is in L2 */
};

/* ---- the table `kernel` ---------------------------------------------------------------------- */

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

static void set_parameter(lua_State *lua, const char *key, const char *tensor)
{
    push_parameter_name(lua, tensor);
    lua_setfield(lua, -2, key);
}

static bool is_written(const plan_step *step, const char *tensor)
{
    return strcmp(tensor, step->output) == 0 ||
           (step->raw_store && strcmp(tensor, step->raw_store) == 0);
}

/* { {declaration = "const bf16 *__restrict__ hidden_states", name = "hidden_states"}, ... } */
static void push_parameters(lua_State *lua, const emit_kernel *kernel)
{
    const char *storage = spec_dtype_name(kernel->plan->spec->config.params_dtype);
    lua_newtable(lua);
    for (int i = 0; i < kernel->argument_count; i++) {
        const char *tensor = kernel->arguments[i];
        lua_newtable(lua);
        push_parameter_name(lua, tensor);
        const char *name = lua_tostring(lua, -1);
        if (strcmp(tensor, "tokens") == 0)
            lua_pushliteral(lua, "long long tokens");
        else
            lua_pushfstring(lua, "%s%s *__restrict__ %s",
                            is_written(kernel->step, tensor) ? "" : "const ",
                            strcmp(tensor, "per_token_scale") == 0 ? "float" : storage, name);
        lua_setfield(lua, -3, "declaration");
        lua_setfield(lua, -2, "name");
        lua_rawseti(lua, -2, i + 1);
    }
}

static void push_inputs(lua_State *lua, const plan_epilogue *e, plan_input_kind kind,
                        const char *storage)
{
    int count = 0;
    lua_newtable(lua);
    for (int i = 0; i < e->input_count; i++) {
        if (e->inputs[i].kind != kind)
            continue;
        lua_newtable(lua);
        set_string(lua, "name", e->inputs[i].name);
        set_parameter(lua, "pointer", e->inputs[i].tensor);
        set_string(lua, "storage", storage);
        if (kind == PLAN_INPUT_COLUMN)
            set_integer(lua, "column_offset", e->inputs[i].column_offset);
        lua_rawseti(lua, -2, ++count);
    }
}

static mmlp_status push_epilogue(lua_State *lua, const plan_step *step, const char *storage)
{
    const plan_epilogue *e = &step->epilogue;
    text statements = TEXT_INIT, value = TEXT_INIT;
    mmlp_status status =
        expr_print(&statements, &value, &e->graph, &e->result, 1, e->names, e->name_count);
    if (status == MMLP_OK) {
        lua_newtable(lua);
        push_inputs(lua, e, PLAN_INPUT_COLUMN, storage);
        lua_setfield(lua, -2, "column_inputs");
        push_inputs(lua, e, PLAN_INPUT_ROW, "float");
        lua_setfield(lua, -2, "row_inputs");
        set_string(lua, "statements", text_string(&statements));
        lua_newtable(lua);
        lua_newtable(lua);
        set_parameter(lua, "name", step->output);
        set_parameter(lua, "pointer", step->output);
        set_string(lua, "value", text_string(&value));
        set_string(lua, "storage", storage);
        lua_rawseti(lua, -2, 1);
        lua_setfield(lua, -2, "results");
        if (step->raw_store) {
            lua_newtable(lua);
            set_parameter(lua, "pointer", step->raw_store);
            lua_setfield(lua, -2, "raw_store");
        }
    }
    text_free(&statements);
    text_free(&value);
    return status;
}

/* What the kernel is, for the comment at its top. */
static void push_title(lua_State *lua, const emit_kernel *kernel)
{
    const module_spec *spec = kernel->plan->spec;
    const plan_epilogue *e = &kernel->step->epilogue;
    text title = TEXT_INIT;
    text_printf(&title, "%s: %s", spec->name, kernel->step->name);
    for (int i = 0; i < e->input_count; i++) {
        if (e->inputs[i].kind == PLAN_INPUT_COLUMN) {
            text_puts(&title, " + bias");
            break;
        }
    }
    if (kernel->step->raw_store)
        text_printf(&title, ", %s%s", spec->activation_name,
                    spec->config.gated_linear_unit ? "(gate) * up" : "");
    for (int i = 0; i < e->input_count; i++)
        if (e->inputs[i].kind == PLAN_INPUT_ROW)
            text_puts(&title, ", per-token scale");
    text_printf(&title, ", forward, %s", spec_dtype_name(spec->config.params_dtype));
    lua_pushstring(lua, text_string(&title));
    text_free(&title);
}

static void set_tile(lua_State *lua, const plan_tile *tile)
{
    const struct {
        const char *key;
        int value;
    } rows[] = {{"tile_m", tile->tile_m}, {"tile_n", tile->tile_n},   {"tile_k", tile->tile_k},
                {"stages", tile->stages}, {"warps_m", tile->warps_m}, {"warps_n", tile->warps_n},
                {"group_m", GROUP_M}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        set_integer(lua, rows[i].key, rows[i].value);
}

static mmlp_status bind_gemm(lua_State *lua, const emit_kernel *kernel)
{
    const plan_step *step = kernel->step;
    const char *storage = spec_dtype_name(kernel->plan->spec->config.params_dtype);
    set_string(lua, "dtype", storage);
    set_string(lua, "storage", storage);
    set_tile(lua, &step->candidates[step->chosen].tile);
    set_integer(lua, "n", step->n);
    set_integer(lua, "k", step->k);
    set_integer(lua, "halves", step->halves);
    set_integer(lua, "columns", step->columns);
    set_parameter(lua, "a_name", step->input);
    set_parameter(lua, "b_name", step->weight);
    push_parameters(lua, kernel);
    lua_setfield(lua, -2, "parameters");
    int names = 0;
    lua_newtable(lua);
    for (int i = 0; i < step->epilogue.input_count; i++) {
        if (step->epilogue.inputs[i].kind != PLAN_INPUT_ACCUMULATOR)
            continue;
        lua_pushstring(lua, step->epilogue.inputs[i].name);
        lua_rawseti(lua, -2, ++names);
    }
    lua_setfield(lua, -2, "acc_names");
    push_title(lua, kernel);
    lua_setfield(lua, -2, "title");
    MMLP_TRY(push_epilogue(lua, step, storage));
    lua_setfield(lua, -2, "epilogue");
    return MMLP_OK;
}

static mmlp_status bind_kernel(lua_State *lua, const void *user)
{
    const emit_kernel *kernel = user;
    lua_newtable(lua);
    set_string(lua, "entry", kernel->entry);
    set_string(lua, "spec_name", kernel->plan->spec->name);
    set_string(lua, "step", kernel->step_name);
    set_integer(lua, "threads", kernel->threads);
    set_integer(lua, "shared_bytes", kernel->shared_bytes);
    if (kernel->step)
        MMLP_TRY(bind_gemm(lua, kernel));
    lua_setfield(lua, -2, "kernel");
    return MMLP_OK;
}

/* ---- kernels of a plan ----------------------------------------------------------------------- */

static void add_argument(emit_kernel *kernel, const char *name)
{
    for (int i = 0; i < kernel->argument_count; i++)
        if (strcmp(kernel->arguments[i], name) == 0)
            return;
    kernel->arguments[kernel->argument_count++] = name;
}

static void describe_gemm(emit_kernel *kernel, const plan_step *step)
{
    const plan_candidate *chosen = &step->candidates[step->chosen];
    kernel->step = step;
    kernel->pass = step->pass;
    kernel->step_name = step->name;
    kernel->template_name = "kernels/sm_80_gemm.cu";
    kernel->threads = PLAN_THREADS_PER_WARP * chosen->tile.warps_m * chosen->tile.warps_n;
    kernel->shared_bytes = chosen->shared_bytes;
    add_argument(kernel, step->input);
    add_argument(kernel, step->weight);
    for (int i = 0; i < step->epilogue.input_count; i++)
        if (step->epilogue.inputs[i].tensor)
            add_argument(kernel, step->epilogue.inputs[i].tensor);
    if (step->raw_store)
        add_argument(kernel, step->raw_store);
    add_argument(kernel, step->output);
    add_argument(kernel, "tokens");
}

static void describe_fill(emit_kernel *kernel)
{
    static const char *const arguments[] = {"destination", "elements", "std", "seed", "dtype"};
    kernel->pass = "init";
    kernel->step_name = "fill_normal";
    kernel->template_name = "kernels/fill_normal.cu";
    kernel->threads = FILL_THREADS;
    kernel->elements_per_block = FILL_ELEMENTS_PER_BLOCK;
    for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++)
        add_argument(kernel, arguments[i]);
}

static mmlp_status emit(emit_kernel *kernel)
{
    const char *suffix = kernel->step ? "_forward" : "";
    if (asprintf(&kernel->entry, "%s_%s%s", kernel->plan->spec->name, kernel->step_name, suffix) <
        0) {
        kernel->entry = NULL;
        return mmlp_fail_memory(64, "the name of a kernel");
    }
    if (asprintf(&kernel->file, "%s%s.cu", kernel->step_name, suffix) < 0) {
        kernel->file = NULL;
        return mmlp_fail_memory(64, "the name of a file");
    }
    return template_expand(&kernel->source, template_files, kernel->template_name, bind_kernel,
                           kernel);
}

static mmlp_status check_supported(const plan *p)
{
    const spec_config *config = &p->spec->config;
    if (config->params_dtype == SPEC_DTYPE_fp32)
        return mmlp_fail(
            MMLP_ERROR_UNSUPPORTED,
            "%s: not supported yet: kernels for params_dtype \"fp32\"; use \"bf16\" or "
            "\"fp16\"",
            p->spec->name);
    for (int i = 0; i < p->step_count; i++)
        if (p->steps[i].kind == PLAN_ELEMENTWISE)
            return mmlp_fail(MMLP_ERROR_UNSUPPORTED,
                             "%s: not supported yet: the fc2 bias added after the reduction over "
                             "tensor_model_parallel_size %lld ranks",
                             p->spec->name, (long long)p->ranks);
    return MMLP_OK;
}

mmlp_status emit_plan(emit_kernels *out, const plan *p)
{
    *out = (emit_kernels){0};
    MMLP_TRY(check_supported(p));
    mmlp_status status = MMLP_OK;
    emit_kernels made = {calloc((size_t)p->step_count + 1, sizeof *made.kernels), 0};
    if (!made.kernels)
        return mmlp_fail_memory((size_t)p->step_count * sizeof *made.kernels, "kernels");
    for (int i = 0; i < p->step_count; i++)
        if (p->steps[i].kind == PLAN_GEMM)
            describe_gemm(&made.kernels[made.count++], &p->steps[i]);
    describe_fill(&made.kernels[made.count++]);
    for (int i = 0; i < made.count; i++) {
        made.kernels[i].plan = p;
        MMLP_TRY_CLEANUP(emit(&made.kernels[i]));
    }
    *out = made;
    made = (emit_kernels){0};

cleanup:
    emit_free(&made);
    return status;
}

void emit_free(emit_kernels *kernels)
{
    for (int i = 0; i < kernels->count; i++) {
        free(kernels->kernels[i].entry);
        free(kernels->kernels[i].file);
        template_output_free(&kernels->kernels[i].source);
    }
    free(kernels->kernels);
    *kernels = (emit_kernels){0};
}
