/*
 * isa_tensor.c: random bulk copies, and random boxes of random tensors loaded, stored and added,
 * against oracles written from PTX ISA 5.5 and 9.7.9.25, and from what an H200 does.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "ptx_text.h"
#include "tensor_oracle.h"

enum {
    SHARED = ROOM + 2048, /* a box, and bytes before and after it that no copy may change */
    GUARD = 256           /* bytes on both sides of a tensor */
};

/* ---- kernels --------------------------------------------------------------------------------- */

/*
 * All of `room` comes from global memory, the copy is made by thread 0, which has %first, and all
 * of `room` goes back.
 */
static void begin(ptx_text *t)
{
    emit(
        t,
        ".version 8.6\n.target sm_90\n.address_size 64\n"
        ".visible .entry kernel(.param .align 64 .b8 m[128], .param .u64 room_in_out, "
        ".param .u64 other)\n{\n"
        ".shared .align 1024 .b8 room[%d]; .shared .align 8 .b64 barrier;\n"
        ".reg .b64 %%map, %%all, %%other, %%o; .reg .b32 %%t, %%i, %%s, %%room, %%r<6>; "
        ".reg .pred %%p, %%q, %%first;\n"
        "mov.b64 %%map, m; cvta.param.u64 %%map, %%map; ld.param.u64 %%all, [room_in_out]; "
        "ld.param.u64 %%other, [other]; mov.u32 %%t, %%tid.x; mov.u32 %%room, room;\n"
        "setp.eq.u32 %%first, %%t, 0; mov.u32 %%i, %%t;\n"
        "into: mul.wide.u32 %%o, %%i, 4; add.u64 %%o, %%o, %%all; mad.lo.u32 %%s, %%i, 4, %%room;\n"
        "ld.global.u32 %%r0, [%%o]; st.shared.u32 [%%s], %%r0;\n"
        "add.u32 %%i, %%i, 32; setp.lt.u32 %%q, %%i, %d; @%%q bra into;\n"
        "@%%first mbarrier.init.shared.b64 [barrier], 1; fence.proxy.async; bar.sync 0;\nBODY:\n",
        SHARED, SHARED / 4);
}

static void end(ptx_text *t)
{
    emit(
        t,
        "\nBODY_END: bar.sync 0; mov.u32 %%i, %%t;\n"
        "from: mul.wide.u32 %%o, %%i, 4; add.u64 %%o, %%o, %%all; mad.lo.u32 %%s, %%i, 4, %%room;\n"
        "ld.shared.u32 %%r0, [%%s]; st.global.u32 [%%o], %%r0;\n"
        "add.u32 %%i, %%i, 32; setp.lt.u32 %%q, %%i, %d; @%%q bra from;\nret;\n}\n",
        SHARED / 4);
}

static void expect_bytes(ptx_text *t, size_t bytes)
{
    emit(t, "@%%first mbarrier.arrive.expect_tx.shared.b64 _, [barrier], %zu;\n", bytes);
}

static void wait_for_bytes(ptx_text *t)
{
    emit(t, "again: mbarrier.try_wait.parity.shared.b64 %%p, [barrier], 0; @!%%p bra again;\n");
}

/* Starts of a box, as immediates or registers. */
static void emit_coordinates(ptx_text *t, const shape *s, char *list, size_t bytes)
{
    size_t length = 0;
    for (int i = 0; i < s->rank; i++) {
        const char *comma = i ? ", " : "";
        if (below(2)) {
            emit(t, "mov.u32 %%r%d, %d; ", i + 1, s->at[i]);
            length += (size_t)snprintf(list + length, bytes - length, "%s%%r%d", comma, i + 1);
        } else {
            length += (size_t)snprintf(list + length, bytes - length, "%s%d", comma, s->at[i]);
        }
    }
}

typedef enum action { LOAD, STORE, ADD } action;

