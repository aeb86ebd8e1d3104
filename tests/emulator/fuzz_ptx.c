/*
 * fuzz_ptx.c: loads PTX texts with mistakes in them. Loading must give a module or a line of text,
 * whatever the text is: no crash, no leak, no hang (the sanitizers watch). The texts are a function
 * of the round's number alone. MMLP_TEST_FUZZ_ROUNDS runs more rounds than a test should,
 * MMLP_TEST_FUZZ_FIRST starts at another one, MMLP_TEST_FUZZ_KEEP is a file that gets each text
 * before it is loaded.
 */
#include <criterion/criterion.h>
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

enum { ROUNDS = 15000, MOST_TOKENS = 1 << 16, MOST_TEXT = 1 << 18 };

/* ---- texts to start from ------------------------------------------------------------------- */

#define HEADER ".version 9.0\n.target sm_80\n.address_size 64\n"

static const char arithmetic[] = HEADER
    ".visible .entry kernel(.param .u64 pin, .param .u64 pout)\n{\n"
    "  .shared .align 16 .b8 own[256];\n"
    "  .reg .b64 %in, %out, %rd<8>; .reg .b32 %t, %r<16>; .reg .f32 %f<8>; .reg .f64 %d<4>;\n"
    "  .reg .b16 %h<4>; .reg .pred %p<4>; .reg .b128 %q<2>;\n"
    "  ld.param.u64 %in, [pin]; ld.param.u64 %out, [pout+0]; mov.u32 %t, %tid.x;\n"
    "  cvta.to.global.u64 %in, %in; mad.wide.u32 %rd0, %t, 4, %out;\n"
    "  ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%in+16]; add.cc.u32 %r4, %r0, %r1; addc.u32 %r5, "
    "%r2, -1;\n"
    "  setp.lt.and.s32 %p0|%p1, %r0, %r1, !%p2; @!%p0 mul.lo.u32 %r6, %r0, 0x10;\n"
    "  cvt.rn.f32.u32 %f0, %r1; fma.rn.f32 %f1, %f0, 0f3f800000, %f0; cvt.rzi.s64.f64 %rd1, %d0;\n"
    "  mov.b64 {%r7, %r8}, %rd1; mov.b64 %rd2, {%r8, %r7}; prmt.b32 %r9, %r7, %r8, 0x3210;\n"
    "  lop3.b32 %r10, %r7, %r8, %r9, 0xe8; bfe.u32 %r11, %r10, 3, 5; shf.l.wrap.b32 %r12, %r7, "
    "%r8, 7;\n"
    "  selp.f32 %f2, %f0, %f1, %p1; ex2.approx.ftz.f32 %f3, %f2; cvt.rn.bf16x2.f32 %r13, %f2, "
    "%f3;\n"
    "  st.shared.v2.b32 [own+8], {%r12, %r13}; mov.b128 %q0, {%rd1, %rd2}; st.b32 [%rd0], "
    "%r13;\n  ret;\n}\n";

