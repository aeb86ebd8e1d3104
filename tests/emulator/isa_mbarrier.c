/*
 * isa_mbarrier.c: random legal sequences of mbarrier operations against a state machine written
 * from PTX ISA 9.7.13.15.
 *
 * A sequence is straight-line PTX of one warp. What its waits and pending counts give is compared.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"
#include "ptx_text.h"

enum {
    OBJECTS = 3,
    STATES = 8,
    STEPS = 32,
    RESULTS = STEPS,
    SEQUENCES = 200,
    MOST = (1 << 20) - 1 /* of a count */
};

/* ---- the state machine ----------------------------------------------------------------------- */

typedef struct object {
    int expected, pending, bytes; /* bytes: the tx-count, which may be below zero */
    unsigned phase;
    int is_unseen; /* no wait has found the phase before over: nobody may arrive yet */
} object;

static object initial(int count)
{
    return (object){.expected = count, .pending = count};
}

/* The phase is over once nothing is pending and all bytes have come: the next one starts. */
static void settle(object *o)
{
    if (o->pending != 0 || o->bytes != 0)
        return;
    o->phase++;
    o->is_unseen = 1;
    o->pending = o->expected;
}

/* What expect-tx, then a drop, then arrive-on make of it. */
static object arrived(object o, int count, int bytes, int is_drop)
{
    o.bytes += bytes;
    o.expected -= is_drop ? count : 0;
    o.pending -= count;
    settle(&o);
    return o;
}

static object completed(object o, int bytes)
{
    o.bytes -= bytes;
    settle(&o);
    return o;
}

/* ---- one sequence ---------------------------------------------------------------------------- */

/* A register that an arrival has written: in lanes below `lanes`. */
typedef struct state {
    int object, lanes; /* no lanes: none */
    unsigned phase;
    int pending; /* what mbarrier.pending_count must give, -1: it may not be asked */
} state;

typedef struct sequence {
    uint64_t random;
    int objects, results, are_large;
    object object[OBJECTS];
    state state[STATES];
    uint32_t wanted[RESULTS];
    ptx_text text;
} sequence;

static int below(sequence *s, int bound)
{
    s->random = s->random * 6364136223846793005u + 1442695040888963407u;
    return (int)((s->random >> 33) % (unsigned)bound);
}

static const char *pick(sequence *s, const char *const *of, int count)
{
    return of[below(s, count)];
}
#define PICK(s, ...)                                                                               \
    pick(s, (const char *const[]){__VA_ARGS__},                                                    \
         (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *)))

/* The order, where one is given, and the space; then the address of an object in that space. */
typedef struct place {
    char suffix[48], address[32];
} place;

static place somewhere(sequence *s, int which, const char *order)
{
    place p;
    int form = below(s, 4), offset = 40 * which + 8;
    snprintf(p.suffix, sizeof p.suffix, "%s%s.b64", order,
             form == 0 ? "" : (form == 1 ? ".shared::cta" : ".shared"));
    snprintf(p.address, sizeof p.address, "[%s+%d]",
             form == 0 ? "%rd30" : (form == 3 ? "%r60" : "shared"), offset);
    return p;
}

/* A number as an operand: an immediate, or a register that was given it. */
static const char *operand(sequence *s, int value)
{
    static char text[16];
    if (below(s, 2)) {
        emit(&s->text, "mov.u32 %%r1, %d; ", value);
        return "%r1";
    }
    snprintf(text, sizeof text, "%d", value);
    return text;
}

/* Lanes below a number have %p1. */
static void only_lanes(sequence *s, int lanes)
{
    emit(&s->text, "bar.warp.sync -1; setp.lt.u32 %%p1, %%thread, %d; ", lanes);
}

/* %r0 is a result. */
static void record(sequence *s, uint32_t wanted)
{
    emit(&s->text, "@%%p2 st.global.u32 [%%out+%d], %%r0;\n", 4 * s->results);
    s->wanted[s->results++] = wanted;
}

static void start(sequence *s, int which)
{
    int count = 1 + below(s, s->are_large ? MOST : (below(s, 2) ? 3 : 12));
    only_lanes(s, 1);
    const char *number = operand(s, count);
    place p = somewhere(s, which, "");
    emit(&s->text, "@%%p1 mbarrier.init%s %s, %s;\n", p.suffix, p.address, number);
    s->object[which] = initial(count);
}