static void emit_tensor_copy(ptx_text *t, const shape *s, action what)
{
    char at[128];
    const char *tile = below(2) ? ".tile" : "", *space = below(2) ? "cta" : "cluster";
    emit_coordinates(t, s, at, sizeof at);
    emit(t, "add.u32 %%s, %%room, %d;\n", s->target);
    if (what == LOAD) {
        expect_bytes(t, box_bytes(s));
        emit(t,
             "@%%first cp.async.bulk.tensor.%dd.shared::%s.global%s.mbarrier::complete_tx::bytes "
             "[%%s], [%%map, {%s}], [barrier];\n",
             s->rank, space, tile, at);
        wait_for_bytes(t);
        return;
    }
    emit(t, "@%%first cp.%sasync.bulk.tensor.%dd.global.shared::cta%s%s.bulk_group ",
         what == ADD ? "reduce." : "", s->rank, what == ADD ? ".add" : "", tile);
    emit(t, "[%%map, {%s}], [%%s];\n", at);
    emit(t, "@%%first cp.async.bulk.commit_group; @%%first cp.async.bulk.wait_group 0;\n");
}

/* Runs it on `room` and on `other`, in place. */
static void run(const ptx_text *t, CUtensorMap *map, uint8_t *room, CUdeviceptr other,
                const char *name)
{
    CUdeviceptr all = device_upload(room, SHARED);
    CUmodule module = device_load(t->at, name);
    device_run(module, "kernel", 1, 32, 0, (void *[]){map, &all, &other}, name);
    device_download(room, all, SHARED);
    cuMemFree(all);
    cuModuleUnload(module);
}

static void compare(const char *what, const uint8_t *found, const uint8_t *wanted, size_t bytes,
                    const char *ptx)
{
    for (size_t i = 0; i < bytes; i++)
        cr_assert_eq(found[i], wanted[i], "%s: byte %zu is %#x, not %#x\n%s", what, i, found[i],
                     wanted[i], ptx);
}

/* ---- boxes of tensors ------------------------------------------------------------------------ */

/* Memory as it was, or is, and as it must be. */
typedef struct memory {
    uint8_t room[SHARED], wanted_room[SHARED];
    uint8_t global[TENSOR + 2 * GUARD], wanted_global[TENSOR + 2 * GUARD];
} memory;

static memory *random_memory(const element_type *type)
{
    memory *m = malloc(sizeof *m);
    cr_assert(m);
    random_elements(m->room, sizeof m->room, type);
    random_elements(m->global, sizeof m->global, type);
    memcpy(m->wanted_room, m->room, sizeof m->room);
    memcpy(m->wanted_global, m->global, sizeof m->global);
    return m;
}

static int apply(const shape *s, action what, memory *m, size_t base)
{
    if (what == LOAD)
        return load_box(s, m->wanted_room, m->wanted_global + base);
    int inside = 0;
    for (int i = 0; i < box_elements(s); i++) {
        size_t offset, bytes = s->type->bytes;
        const uint8_t *from = m->wanted_room + place_of_byte(s, (size_t)i * bytes);
        if (!find_element(s, i, 1, &offset))
            continue;
        if (what == ADD)
            add_element(s->type, m->wanted_global + base + offset, from);
        else
            memcpy(m->wanted_global + base + offset, from, bytes);
        inside++;
    }
    return inside;
}

/* Gives how many of the box's elements lie inside. */
static int check_box(action what, const element_type *type, int rank)
{
    shape s = random_shape(rank, type, what != LOAD);
    memory *m = random_memory(type);
    size_t base = 128 + 16 * (size_t)below(8);
    int inside = apply(&s, what, m, base);

    CUdeviceptr global = device_upload(m->global, base + tensor_bytes(&s) + GUARD);
    CUtensorMap map;
    cr_assert_eq(encode_shape(&map, &s, global + base), CUDA_SUCCESS);
    ptx_text t = {0};
    begin(&t);
    emit_tensor_copy(&t, &s, what);
    end(&t);
    char name[160];
    snprintf(name, sizeof name, "%s, sizes %d %d %d %d %d, box %d %d %d %d %d, span %d", type->name,
             (int)s.sizes[0], (int)s.sizes[1], (int)s.sizes[2], (int)s.sizes[3], (int)s.sizes[4],
             (int)s.box[0], (int)s.box[1], (int)s.box[2], (int)s.box[3], (int)s.box[4], s.swizzle);
    run(&t, &map, m->room, global, name);
    device_download(m->global, global, base + tensor_bytes(&s) + GUARD);
    cuMemFree(global);
    compare(name, m->room, m->wanted_room, sizeof m->room, t.at);
    compare(name, m->global, m->wanted_global, base + tensor_bytes(&s) + GUARD, t.at);
    free(m);
    return inside;
}