static const char control[] = HEADER
    ".global .u32 word = 7;\n.const .f32 c[3] = {1.0, 0f40000000, -3.0};\n"
    ".global .align 8 .u64 table[4] = {1, generic(word)+4, word, 0x10};\n"
    ".extern .shared .align 16 .b8 dynamic[];\n"
    ".extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);\n"
    ".func (.param .b32 result) twice(.param .b32 x)\n{\n"
    "  .reg .b32 %a; ld.param.b32 %a, [x]; add.s32 %a, %a, %a; st.param.b32 [result], %a; ret;\n"
    "}\n"
    ".visible .entry kernel(.param .align 16 .b8 block[32], .param .u32 n)\n"
    ".maxntid 128, 1, 1\n.minnctapersm 2\n{\n"
    "  .local .align 8 .b8 depot[40]; .reg .pred %p; .reg .b32 %r<8>; .reg .b64 %rd<4>;\n"
    "  .pragma \"nounroll\"; .loc 1 2 3\n"
    "  ld.param.u32 %r0, [n]; ld.param.v2.u32 {%r1, %r2}, [block+8];\n"
    "  targets: .branchtargets L0, L1, $L2;\n  brx.idx %r0, targets;\n"
    "L0: setp.ne.u32 %p, %r1, 0; @%p bra L1; exit;\n"
    "L1: { .param .b32 x; .param .b32 y; st.param.b32 [x+0], %r1; call.uni (y), twice, (x); "
    "ld.param.b32 %r3, [y]; }\n"
    "$L2: bar.sync 0; barrier.cta.red.popc.u32 %r4, 1, 64, %p; bar.warp.sync -1;\n"
    "  mov.u64 %rd0, depot; cvta.local.u64 %rd0, %rd0; st.u32 [%rd0+4], %r3;\n"
    "  atom.global.add.u32 %r5, [table+8], 1; red.shared.add.u32 [dynamic], 2;\n"
    "  { .param .b64 a; .param .b64 b; .param .b32 z; st.param.b64 [a], %rd0; st.param.b64 [b], "
    "%rd0; @%p call (z), vprintf, (a, b); }\n"
    "  @%p trap; ret;\n}\n.section .debug_str { .b8 1, 2 }\n";

static const char collective[] =
    ".version 9.0\n.target sm_90\n.address_size 64\n"
    ".visible .entry kernel()\n.reqntid 32\n{\n"
    "  .shared .align 128 .b8 tile[1024]; .reg .b32 %r<20>; .reg .f32 %f<8>; .reg .pred %p, %q;\n"
    "  .reg .b64 %rd; .reg .b32 own, b1, b2;\n"
    "  mov.u32 own, tile; shfl.sync.bfly.b32 %r0|%p, %r1, 4, 31, -1; vote.sync.ballot.b32 %r2, "
    "!%p, -1;\n"
    "  match.any.sync.b32 %r3, %r2, 0xffffffff; redux.sync.add.s32 %r4, %r3, -1; activemask.b32 "
    "%r5;\n"
    "  cp.async.cg.shared.global.L2::128B [own], [%rd], 16; cp.async.ca.shared.global [own+16], "
    "[%rd+8], 8, %r5;\n"
    "  cp.async.commit_group; cp.async.wait_group 0; cp.async.wait_all;\n"
    "  ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%r6, %r7, %r8, %r9}, [own+64];\n"
    "  ldmatrix.sync.aligned.m8n8.x2.shared::cta.b16 {b1, b2}, [own];\n"
    "  mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f0, %f1, %f2, %f3}, {%r6, %r7, %r8, "
    "%r9}, {b1, b2}, {%f0, %f1, %f2, %f3};\n"
    "  setp.gt.f32 %q|%p, %f0, %f1; @%q membar.gl; fence.acq_rel.gpu; prefetch.global.L2 [%rd];\n"
    "  st.shared.v4.f32 [tile+32], {%f0, %f1, %f2, %f3}; elect.sync %r10|%p, -1; ret;\n}\n";