/* The object ends, its bytes hold something else, and another object starts there. */
static int renew(sequence *s, int which)
{
    place p = somewhere(s, which, "");
    only_lanes(s, 1);
    emit(&s->text, "@%%p1 mbarrier.inval%s %s; ", p.suffix, p.address);
    emit(&s->text, "mov.b64 %%rd29, -1; @%%p1 st.shared.b64 [shared+%d], %%rd29;\n",
         40 * which + 8);
    for (int i = 0; i < STATES; i++)
        if (s->state[i].object == which)
            s->state[i].lanes = 0;
    start(s, which);
    return 1;
}

/* ---- arrivals and bytes ---------------------------------------------------------------------- */

typedef enum arrival { PLAIN, COUNTED, NO_COMPLETE, EXPECTING, ARRIVALS } arrival;

/*
 * What the text allows: no more arrivals than are pending, no next phase of none, a noComplete that
 * completes nothing, a tx-count in its range. Bytes that are expected after the last arrival and
 * cancel those that came early are left out: the text does not say that expect-tx ends a phase.
 */
static int may_arrive(const object *o, arrival form, int count, int bytes, int is_drop)
{
    if (count > o->pending || (is_drop && count >= o->expected) || o->bytes + bytes > MOST)
        return 0;
    if (count < o->pending)
        return 1;
    return o->bytes + bytes > 0 || (o->bytes + bytes == 0 && form != NO_COMPLETE);
}

static void emit_arrival(sequence *s, int which, arrival form, int is_drop, int number, int slot)
{
    const char *order = form == NO_COMPLETE ? PICK(s, "", ".release.cta")
                                            : PICK(s, "", "", ".release.cta", ".release.cluster",
                                                   ".relaxed.cta", ".relaxed.cluster");
    place p = somewhere(s, which, order);
    const char *last = form == PLAIN ? "" : operand(s, number);
    char to[8] = "_";
    if (slot >= 0)
        snprintf(to, sizeof to, "%%rd%d", slot);
    emit(&s->text, "@%%p1 mbarrier.arrive%s%s%s %s, %s%s%s;\n", is_drop ? "_drop" : "",
         form == NO_COMPLETE ? ".noComplete" : (form == EXPECTING ? ".expect_tx" : ""), p.suffix,
         to, p.address, *last ? ", " : "", last);
}

static int arrive(sequence *s, int which)
{
    object *o = &s->object[which];
    arrival form = (arrival)below(s, ARRIVALS);
    int lanes = below(s, 3) ? 1 : 1 + below(s, 8), is_drop = below(s, 4) == 0, count = 1;
    if (o->is_unseen || o->pending < lanes)
        return 0;
    if (form == COUNTED || form == NO_COMPLETE)
        count = below(s, 3) ? 1 + below(s, o->pending / lanes) : o->pending / lanes;
    int bytes = form == EXPECTING ? below(s, s->are_large ? MOST / 8 : 4096) : 0;
    if (form == EXPECTING && o->bytes < 0 && below(s, 2) && -o->bytes % lanes == 0)
        bytes = -o->bytes / lanes;
    if (!may_arrive(o, form, count * lanes, bytes * lanes, is_drop))
        return 0;

    int slot = form != NO_COMPLETE && below(s, 3) == 0 ? -1 : below(s, STATES);
    only_lanes(s, lanes);
    emit_arrival(s, which, form, is_drop, form == EXPECTING ? bytes : count, slot);
    if (slot >= 0)
        s->state[slot] =
            (state){which, lanes, o->phase, form == NO_COMPLETE && lanes == 1 ? o->pending : -1};
    *o = arrived(*o, count * lanes, bytes * lanes, is_drop);
    return 1;
}

static int expect(sequence *s, int which)
{
    object *o = &s->object[which];
    int bytes = below(s, s->are_large ? MOST : 4096);
    if (o->bytes + bytes > MOST)
        return 0;
    only_lanes(s, 1);
    const char *number = operand(s, bytes);
    place p = somewhere(s, which, PICK(s, "", ".relaxed.cta", ".relaxed.cluster"));
    emit(&s->text, "@%%p1 mbarrier.expect_tx%s %s, %s;\n", p.suffix, p.address, number);
    o->bytes += bytes;
    return 1;
}