/* Boxes of every rank and type. */
static void check_boxes(action what, int turns)
{
    int boxes = 0, empty = 0;
    device_open();
    for (int rank = 1; rank <= RANK; rank++)
        for (int i = 0; i < TENSOR_TYPES; i++)
            for (int turn = 0; turn < turns && (what != ADD || tensor_types[i].adds); turn++) {
                empty += check_box(what, &tensor_types[i], rank) == 0;
                boxes++;
            }
    device_close();
    printf("%d boxes, %d of them all outside\n", boxes, empty);
    cr_assert(boxes > 3 * empty, "too many boxes are outside");
}

Test(isa_tensor, random_boxes_are_loaded_with_zeros_for_what_lies_outside)
{
    random_start(1);
    check_boxes(LOAD, 10);
}

Test(isa_tensor, random_boxes_are_stored_in_whole_16_bytes_without_what_lies_outside)
{
    random_start(2);
    check_boxes(STORE, 10);
}

Test(isa_tensor, random_boxes_are_added_and_each_sum_is_rounded_to_nearest_even)
{
    random_start(3);
    check_boxes(ADD, 12);
}

/* ---- plain copies ---------------------------------------------------------------------------- */

enum { COPIES = 4, PART = ROOM / COPIES, KERNELS = 60 };

typedef struct copy {
    int shared, global, bytes;
} copy;

/* Somewhere in a part of its own, of shared and of global memory. */
static copy random_copy(int part)
{
    copy c = {.bytes = 16 * (below(4) ? between(1, PART / 16) : between(1, 4))};
    c.shared = part * PART + 16 * below((PART - c.bytes) / 16 + 1);
    c.global = part * PART + 16 * below((PART - c.bytes) / 16 + 1);
    return c;
}

static void emit_copy(ptx_text *t, copy c, int is_load)
{
    char bytes[16] = "%r1";
    if (below(2))
        snprintf(bytes, sizeof bytes, "%d", c.bytes);
    emit(t, "mov.u32 %%r1, %d; ", c.bytes);
    if (is_load)
        emit(t,
             "@%%first cp.async.bulk.shared::%s.global.mbarrier::complete_tx::bytes "
             "[room+%d], [%%other+%d], %s, [barrier];\n",
             below(2) ? "cta" : "cluster", c.shared, c.global, bytes);
    else
        emit(t,
             "@%%first cp.async.bulk.global.shared::cta.bulk_group [%%other+%d], [room+%d], %s;\n"
             "@%%first cp.async.bulk.commit_group; @%%first cp.async.bulk.wait_group.read %d;\n",
             c.global, c.shared, bytes, below(4));
}

