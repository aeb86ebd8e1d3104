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

/* ---- words that come where nothing expects them --------------------------------------------- */

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
    char *seeds[5] = {
        read_file(MMLP_TEST_CORPUS "/arithmetic.ptx"), read_file(MMLP_TEST_CORPUS "/control.ptx"),
        read_file(MMLP_TEST_CORPUS "/collective.ptx"), read_file(MMLP_TEST_BENCH "/gemm_bf16.ptx"),
        read_file(MMLP_TEST_BENCH "/gemm_fp32.ptx")};
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
    for (int i = 0; i < 5; i++)
        free(seeds[i]);
}
