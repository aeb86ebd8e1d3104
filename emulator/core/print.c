/*
 * print.c: the two external functions a kernel can call: vprintf, whose text is kept with the block
 * and printed in block order when the grid ends, and __assertfail.
 */
#include <stdio.h>
#include <string.h>

#include "exec.h"

/* What a block prints beyond MOST_PRINTED bytes is lost, as in the full buffer of a GPU. */
enum { LONGEST_STRING = 65536, MOST_PRINTED = 1 << 20, MOST_WIDTH = 9999 };

/* One lane's local memory at an offset. */
static bool read_local(const emu_warp *w, int lane, uint64_t offset, void *out, size_t bytes)
{
    if (offset > w->local_bytes || bytes > w->local_bytes - offset) {
        return false;
    }
    memcpy(out, w->local + (size_t)lane * w->local_bytes + offset, bytes);
    return true;
}

bool print_read(emu_warp *w, const emu_instr *in, int lane, uint64_t address, void *out,
                size_t bytes)
{
    memory_allocation found;
    uint64_t offset = address & (IR_WINDOW_BYTES - 1);
    bool ok = false;
    switch (address >> 48) {
    case 0:
        ok = memory_find(w->block->grid->memory, address, &found) &&
             bytes <= found.bytes - (address - found.base);
        if (ok) {
            memcpy(out, (const void *)(uintptr_t)address, bytes);
        }
        break;
    case 1:
        ok = offset + bytes <= w->block->shared_bytes;
        if (ok) {
            memcpy(out, w->block->shared + offset, bytes);
        }
        break;
    case 2:
        ok = read_local(w, lane, offset, out, bytes);
        break;
    default:
        break;
    }
    if (!ok) {
        fault_raise_address(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, 1u << lane,
                            address >> 48 == 1   ? SPACE_SHARED
                            : address >> 48 == 2 ? SPACE_LOCAL
                                                 : SPACE_GLOBAL,
                            address >> 48 ? offset : address, bytes, "printf reads out of bounds");
    }
    return ok;
}

/* Appends the string at a generic address. */
static bool read_string(emu_warp *w, const emu_instr *in, int lane, uint64_t address, text *out)
{
    char c;
    for (int i = 0; i < LONGEST_STRING; i++) {
        if (!print_read(w, in, lane, address + (uint64_t)i, &c, 1)) {
            return false;
        }
        if (!c) {
            break;
        }
        text_add_bytes(out, &c, 1);
    }
    return true;
}

typedef struct argument_reader {
    emu_warp *w;
    const emu_instr *in;
    int lane;
    uint64_t at; /* generic address of the next argument */
} argument_reader;

static bool next_argument(argument_reader *r, void *out, size_t bytes)
{
    r->at = (r->at + bytes - 1) / bytes * bytes;
    bool ok = print_read(r->w, r->in, r->lane, r->at, out, bytes);
    r->at += bytes;
    return ok;
}

/* %[flags][width][.precision][length]kind, as C's printf reads it. */
typedef struct conversion {
    char flags[8];        /* each once */
    int width, precision; /* a negative precision is none */
    bool is_long;
    char kind;
} conversion;

/* One conversion with its argument: libc does it, from a format of our own. */
static bool print_conversion(argument_reader *r, const conversion *c, text *out)
{
    char format[24];
    uint64_t wide = 0;
    uint32_t narrow = 0;
    double value;
    text string = {0};
    bool ok;
    switch (c->kind) {
    case 'd':
    case 'i':
        ok = c->is_long ? next_argument(r, &wide, 8) : next_argument(r, &narrow, 4);
        snprintf(format, sizeof format, "%%%s*.*lld", c->flags);
        text_add(out, format, c->width, c->precision,
                 c->is_long ? (long long)wide : (long long)(int32_t)narrow);
        return ok;
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        ok = c->is_long ? next_argument(r, &wide, 8) : next_argument(r, &narrow, 4);
        snprintf(format, sizeof format, "%%%s*.*ll%c", c->flags, c->kind);
        text_add(out, format, c->width, c->precision,
                 c->is_long ? (unsigned long long)wide : (unsigned long long)narrow);
        return ok;
    case 'c':
        ok = next_argument(r, &narrow, 4);
        snprintf(format, sizeof format, "%%%s*c", c->flags);
        text_add(out, format, c->width, (int)narrow);
        return ok;
    case 'p':
        ok = next_argument(r, &wide, 8);
        snprintf(format, sizeof format, "%%%s*p", c->flags);
        text_add(out, format, c->width, (void *)(uintptr_t)wide);
        return ok;
    case 's':
        ok = next_argument(r, &wide, 8) && read_string(r->w, r->in, r->lane, wide, &string);
        snprintf(format, sizeof format, "%%%s*.*s", c->flags);
        text_add(out, format, c->width, c->precision, string.chars ? string.chars : "");
        text_free(&string);
        return ok;
    default: /* the floating point conversions */
        ok = next_argument(r, &value, 8);
        snprintf(format, sizeof format, "%%%s*.*%c", c->flags, c->kind);
        text_add(out, format, c->width, c->precision, value);
        return ok;
    }
}