static void check_copies(int is_load)
{
    memory *m = random_memory(&tensor_types[2]);
    copy copies[COPIES];
    size_t bytes = 0;
    int count = between(1, COPIES);
    for (int i = 0; i < count; i++) {
        copy c = copies[i] = random_copy(i);
        bytes += (size_t)c.bytes;
        if (is_load)
            memcpy(m->wanted_room + c.shared, m->global + c.global, (size_t)c.bytes);
        else
            memcpy(m->wanted_global + c.global, m->room + c.shared, (size_t)c.bytes);
    }
    ptx_text t = {0};
    begin(&t);
    if (is_load)
        expect_bytes(&t, bytes);
    for (int i = 0; i < count; i++)
        emit_copy(&t, copies[i], is_load);
    if (is_load)
        wait_for_bytes(&t);
    else
        emit(&t, "@%%first cp.async.bulk.wait_group 0;\n");
    end(&t);

    CUdeviceptr global = device_upload(m->global, SHARED);
    CUtensorMap none = {0};
    run(&t, &none, m->room, global, "copies");
    device_download(m->global, global, SHARED);
    cuMemFree(global);
    compare("shared memory", m->room, m->wanted_room, SHARED, t.at);
    compare("global memory", m->global, m->wanted_global, SHARED, t.at);
    free(m);
}

Test(isa_tensor, random_bulk_copies_of_bytes_load_and_store_just_those)
{
    random_start(4);
    device_open();
    for (int i = 0; i < 2 * KERNELS; i++)
        check_copies(i % 2);
    device_close();
}

/* ---- what cannot be encoded ------------------------------------------------------------------ */

enum { DAMAGES = 12 };

/* Breaks one rule of cuda.h; gives whether that rule is about such a shape. */
static int damage(shape *s, int kind, CUdeviceptr *at)
{
    static const cuuint32_t ranks[] = {0, RANK + 1};
    int any = below(s->rank), outer = s->rank > 1 ? between(1, s->rank - 1) : 0;
    cuuint64_t *stride = &s->strides[outer ? outer - 1 : 0], many = (cuuint64_t)1 << 32;
    switch (kind) {
    case 0:
    case 1:
        s->rank = (int)ranks[kind];
        return 1;
    case 2:
        *at += (CUdeviceptr)between(1, 15);
        return 1;
    case 3:
    case 4:
        s->sizes[any] = kind == 3 ? 0 : many + 1;
        return 1;
    case 5:
    case 6:
        *stride = kind == 5 ? *stride + (cuuint64_t)between(1, 15) : many << 8;
        return outer;
    case 7:
    case 8:
        s->box[any] = kind == 7 ? 0 : 272;
        return 1;
    case 9:
        s->box[0]++; /* of less than 16 bytes */
        return 1;
    case 10:
        s->steps[outer] = below(2) ? 0 : 9;
        return outer;
    default:
        s->box[0] = (cuuint32_t)((size_t)s->swizzle + 16) / (cuuint32_t)s->type->bytes;
        return s->swizzle;
    }
}

Test(isa_tensor, a_shape_that_breaks_one_rule_is_not_encoded)
{
    random_start(5);
    device_open();
    CUdeviceptr tensor = device_alloc(TENSOR + GUARD);
    CUtensorMap map;
    for (int i = 0; i < 100 * DAMAGES; i++) {
        CUdeviceptr at = tensor;
        shape s = random_shape(between(1, RANK), &tensor_types[below(TENSOR_TYPES)], 0);
        cr_assert_eq(encode_shape(&map, &s, at), CUDA_SUCCESS);
        if (damage(&s, i % DAMAGES, &at))
            cr_assert_eq(encode_shape(&map, &s, at), CUDA_ERROR_INVALID_VALUE, "%s, rule %d",
                         s.type->name, i % DAMAGES);
    }
    cuMemFree(tensor);
    device_close();
}

Test(isa_tensor, the_largest_shape_is_encoded)
{
    device_open();
    CUdeviceptr tensor = device_alloc(TENSOR);
    CUtensorMap map;
    cuuint64_t many = (cuuint64_t)1 << 32, far = ((cuuint64_t)1 << 40) - 16;
    shape s = {.type = &tensor_types[0],
               .rank = RANK,
               .sizes = {many, many, many, many, many},
               .strides = {many, far, far, far},
               .box = {256, 256, 256, 256, 256},
               .steps = {1, 8, 8, 8, 8}};
    cr_assert_eq(encode_shape(&map, &s, tensor), CUDA_SUCCESS);
    cuMemFree(tensor);
    device_close();
}
