/*
 * decode_wgmma.c: wgmma.* (PTX ISA 9.7.15). A fragment has up to 128 registers, so D and A are in a
 * list of the kernel; its registers keep their places to themselves, for they are in use while
 * other instructions run (wgmma.c).
 */
#include <stdlib.h>
#include <string.h>

#include "exec.h"

_Static_assert(TYPE_COUNT <= WGMMA_TYPE + 1, "aux has six bits for a type");

/* ---- forms ---- */

typedef struct wgmma_form {
    uint64_t d, ab; /* types of D; of A and B, which are the same but for ... */
    bool mixed;     /* ... these */
    int k;
    bool negates, transposes, saturates; /* operands and words that it has */
} wgmma_form;

static const wgmma_form forms[] = {
    {M(F32), M(BF16), false, 16, true, true, false},
    {M(F32) | M(F16), M(F16), false, 16, true, true, false},
    {M(F32), M(TF32), false, 8, true, false, false},
    {M(F32) | M(F16), M(E4M3) | M(E5M2), true, 32, true, false, false},
    {M(S32), M(S8) | M(U8), true, 32, false, false, true},
};

static bool has_columns(const wgmma_form *f, int n)
{
    return !f->saturates || n % 16 == 0 || n <= 24; /* of integers: 8, 16, 24, 32, 48, 64, ... */
}

static const wgmma_form *find_form(decoder *d)
{
    const decode_words *w = &d->words;
    if (w->type_count != 3 || !w->wgmma_n) {
        decode_unknown(d);
    }
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        const wgmma_form *f = &forms[i];
        if ((f->d >> w->types[0] & 1) && (f->ab >> w->types[1] & 1) && (f->ab >> w->types[2] & 1) &&
            (f->mixed || w->types[1] == w->types[2]) && f->k == w->wgmma_k &&
            has_columns(f, w->wgmma_n) && (f->saturates || !(w->flags & F(SATFINITE)))) {
            return f;
        }
    }
    decode_unknown(d);
}

/* ---- fragments ---- */

static void name_register(decoder *d, decode_register *to, int reg)
{
    for (const ptx_reg_names *n = d->instance->function->reg_names; n; n = n->next) {
        if (reg >= n->first && reg < n->first + n->count) {
            to->name = n->name;
            to->number = n->numbered ? reg - n->first : -1;
        }
    }
}

static uint32_t use_async(decoder *d, const ptx_operand *item)
{
    if (decode_register_bytes(d, item) != 4) {
        decode_fail(d, "a register of a fragment of 'wgmma' has %d bits, 32 are wanted",
                    8 * decode_register_bytes(d, item));
    }
    uint32_t number = decode_register_number(d, item->reg);
    d->registers[number].is_async = true;
    name_register(d, &d->registers[number], item->reg);
    return number;
}

static void add_to_list(decoder *d, uint32_t operand)
{
    POOL_GROW(d->lists, d->list_count, d->list_capacity);
    d->lists[d->list_count++] = operand;
}

static void add_fragment(decoder *d, const ptx_operand *operand, int registers, char name,
                         bool defines)
{
    bool is_list = operand->kind == OPERAND_VECTOR;
    if (!is_list || operand->item_count != registers) {
        decode_fail(d, "%c of 'wgmma' has %d registers, %d are wanted", name,
                    is_list ? operand->item_count : 1, registers);
    }
    for (int i = 0; i < registers; i++) {
        const ptx_operand *item = &operand->items[i];
        bool is_constant = !defines && item->kind != OPERAND_REG;
        add_to_list(d, is_constant ? decode_use(d, item, 4) : use_async(d, item));
    }
}