static int complete(sequence *s, int which)
{
    object *o = &s->object[which];
    int bytes = o->bytes > 0 && below(s, 2) ? o->bytes : below(s, s->are_large ? MOST : 4096);
    if (o->bytes - bytes < (o->pending == 0 ? 0 : -MOST))
        return 0;
    only_lanes(s, 1);
    const char *number = operand(s, bytes);
    place p = somewhere(s, which, PICK(s, "", ".relaxed.cta", ".relaxed.cluster"));
    emit(&s->text, "@%%p1 mbarrier.complete_tx%s %s, %s;\n", p.suffix, p.address, number);
    *o = completed(*o, bytes);
    return 1;
}

/* ---- questions ------------------------------------------------------------------------------- */

static place emit_wait(sequence *s, int which, const char *parity, const char **hint)
{
    int is_try = below(s, 2);
    *hint = is_try ? PICK(s, "", ", 0", ", 20") : "";
    emit(&s->text, "setp.ne.u32 %%p0, %%thread, %%thread; @%%p1 mbarrier.%s_wait%s",
         is_try ? "try" : "test", parity);
    return somewhere(
        s, which,
        PICK(s, "", "", ".acquire.cta", ".acquire.cluster", ".relaxed.cta", ".relaxed.cluster"));
}

static void record_wait(sequence *s, int lanes, int is_over)
{
    emit(&s->text, "vote.sync.ballot.b32 %%r0, %%p0, -1; ");
    record(s, is_over ? 0xffffffffu >> (32 - lanes) : 0);
}

/* The phase that a register has: the current one, or the one before. */
static int wait_state(sequence *s, int slot)
{
    state *held = &s->state[slot];
    object *o = &s->object[held->object];
    if (held->lanes == 0 || o->phase - held->phase > 1)
        return 0;
    const char *hint;
    only_lanes(s, held->lanes);
    place p = emit_wait(s, held->object, "", &hint);
    emit(&s->text, "%s %%p0, %s, %%rd%d%s; ", p.suffix, p.address, slot, hint);
    record_wait(s, held->lanes, held->phase != o->phase);
    o->is_unseen &= held->phase == o->phase;
    return 1;
}

/* The phase of a parity: the current one, or the one before. */
static int wait_parity(sequence *s, int which)
{
    object *o = &s->object[which];
    int lanes = 1 + below(s, 32), current = (int)(o->phase & 1);
    int parity = below(s, o->is_unseen ? 4 : 2) ? !current : current;
    const char *hint;
    only_lanes(s, lanes);
    const char *number = operand(s, parity);
    place p = emit_wait(s, which, ".parity", &hint);
    emit(&s->text, "%s %%p0, %s, %s%s; ", p.suffix, p.address, number, hint);
    record_wait(s, lanes, current != parity);
    o->is_unseen &= current == parity;
    return 1;
}

static int ask_pending(sequence *s, int slot)
{
    if (s->state[slot].lanes == 0 || s->state[slot].pending < 0)
        return 0;
    only_lanes(s, 1);
    emit(&s->text, "@%%p1 mbarrier.pending_count.b64 %%r0, %%rd%d; ", slot);
    record(s, (uint32_t)s->state[slot].pending);
    return 1;
}

/* ---- sequences ------------------------------------------------------------------------------- */

/* Whether it was legal, and is now a part of the sequence. */
static int step(sequence *s)
{
    int which = below(s, s->objects), kind = below(s, 40);
    if (kind < 16)
        return arrive(s, which);
    if (kind < 19)
        return expect(s, which);
    if (kind < 24)
        return complete(s, which);
    if (kind < 30)
        return wait_state(s, below(s, STATES));
    if (kind < 35)
        return wait_parity(s, which);
    return kind < 39 ? ask_pending(s, below(s, STATES)) : renew(s, which);
}

typedef struct tally {
    unsigned sequences, results, over, phases; /* over: results that are not 0 */
} tally;

