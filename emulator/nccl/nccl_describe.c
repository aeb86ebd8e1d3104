/* nccl_describe.c: operations in words, for errors, and in JSON, for the trace. */
#include "nccl/nccl_op.h"

static const struct {
    const char *name;
    bool reduces;
    const char *rooted;
} kinds[] = {
#define KIND(name, text, reduces, rooted) {text, reduces, rooted},
#include "nccl/nccl_kinds.def"
#undef KIND
};

static const char *const reductions[ncclNumOps] = {[ncclSum] = "sum",
                                                   [ncclProd] = "prod",
                                                   [ncclMax] = "max",
                                                   [ncclMin] = "min",
                                                   [ncclAvg] = "avg"};

void op_describe(char text[static 128], const op_shape *shape)
{
    const char *rooted = kinds[shape->kind].rooted;
    bool reduces = kinds[shape->kind].reduces;
    char other[32] = "";
    if (shape->kind == OP_SPLIT) {
        snprintf(text, 128, "split");
        return;
    }
    if (rooted)
        snprintf(other, sizeof other, " %s rank %d", rooted, shape->other);
    snprintf(text, 128, "%s of %llu %s%s%s%s", kinds[shape->kind].name,
             (unsigned long long)shape->count, type_name((ncclDataType_t)shape->type),
             reduces ? ", " : "", reduces ? reductions[shape->op] : "", other);
}

const char *op_name(const op_shape *shape)
{
    return kinds[shape->kind].name;
}

void op_write(FILE *out, const op_shape *shape)
{
    fprintf(out, "{\"name\":\"%s\",\"count\":%llu,\"type\":\"%s\"", op_name(shape),
            (unsigned long long)shape->count, type_name((ncclDataType_t)shape->type));
    if (kinds[shape->kind].reduces)
        fprintf(out, ",\"reduction\":\"%s\"", reductions[shape->op]);
    if (kinds[shape->kind].rooted)
        fprintf(out, ",\"rank\":%d", shape->other);
    fputc('}', out);
}