static int compare_numbers(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

/* D may have no register twice, nor one of A. */
static void check_overlap(decoder *d, uint32_t first, uint32_t count_d)
{
    uint32_t sorted[WGMMA_MOST_LIST], count = d->list_count - first;
    memcpy(sorted, d->lists + first, count_d * sizeof *sorted);
    qsort(sorted, count_d, sizeof *sorted, compare_numbers);
    for (uint32_t i = 1; i < count_d; i++) {
        if (sorted[i] == sorted[i - 1]) {
            decode_fail(d, "D of 'wgmma' has a register twice");
        }
    }
    for (uint32_t i = count_d; i < count; i++) {
        if (bsearch(&d->lists[first + i], sorted, count_d, sizeof *sorted, compare_numbers)) {
            decode_fail(d, "A and D of 'wgmma' have a register in common");
        }
    }
}

/* A list that is the one before it again takes no place of its own. */
static uint32_t share_list(decoder *d, uint32_t first)
{
    uint32_t count = d->list_count - first, before = d->latest_list;
    bool again = count == first - before &&
                 memcmp(d->lists + before, d->lists + first, count * sizeof *d->lists) == 0;
    d->list_count = again ? first : d->list_count;
    d->latest_list = again ? before : first;
    return d->latest_list;
}

/* ---- the instructions ---- */

static bool read_choice(decoder *d, const ptx_operand *operand, int no, int yes, const char *name)
{
    int64_t value = decode_immediate(d, operand);
    if (value != no && value != yes) {
        decode_fail(d, "%s of 'wgmma' is %lld, %d or %d is wanted", name, (long long)value, no,
                    yes);
    }
    return value == yes;
}

/* Behind B: scale-d, then what the form has of imm-scale-a, -b, imm-trans-a (of descriptors), -b.
 */
static int64_t read_flags(decoder *d, const wgmma_form *f, bool in_registers)
{
    const ptx_operand *o = d->statement->operands;
    int64_t flags = in_registers ? WGMMA_A_REGISTERS : 0;
    int at = 4;
    if (f->negates) {
        flags |= read_choice(d, &o[at++], 1, -1, "imm-scale-a") ? WGMMA_A_NEGATED : 0;
        flags |= read_choice(d, &o[at++], 1, -1, "imm-scale-b") ? WGMMA_B_NEGATED : 0;
    }
    if (f->transposes && !in_registers) {
        flags |= read_choice(d, &o[at++], 0, 1, "imm-trans-a") ? WGMMA_A_TRANSPOSED : 0;
    }
    if (f->transposes) {
        flags |= read_choice(d, &o[at++], 0, 1, "imm-trans-b") ? WGMMA_B_TRANSPOSED : 0;
    }
    return flags | (d->words.flags & F(SATFINITE) ? WGMMA_SATURATES : 0);
}

static void decode_multiply(decoder *d)
{
    const decode_words *w = &d->words;
    const ptx_operand *o = d->statement->operands;
    const wgmma_form *f = find_form(d);
    bool in_registers = d->statement->operand_count > 1 && o[1].kind == OPERAND_VECTOR;
    int count = 4 + (f->negates ? 2 : 0) + (f->transposes ? in_registers ? 1 : 2 : 0);
    decode_operand_count(d, count, count);
    int64_t flags = read_flags(d, f, in_registers);
    uint32_t first = d->list_count;
    int count_d = w->wgmma_n / (w->types[0] == TYPE_F16 ? 4 : 2);
    add_fragment(d, &o[0], count_d, 'D', true);
    if (in_registers) {
        add_fragment(d, &o[1], 4, 'A', false);
    }
    check_overlap(d, first, (uint32_t)count_d);
    if (o[3].kind == OPERAND_INT) {
        read_choice(d, &o[3], 0, 1, "scale-d");
    }
    uint32_t a = in_registers ? decode_const(d, 0, 8) : decode_use(d, &o[1], 8);
    uint32_t b = decode_use(d, &o[2], 8), adds = decode_use_predicate(d, &o[3]);
    decode_instr *in = decode_emit(d, IR_wgmma);
    in->in.aux = (uint32_t)w->wgmma_n / 8 | (uint32_t)w->wgmma_k / 8 << WGMMA_K8_SHIFT |
                 (uint32_t)w->types[0] << WGMMA_D_SHIFT | (uint32_t)w->types[1] << WGMMA_A_SHIFT |
                 (uint32_t)w->types[2] << WGMMA_B_SHIFT;
    in->in.imm = flags;
    in->list_defs = (uint32_t)count_d;
    in->list_uses = d->list_count - first - in->list_defs;
    in->in.target = share_list(d, first);
    decode_add_use(in, a);
    decode_add_use(in, b);
    decode_add_use(in, adds);
}

void decode_wgmma(decoder *d)
{
    const decode_words *w = &d->words;
    bool multiplies = w->mode == MODE_MMA_ASYNC, waits = w->mode == MODE_WAIT_GROUP;
    if (d->module->target != 90 || d->module->target_suffix != 'a') {
        decode_fail(d, "'wgmma' needs .target sm_90a");
    }
    if ((w->flags & ~(multiplies ? F(SATFINITE) : 0)) != (F(SYNC) | F(ALIGNED)) ||
        (!multiplies && (w->type_count || w->wgmma_n))) {
        decode_unknown(d);
    }
    d->kernel->has_wgmma = true;
    if (multiplies) {
        decode_multiply(d);
        return;
    }
    if (!waits && w->mode != MODE_FENCE && w->mode != MODE_COMMIT_GROUP) {
        decode_unknown(d);
    }
    decode_operand_count(d, waits ? 1 : 0, waits ? 1 : 0);
    int64_t pending = waits ? decode_immediate(d, &d->statement->operands[0]) : 0;
    if (pending < 0) {
        decode_fail(d, "'wgmma.wait_group' of %lld groups: 0 or more are wanted",
                    (long long)pending);
    }
    ir_op op = waits ? IR_wgmma_wait : w->mode == MODE_FENCE ? IR_wgmma_fence : IR_wgmma_commit;
    decode_emit(d, op)->in.imm = pending;
}