static void run(sequence *s, tally *t)
{
    uint32_t found[RESULTS];
    char name[32];
    snprintf(name, sizeof name, "sequence %u", t->sequences);
    kernel_run(name, s->text.at, 1, 32, NULL, 0, found, sizeof found);
    for (int i = 0; i < s->results; i++) {
        cr_assert_eq(found[i], s->wanted[i], "%s: result %d is %#x, not %#x\n%s", name, i, found[i],
                     s->wanted[i], s->text.at);
        t->over += s->wanted[i] != 0;
    }
    t->sequences++;
    t->results += (unsigned)s->results;
    for (int i = 0; i < s->objects; i++)
        t->phases += s->object[i].phase;
}

static void run_sequences(uint64_t seed, int objects, int are_large)
{
    tally t = {0};
    sequence *s = malloc(sizeof *s);
    cr_assert(s);
    for (uint64_t i = 0; i < SEQUENCES; i++) {
        memset(s, 0, sizeof *s);
        s->random = seed * 1000 + i;
        s->objects = objects;
        s->are_large = are_large;
        emit(&s->text,
             "setp.eq.u32 %%p2, %%thread, 0; mov.u32 %%r60, shared; mov.u64 %%rd30, shared; "
             "cvta.shared.u64 %%rd30, %%rd30;\n");
        for (int which = 0; which < objects; which++)
            start(s, which);
        for (int steps = 0; steps < STEPS;)
            steps += step(s);
        run(s, &t);
    }
    free(s);
    printf("%u sequences: %u results, %u of them true; %u phases\n", t.sequences, t.results, t.over,
           t.phases);
    cr_assert(t.results > 8 * SEQUENCES && t.over > t.results / 4 && t.phases > SEQUENCES / 3,
              "the sequences say too little");
}

Test(isa_mbarrier, random_sequences_on_one_object_follow_the_state_machine)
{
    run_sequences(1, 1, 0);
}

Test(isa_mbarrier, random_sequences_on_three_objects_do_not_mix_them)
{
    run_sequences(2, 3, 0);
}

Test(isa_mbarrier, random_sequences_with_large_counts_and_bytes_follow_the_state_machine)
{
    run_sequences(3, 2, 1);
}

Test(isa_mbarrier, waits_for_a_phase_that_lasts_say_so_however_often_and_the_thread_goes_on)
{
    uint32_t found[5];
    kernel_run("waits",
               "setp.eq.u32 %p1, %thread, 0; @!%p1 bra rest;\n"
               "mbarrier.init.shared.b64 [shared], 1; mov.u32 %r0, 0; mov.u32 %r1, 0;\n"
               "again: mbarrier.try_wait.parity.shared.b64 %p0, [shared], 0, 100;\n"
               "@%p0 add.u32 %r1, %r1, 1; add.u32 %r0, %r0, 1;\n"
               "setp.lt.u32 %p2, %r0, 20; @%p2 bra again;\n"
               "mbarrier.try_wait.parity.shared.b64 %p0, [shared], 1; selp.u32 %r2, 1, 0, %p0;\n"
               "mbarrier.arrive.shared.b64 %rd0, [shared];\n"
               "mbarrier.try_wait.shared.b64 %p0, [shared], %rd0; selp.u32 %r3, 1, 0, %p0;\n"
               "mbarrier.try_wait.parity.shared.b64 %p0, [shared], 1; selp.u32 %r4, 1, 0, %p0;\n"
               "st.global.v4.u32 [%out], {%r0, %r1, %r2, %r3}; st.global.u32 [%out+16], %r4;\n"
               "rest:",
               1, 32, NULL, 0, found, sizeof found);
    static const uint32_t wanted[5] = {20, 0, 1, 1, 0};
    for (int i = 0; i < 5; i++)
        cr_expect_eq(found[i], wanted[i], "word %d is %u, not %u", i, found[i], wanted[i]);
}

/* ---- cp.async.mbarrier.arrive ---------------------------------------------------------------- */

enum { COPIES = 6, THREADS = 64, ROUNDS = 2, BARRIER = 16376 /* behind the copies */ };