static const char *const strange[] = {"0xffffffffffffffff",
                                      "-9223372036854775808",
                                      "9223372036854775807",
                                      "4294967297",
                                      "0",
                                      "-1",
                                      "0f7fc00000",
                                      "0dfff0000000000000",
                                      "1e400",
                                      "99999999999999999999999",
                                      "{",
                                      "}",
                                      "[",
                                      "]",
                                      "(",
                                      ")",
                                      ",",
                                      ";",
                                      ":",
                                      "|",
                                      "!",
                                      "@",
                                      "+",
                                      "-",
                                      "<",
                                      ">",
                                      "=",
                                      "%",
                                      ".",
                                      "_",
                                      "\"",
                                      "/*",
                                      "*/",
                                      "//",
                                      "{}",
                                      "[]",
                                      "()",
                                      "%r0",
                                      "%p",
                                      "%tid.w",
                                      "%clock64",
                                      "%r99999999",
                                      "kernel",
                                      "tile",
                                      "WARP_SZ",
                                      ".align",
                                      ".param",
                                      ".b8",
                                      ".pred",
                                      ".f16x2",
                                      ".b128",
                                      ".attribute(",
                                      ".branchtargets",
                                      ".callprototype",
                                      ".extern",
                                      ".visible",
                                      ".weak",
                                      ".section",
                                      ".pragma",
                                      ".reg",
                                      ".shared",
                                      ".local",
                                      ".const",
                                      ".global",
                                      ".entry",
                                      ".func",
                                      ".v2",
                                      ".v4",
                                      ".v8",
                                      ".sat",
                                      ".rn",
                                      ".cc",
                                      ".wide",
                                      ".sync",
                                      ".aligned",
                                      ".trans",
                                      ".x4",
                                      "generic(",
                                      "mov.b128",
                                      "call",
                                      "bra",
                                      "ret"};
enum { STRANGE = sizeof strange / sizeof strange[0] };

/* ---- random changes ------------------------------------------------------------------------ */

static uint64_t state;

static uint32_t below(uint32_t limit)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return limit ? (uint32_t)(state >> 33) % limit : 0;
}

typedef struct token {
    size_t at, length;
} token;

static token tokens[MOST_TOKENS];
static char text[MOST_TEXT], changed[2 * MOST_TEXT];

static bool in_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '%';
}

static uint32_t find_tokens(size_t length)
{
    uint32_t count = 0;
    for (size_t at = 0; at < length && count < MOST_TOKENS;) {
        size_t start = at++;
        bool word = in_word(text[start]) || text[start] == '.';
        while (word && at < length && in_word(text[at]))
            at++;
        if (!isspace((unsigned char)text[start]))
            tokens[count++] = (token){start, at - start};
    }
    return count;
}

/* Replaces `length` bytes at `at` by others; the text keeps fitting. */
static size_t splice(size_t total, size_t at, size_t length, const char *with, size_t bytes)
{
    if (total - length + bytes + 1 >= MOST_TEXT)
        return total;
    memcpy(changed, text, at);
    memcpy(changed + at, with, bytes);
    memcpy(changed + at + bytes, text + at + length, total - at - length);
    total = total - length + bytes;
    memcpy(text, changed, total);
    text[total] = '\0';
    return total;
}

/* Directives, registers, numbers, names and marks. */
static int kind_of(token t)
{
    char c = text[t.at];
    return c == '.' || c == '%' ? c : isdigit((unsigned char)c) ? '0' : in_word(c) ? 'a' : ',';
}

static size_t mutate(size_t total)
{
    char copy[4096];
    uint32_t count = find_tokens(total), kind = below(14);
    if (!count)
        return total;
    token a = tokens[below(count)], b = tokens[below(count)];
    const char *word = strange[below(STRANGE)];
    size_t bytes;
    switch (kind) {
    case 0: /* flip a bit */
        a.at += below((uint32_t)a.length);
        text[a.at] = (char)(text[a.at] ^ 1 << below(7));
        return strlen(text);
    case 1: /* cut */
        if (below(3))
            return total;
        text[a.at] = '\0';
        return a.at;
    case 2: /* take a token away */
        return splice(total, a.at, a.length, "", 0);
    case 3: /* repeat one */
        bytes = a.length < sizeof copy ? a.length : sizeof copy;
        memcpy(copy, text + a.at, bytes);
        return splice(total, a.at, 0, copy, bytes);
    case 4: /* put a strange word in the place of one, or before it */
    case 5:
        return splice(total, a.at, kind == 4 ? a.length : 0, word, strlen(word));
    case 6: /* repeat or move a range of up to a few lines */
        bytes = below(400);
        bytes = bytes < total - a.at ? bytes : total - a.at;
        memcpy(copy, text + a.at, bytes);
        return splice(total, b.at, 0, copy, bytes);
    default: /* put a token of the text in the place of another, mostly one of its kind */
        for (int i = 0; kind > 7 && i < 20 && kind_of(a) != kind_of(b); i++)
            b = tokens[below(count)];
        bytes = b.length < sizeof copy ? b.length : sizeof copy;
        memcpy(copy, text + b.at, bytes);
        return splice(total, a.at, a.length, copy, bytes);
    }
}

