/*
 * emit_maps.c: the parameters of kernels that read and write through tensor maps. Everything that
 * is a matrix comes by a map; vectors, sums and numbers are plain arguments.
 */
#include <assert.h>
#include <stdio.h>

#include "emit.h"

static emit_map *add_map(emit_kernel *kernel, const char *name, const char *tensor,
                         spec_dtype dtype)
{
    assert(kernel->map_count < EMIT_MAPS_MAX);
    emit_map *map = &kernel->maps[kernel->map_count++];
    *map = (emit_map){.tensor = tensor, .dtype = dtype, .planes = 1};
    snprintf(map->name, sizeof map->name, "map_%s", name);
    return map;
}

/* Boxes of 64 elements of the reduction by the rows of a copy, or of 64 rows by tile_k. */
static void add_operand(emit_kernel *kernel, bool is_a)
{
    const plan_step *step = kernel->step;
    const plan_tile *tile = &kernel->candidate->tile;
    const plan_operand *operand = is_a ? &step->a : &step->b;
    int64_t size = is_a ? step->m : step->n;
    emit_map *map =
        add_map(kernel, is_a ? "a" : "b", operand->tensor, kernel->plan->spec->config.params_dtype);
    map->rows = operand->k_major ? size : step->k;
    map->columns = map->stride = operand->k_major ? step->k : size;
    map->box_rows = !operand->k_major ? tile->tile_k : is_a ? tile->tile_m : tile->tile_n / 2;
    if (!is_a && step->halves == 2) {
        map->planes = 2;
        map->rows = step->columns;
    }
}

/* Panels of a warpgroup: 64 rows by 128 bytes. */
static emit_map *add_panels(emit_kernel *kernel, const char *name, const char *tensor,
                            spec_dtype dtype, int64_t first_column, int64_t stride)
{
    emit_map *map = add_map(kernel, name, tensor, dtype);
    map->first_column = first_column;
    map->rows = kernel->step->m;
    map->columns = kernel->step->columns;
    map->stride = stride;
    map->box_rows = 64;
    return map;
}

void emit_describe_maps(emit_kernel *kernel)
{
    const plan_epilogue *e = &kernel->step->epilogue;
    bool beta = false;
    add_operand(kernel, true);
    add_operand(kernel, false);
    for (int i = 0; i < e->input_count; i++) {
        const plan_input *input = &e->inputs[i];
        beta = beta || input->where_beta_is_1;
        if (input->kind == PLAN_INPUT_ELEMENT)
            add_panels(kernel, input->name, input->tensor, input->dtype, input->column_offset,
                       input->stride);
        else
            emit_add_argument(kernel, input->tensor);
    }
    for (int i = 0; i < e->output_count; i++) {
        const plan_output *output = &e->outputs[i];
        beta = beta || output->adds_where_beta_is_1;
        if (output->kind == PLAN_STORE)
            add_panels(kernel, output->name, output->tensor, output->dtype, output->column_offset,
                       output->stride)
                ->optional = output->optional;
        if (output->kind != PLAN_STORE || output->optional)
            emit_add_argument(kernel, output->tensor);
    }
    if (beta)
        emit_add_argument(kernel, "beta");
    emit_add_argument(kernel, "tokens");
}