/* Copies from %rd1 on, and arrivals; gives how many of a thread the phase must count on. */
static int emit_async(sequence *s)
{
    int noincs = 0;
    for (int c = 0; c < COPIES; c++) {
        emit(&s->text, "cp.async.cg.shared.global [%%r20+%d], [%%rd1+%d], 16;\n", 1024 * c,
             1024 * c);
        for (int arrivals = c == COPIES - 1 ? 1 : below(s, 3); arrivals > 0; arrivals--) {
            bool is_noinc = below(s, 2);
            const char *space = PICK(s, "", ".shared", ".shared::cta");
            emit(&s->text, "cp.async.mbarrier.arrive%s%s.b64 [%s];\n", is_noinc ? ".noinc" : "",
                 space, *space ? PICK(s, "shared+16376", "%r21") : "%rd2");
            noincs += is_noinc;
        }
    }
    return noincs;
}

/* The slots of another thread go to %rd3 and on. */
static void emit_round(sequence *s, const char *copies, int round)
{
    emit(&s->text, "%s", copies);
    if (below(s, 2))
        emit(&s->text,
             "cp.async.wait_all; bar.sync 0; mbarrier.test_wait.parity.shared.b64 %%p1, [%%r21], "
             "%d; @%%p1 st.global.u32 [%%out+%d], %%r21;\n",
             round, 1024 * ROUNDS * COPIES);
    emit(&s->text,
         "mbarrier.arrive.shared.b64 _, [%%r21];\n"
         "again%d: mbarrier.try_wait.parity.shared.b64 %%p1, [%%r21], %d; @!%%p1 bra again%d;\n",
         round, round, round);
    for (int c = 0; c < COPIES; c++)
        emit(&s->text,
             "ld.shared.v4.b32 {%%r1, %%r2, %%r3, %%r4}, [%%r22+%d]; st.global.v4.b32 [%%rd3+%d], "
             "{%%r1, %%r2, %%r3, %%r4};\n",
             1024 * c, 1024 * (COPIES * round + c));
    emit(&s->text, "bar.sync 0;\n");
}

Test(isa_mbarrier, copies_before_an_asynchronous_arrival_are_there_and_count_once_or_not_at_all)
{
    enum { BYTES = ROUNDS * COPIES * THREADS * 16 };
    static uint8_t in[BYTES], out[BYTES + 4];
    sequence *s = malloc(sizeof *s), *copies = malloc(sizeof *copies);
    cr_assert(s && copies);
    for (uint64_t turn = 0; turn < 60; turn++) {
        *s = (sequence){.random = turn};
        *copies = (sequence){.random = turn};
        for (size_t i = 0; i < sizeof in; i++)
            in[i] = (uint8_t)below(s, 256);
        int noincs = emit_async(copies), distance = below(s, THREADS);
        emit(&s->text,
             "mul.lo.u32 %%r20, %%thread, 16; cvt.u64.u32 %%rd4, %%r20; add.u64 %%rd1, %%in, "
             "%%rd4; add.u64 %%rd3, %%out, %%rd4; mov.u32 %%r0, shared; add.u32 %%r21, %%r0, %d;\n"
             "add.u32 %%r22, %%thread, %d; rem.u32 %%r22, %%r22, %d; mad.lo.u32 %%r22, %%r22, 16, "
             "%%r0; add.u32 %%r20, %%r20, %%r0; cvta.shared.u64 %%rd2, shared; add.u64 %%rd2, "
             "%%rd2, %d;\nsetp.eq.u32 %%p0, %%thread, 0; @%%p0 mbarrier.init.shared.b64 [%%r21], "
             "%d; bar.sync 0;\n",
             BARRIER, distance, THREADS, BARRIER, THREADS * (1 + noincs));
        emit_round(s, copies->text.at, 0);
        emit(&s->text, "add.u64 %%rd1, %%rd1, %d;\n", 1024 * COPIES);
        emit_round(s, copies->text.at, 1);
        kernel_run("copies", s->text.at, 1, THREADS, in, sizeof in, out, sizeof out);
        for (int i = 0; i < BYTES; i++) {
            int thread = (i / 16 + distance) % THREADS, from = i / 1024 * 1024 + thread * 16;
            cr_assert_eq(out[i], in[from + i % 16], "turn %d: byte %d\n%s", (int)turn, i,
                         s->text.at);
        }
        cr_assert_eq(out[BYTES], 0, "turn %d: a phase was over too early\n%s", (int)turn,
                     s->text.at);
    }
    free(copies);
    free(s);
}