/* ---- the loop ------------------------------------------------------------------------------ */

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    cr_assert(file != NULL, "%s cannot be opened", path);
    char *content = NULL;
    size_t capacity = 0;
    cr_assert(getdelim(&content, &capacity, '\0', file) > 0);
    fclose(file);
    cr_assert(strlen(content) < MOST_TEXT);
    return content;
}

static long number_of(const char *variable, long otherwise)
{
    const char *value = getenv(variable);
    return value ? strtol(value, NULL, 10) : otherwise;
}

static void keep_text(const char *path)
{
    FILE *file = path ? fopen(path, "w") : NULL;
    if (file) {
        fwrite(text, 1, strlen(text), file);
        fclose(file);
    }
}

Test(fuzz_ptx, any_text_is_loaded_or_refused_with_a_line)
{
    char *bench[2] = {read_file(MMLP_TEST_BENCH "/gemm_bf16.ptx"),
                      read_file(MMLP_TEST_BENCH "/gemm_fp32.ptx")};
    const char *seeds[5] = {arithmetic, control, collective, bench[0], bench[1]};
    long first = number_of("MMLP_TEST_FUZZ_FIRST", 0), loaded = 0;
    long rounds = number_of("MMLP_TEST_FUZZ_ROUNDS", ROUNDS);
    device_open();
    for (int i = 0; i < 5; i++)
        cr_assert_eq(cuModuleUnload(device_load(seeds[i], "a text without mistakes")),
                     CUDA_SUCCESS);
    for (long round = first; round < first + rounds; round++) {
        state = (uint64_t)round * UINT64_C(0x9e3779b97f4a7c15) + 1;
        /* the long texts take ten times as long to load */
        uint32_t seed = below(16) ? below(3) : 3 + below(2);
        size_t total = strlen(seeds[seed]);
        memcpy(text, seeds[seed], total + 1);
        for (uint32_t changes = 1 + below(5) / 3 + below(9) / 8 * 3; changes > 0; changes--)
            total = mutate(total);
        keep_text(getenv("MMLP_TEST_FUZZ_KEEP"));
        char log[512] = "";
        CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
        void *values[] = {log, (void *)(size_t)sizeof log};
        CUmodule module = NULL;
        CUresult result = cuModuleLoadDataEx(&module, text, 2, options, values);
        if (result == CUDA_SUCCESS) {
            loaded++;
            cr_assert_eq(cuModuleUnload(module), CUDA_SUCCESS, "round %ld", round);
        } else {
            cr_assert(result == CUDA_ERROR_INVALID_PTX || result == CUDA_ERROR_NO_BINARY_FOR_GPU ||
                          result == CUDA_ERROR_OUT_OF_MEMORY,
                      "round %ld: %d", round, (int)result);
            cr_assert(log[0] || result == CUDA_ERROR_OUT_OF_MEMORY, "round %ld: no log", round);
        }
    }
    size_t available, all;
    cr_assert_eq(cuMemGetInfo(&available, &all), CUDA_SUCCESS);
    cr_expect_eq(available, all, "device memory of %zu bytes was not given back", all - available);
    cr_expect(rounds < 100 || (loaded > rounds / 20 && loaded < rounds * 19 / 20),
              "%ld of %ld texts were accepted: the changes are too weak or too strong", loaded,
              rounds);
    device_close();
    free(bench[0]);
    free(bench[1]);
}