/* A width or precision, in digits or from the arguments; *at moves behind it. */
static int read_number(argument_reader *r, const char **at, bool *ok)
{
    int32_t number = 0;
    if (**at == '*') {
        ++*at;
        *ok &= next_argument(r, &number, 4);
    } else {
        for (; **at >= '0' && **at <= '9'; ++*at) {
            number = number > MOST_WIDTH ? number : 10 * number + (**at - '0');
        }
    }
    return number > MOST_WIDTH ? MOST_WIDTH : number < -MOST_WIDTH ? -MOST_WIDTH : number;
}

/*
 * Prints the conversion that begins at a '%'; returns where the format goes on. What is no
 * conversion of C is printed as it stands.
 */
static const char *one_conversion(argument_reader *r, const char *format, text *out, bool *ok)
{
    const char *at = format + 1;
    conversion c = {.precision = -1};
    for (size_t used = 0; *at && strchr("-+ #0", *at); at++) {
        if (!strchr(c.flags, *at)) {
            c.flags[used++] = *at;
        }
    }
    c.width = read_number(r, &at, ok);
    if (*at == '.') {
        at++;
        c.precision = read_number(r, &at, ok);
    }
    for (; *at && strchr("hlzjt", *at); at++) {
        c.is_long |= *at != 'h';
    }
    c.kind = *at;
    if (c.kind == '%') {
        text_add(out, "%%");
    } else if (c.kind && strchr("diuxXocspfFeEgGaA", c.kind)) {
        *ok &= print_conversion(r, &c, out);
    } else {
        text_add_bytes(out, format, (size_t)(at - format));
        return at;
    }
    return at + 1;
}

static void print_lane(emu_warp *w, const emu_instr *in, int lane)
{
    uint64_t addresses[2];
    text format = {0};
    if (!read_local(w, lane, in->r[0], &addresses[0], 8) ||
        !read_local(w, lane, in->r[1], &addresses[1], 8) ||
        !read_string(w, in, lane, addresses[0], &format)) {
        text_free(&format);
        return;
    }
    argument_reader reader = {w, in, lane, addresses[1]};
    bool ok = true;
    for (const char *at = format.chars ? format.chars : ""; *at && ok;) {
        if (*at != '%') {
            text_add_bytes(&w->block->printed, at++, 1);
        } else {
            at = one_conversion(&reader, at, &w->block->printed, &ok);
        }
    }
    text_free(&format);
}

void print_format(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    for (uint32_t left = mask; left && !w->block->fault.result; left &= left - 1) {
        int lane = __builtin_ctz(left);
        if (w->block->printed.length < MOST_PRINTED) {
            print_lane(w, in, lane);
        }
        if (in->imm >= 0) {
            uint32_t result = 1;
            memcpy(w->local + (size_t)lane * w->local_bytes + in->imm, &result, sizeof result);
        }
    }
}

/* Parameters: message, file, line, function, size of a character. */
void print_assertion(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    int lane = __builtin_ctz(mask);
    uint64_t addresses[3] = {0};
    uint32_t line = 0;
    text parts[3] = {{0}};
    bool ok = read_local(w, lane, in->r[0], &addresses[0], 8) &&
              read_local(w, lane, in->r[1], &addresses[1], 8) &&
              read_local(w, lane, in->r[2], &line, 4) &&
              read_local(w, lane, in->r[3], &addresses[2], 8);
    for (int i = 0; i < 3 && ok; i++) {
        ok = read_string(w, in, lane, addresses[i], &parts[i]);
    }
    const exec_block *b = w->block;
    const exec_grid *g = b->grid;
    unsigned thread = (unsigned)w->index * 32 + (unsigned)lane;
    text message = {0};
    text_add(&message, "%s:%u: %s: block: [%u,%u,%u], thread: [%u,%u,%u] Assertion `%s` failed.",
             parts[1].chars ? parts[1].chars : "", line, parts[2].chars ? parts[2].chars : "",
             b->index[0], b->index[1], b->index[2], thread % g->block[0],
             thread / g->block[0] % g->block[1], thread / g->block[0] / g->block[1],
             parts[0].chars ? parts[0].chars : "");
    fault_raise(w, in, CUDA_ERROR_ASSERT, mask, "%s", message.chars);
    text_free(&message);
    for (int i = 0; i < 3; i++) {
        text_free(&parts[i]);
    }
}
