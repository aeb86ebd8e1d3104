/*
 * ptxrun_manifest.c: what ptxrun says of a bad manifest: one line that names the place, what was
 * found and what is wanted, exit code 3; no crash, no leak.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "temporary_folder.h"

#include "ptxrun_folder.h"

typedef struct bad_manifest {
    const char *text, *line;
} bad_manifest;

/* One manifest after the other in one folder: each is to fail with its line alone. */
static void expect_bad(const bad_manifest *cases, size_t count)
{
    char *folder = ptxrun_folder_make();
    for (size_t i = 0; i < count; i++) {
        program_result result = ptxrun_folder_run(folder, cases[i].text);
        char *end = strchr(result.output, '\n');
        cr_expect(result.exit_code == 3, "exit code %d for %s\nit printed: %s", result.exit_code,
                  cases[i].text, result.output);
        cr_expect(strstr(result.output, cases[i].line), "expected \"%s\"\nit printed: %s",
                  cases[i].line, result.output);
        cr_expect(end && end[1] == '\0', "not one line: %s", result.output);
        program_result_free(&result);
    }
    temporary_folder_remove(folder);
}
#define EXPECT_BAD(cases) expect_bad(cases, sizeof(cases) / sizeof(cases)[0])

#define RUNS "\"runs\": [{\"entry\": \"nothing\", \"grid\": [1], \"block\": [1]}]"

Test(ptxrun_manifest, the_document_and_its_source_are_checked)
{
    static const bad_manifest cases[] = {
        {"", "manifest.json:1:0: is not JSON: '[' or '{' expected"},
        {"{\"ptx\": ", "is not JSON: unexpected token near end of file"},
        {"{\"ptx\": \"kernel.ptx\"} x", "is not JSON: end of file expected"},
        {"{\"ptx\": \"kernel.ptx\", \"ptx\": \"a\"}", "is not JSON: duplicate object key"},
        {"{\"runs\": 99999999999999999999}", "is not JSON: too big integer"},
        {"[]", "manifest.json: found an array of 0, wanted an object"},
        {"{}", "manifest.json: found no source, wanted one of \"ptx\": FILE and \"cuda\": FILE"},
        {"{\"ptx\": \"kernel.ptx\", \"cuda\": \"a.cu\"}", "found both, wanted one of"},
        {"{\"ptx\": \"kernel.ptx\", \"target\": \"compute_80\"}",
         "\"target\" and \"options\" go with \"cuda\", not with \"ptx\""},
        {"{\"ptx\": 5}", "manifest.json: ptx: found 5, wanted a string that is not empty"},
        {"{\"ptx\": \"\"}", "manifest.json: ptx: found \"\", wanted a string that is not empty"},
        {"{\"ptx\": \"none.ptx\"}", "none.ptx: "},
        {"{\"cuda\": \"kernel.ptx\", \"options\": [\"-w\", 7]}", "options[1]: found 7, wanted"},
        {"{\"cuda\": \"kernel.ptx\", \"target\": \"\"}", "target: found \"\", wanted"},
        {"{\"ptx\": \"kernel.ptx\", \"device\": \"gtx\"}",
         "manifest.json: device: found \"gtx\", wanted one of: a100, a10, l40s, h100, b200"},
        {"{\"ptx\": \"kernel.ptx\", \"run\": []}",
         "manifest.json: found the key \"run\", wanted one of: ptx, cuda, target, options, device"},
        {"{\"ptx\": \"kernel.ptx\"}", "manifest.json: runs: found nothing, wanted an array of 1"},
        {"{\"ptx\": \"kernel.ptx\", \"runs\": []}", "runs: found an array of 0, wanted an array"},
        {"{\"ptx\": \"kernel.ptx\", \"runs\": [null]}", "runs[0]: found null, wanted an object"},
    };
    EXPECT_BAD(cases);
}

#define BUFFER(text) "{\"ptx\": \"kernel.ptx\", \"buffers\": {\"x\": " text "}, " RUNS "}"
#define FILLED(text) BUFFER("{\"type\": \"u8\", \"count\": 2, \"fill\": " text "}")

Test(ptxrun_manifest, buffers_and_their_fills_are_checked)
{
    static const bad_manifest cases[] = {
        {"{\"ptx\": \"kernel.ptx\", \"buffers\": 1}", "buffers: found 1, wanted an object of 1 to"},
        {"{\"ptx\": \"kernel.ptx\", \"buffers\": {}}",
         "buffers: found an object, wanted an object"},
        {BUFFER("true"), "buffers.x: found true, wanted an object"},
        {BUFFER("{\"size\": 1}"), "buffers.x: found the key \"size\", wanted one of: type, count"},
        {BUFFER("{\"type\": \"fp32\"}"),
         "buffers.x.type: found \"fp32\", wanted one of: u8, s8, u16, s16, u32, s32, u64, s64"},
        {BUFFER("{\"type\": \"u8\"}"), "buffers.x.count: found nothing, wanted an integer from 1"},
        {BUFFER("{\"type\": \"u8\", \"count\": 0}"), "buffers.x.count: found 0, wanted an integer"},
        {BUFFER("{\"type\": \"u8\", \"count\": 1.5}"), "buffers.x.count: found 1.5, wanted"},
        {BUFFER("{\"type\": \"f64\", \"count\": 9223372036854775807}"),
         "buffers.x.count: found 9223372036854775807, wanted an integer from 1 to 8589934592"},
        {FILLED("[]"), "buffers.x.fill: found an array of 0, wanted an object with a generator"},
        {FILLED("{}"), "buffers.x.fill.generator: found nothing, wanted one of: uninitialised"},
        {FILLED("{\"generator\": \"noise\"}"),
         "buffers.x.fill.generator: found \"noise\", wanted one of: uninitialised, zeros"},
        {FILLED("{\"generator\": \"zeros\", \"seed\": 1}"),
         "buffers.x.fill: found the key \"seed\", wanted one of: generator"},
        {FILLED("{\"generator\": \"constant\"}"), "buffers.x.fill.value: found nothing, wanted"},
        {FILLED("{\"generator\": \"constant\", \"value\": 256}"),
         "buffers.x.fill.value: found 256, wanted an integer from 0 to 255"},
        {FILLED("{\"generator\": \"constant\", \"value\": -1}"), "fill.value: found -1, wanted"},
        {FILLED("{\"generator\": \"uniform\", \"low\": 1, \"high\": 2}"),
         "buffers.x.fill.seed: found nothing, wanted an integer"},
        {FILLED("{\"generator\": \"uniform\", \"seed\": 1, \"low\": 3, \"high\": 2}"),
         "buffers.x.fill.high: found 2, wanted at least what low is"},
        {FILLED("{\"generator\": \"normal\", \"seed\": 1, \"mean\": 0, \"deviation\": 1}"),
         "buffers.x.fill: found normal, wanted another generator: the buffer is of u8"},
        {FILLED("{\"generator\": \"hex\", \"bytes\": \"00f\"}"),
         "fill.bytes: found \"00f\", wanted an even number of hexadecimal digits"},
        {FILLED("{\"generator\": \"hex\", \"bytes\": \"00fg\"}"),
         "fill.bytes: found \"00fg\", wanted hexadecimal digits: byte 1 has another"},
        {FILLED("{\"generator\": \"hex\", \"bytes\": \"000102\"}"),
         "fill.bytes: found 3 bytes, wanted 2: 2 of u8"},
        {FILLED("{\"generator\": \"file\", \"path\": \"none\"}"), "fill.path: "},
        {FILLED("{\"generator\": \"file\", \"path\": \"kernel.ptx\"}"), "bytes, wanted 2: 2 of u8"},
        {BUFFER("{\"type\": \"f16\", \"count\": 1, \"fill\": {\"generator\": \"constant\", "
                "\"value\": 1e6}}"),
         "buffers.x.fill.value: found 1e+06, wanted a number that f16 can hold"},
    };
    EXPECT_BAD(cases);
}

#define RUN(text)    "{\"ptx\": \"kernel.ptx\", \"runs\": [" text "]}"
#define SHAPED(text) RUN("{\"entry\": \"nothing\", \"grid\": [1], \"block\": [1], " text "}")

Test(ptxrun_manifest, runs_and_what_they_expect_are_checked)
{
    static const bad_manifest cases[] = {
        {RUN("{\"grids\": 1}"), "runs[0]: found the key \"grids\", wanted one of: entry, grid"},
        {RUN("{}"), "runs[0].entry: found nothing, wanted a string that is not empty"},
        {RUN("{\"entry\": \"nothing\"}"), "runs[0].grid: found nothing, wanted an array of 1 to 3"},
        {RUN("{\"entry\": \"nothing\", \"grid\": [1]}"), "runs[0].block: found nothing, wanted"},
        {RUN("{\"entry\": \"nothing\", \"grid\": [1, 2, 3, 4]}"),
         "runs[0].grid: found an array of 4"},
        {RUN("{\"entry\": \"nothing\", \"grid\": [1, -2]}"),
         "runs[0].grid[1]: found -2, wanted an integer from 0 to 2147483647"},
        {SHAPED("\"cluster\": [0]"), "runs[0].cluster[0]: found 0, wanted an integer from 1"},
        {SHAPED("\"shared_bytes\": 1e9"), "runs[0].shared_bytes: found 1e+09, wanted an integer"},
        {SHAPED("\"expect\": []"), "runs[0].expect: found an array of 0, wanted an object"},
        {SHAPED("\"expect\": {\"error\": 1}"),
         "runs[0].expect: found the key \"error\", wanted one of: result, diagnostic, stdout"},
        {SHAPED("\"expect\": {\"result\": \"ILLEGAL_ADDRESS\"}"),
         "runs[0].expect.result: found \"ILLEGAL_ADDRESS\", wanted the name of a CUresult"},
        {SHAPED("\"expect\": {\"diagnostic\": [\"x\"]}"),
         "runs[0].expect: found \"diagnostic\" without a \"result\" that is an error"},
        {SHAPED("\"expect\": {\"stdout\": \"x\"}"),
         "runs[0].expect.stdout: found \"x\", wanted an array of 1 to 64"},
        {SHAPED("\"expect\": {\"stdout\": [\"x\", 3]}"),
         "runs[0].expect.stdout[1]: found 3, wanted"},
        {SHAPED("\"expect\": {\"buffers\": [1]}"),
         "runs[0].expect.buffers[0]: found 1, wanted an object with an oracle"},
    };
    EXPECT_BAD(cases);
}

#define PARAMETER(text) SHAPED("\"parameters\": [" text "]")

Test(ptxrun_manifest, parameters_are_checked)
{
    static const bad_manifest cases[] = {
        {SHAPED("\"parameters\": {}"), "runs[0].parameters: found an object, wanted an array of 0"},
        {PARAMETER("5"), "runs[0].parameters[0]: found 5, wanted an object with one of: buffer"},
        {PARAMETER("{}"), "runs[0].parameters[0]: found an object, wanted an object with one of"},
        {PARAMETER("{\"u32\": 1}, {\"fp32\": 1}"),
         "runs[0].parameters[1]: found an object, wanted"},
        {PARAMETER("{\"u32\": 1, \"f32\": 1}"),
         "runs[0].parameters[0]: found the key \"f32\", wanted one of: u32"},
        {PARAMETER("{\"u32\": -1}"),
         "runs[0].parameters[0].u32: found -1, wanted an integer from 0 to 4294967295"},
        {PARAMETER("{\"s8\": 128}"),
         "parameters[0].s8: found 128, wanted an integer from -128 to 127"},
        {PARAMETER("{\"f32\": \"1\"}"), "runs[0].parameters[0].f32: found \"1\", wanted a number"},
        {PARAMETER("{\"f32\": 1e39}"), "found 1e+39, wanted a number that f32 can hold"},
        {PARAMETER("{\"buffer\": \"x\"}"),
         "parameters[0].buffer: found \"x\", wanted the name of a buffer, but the manifest has no"},
        {PARAMETER("{\"bytes\": \"\"}"), "parameters[0].bytes: found \"\", wanted an even number"},
        {PARAMETER("{\"bytes\": \"00\", \"align\": 3}"),
         "runs[0].parameters[0].align: found 3, wanted a power of two"},
        {PARAMETER("{\"struct\": []}"),
         "parameters[0].struct: found an array of 0, wanted an array"},
        {PARAMETER("{\"struct\": [{\"u8\": 1}, {\"struct\": [{\"u8\": 300}]}]}"),
         "runs[0].parameters[0].struct[1].struct[0].u8: found 300, wanted an integer from 0 to "
         "255"},
        {PARAMETER("{\"struct\": [{\"u8\": 1}], \"align\": 256}"), "align: found 256, wanted"},
        {PARAMETER("{\"tensor_map\": {}}"),
         "parameters[0].tensor_map.buffer: found nothing, wanted"},
    };
    EXPECT_BAD(cases);
}

#define MAPPED(text)                                                                               \
    "{\"ptx\": \"kernel.ptx\", \"buffers\": {\"x\": {\"type\": \"u8\", \"count\": 64}}, "          \
    "\"runs\": [{\"entry\": \"map\", \"grid\": [1], \"block\": [1], \"parameters\": "              \
    "[{\"tensor_map\": {\"buffer\": \"x\", \"type\": \"u8\", " text "}}]}]}"

Test(ptxrun_manifest, tensor_maps_are_checked)
{
    static const bad_manifest cases[] = {
        {MAPPED("\"dims\": []"),
         "runs[0].parameters[0].tensor_map: found the key \"dims\", wanted one of: buffer, type"},
        {MAPPED("\"dimensions\": []"),
         "tensor_map.dimensions: found an array of 0, wanted an array"},
        {MAPPED("\"dimensions\": [8, 8], \"strides\": []"),
         "tensor_map.strides: found an array of 0, wanted an array of 1"},
        {MAPPED("\"dimensions\": [8], \"box\": [512]"),
         "tensor_map.box[0]: found 512, wanted an integer from 1 to 256"},
        {MAPPED("\"dimensions\": [8], \"box\": [8], \"element_strides\": [9]"),
         "tensor_map.element_strides[0]: found 9, wanted an integer from 1 to 8"},
        {MAPPED("\"dimensions\": [8], \"box\": [8], \"swizzle\": \"256b\""),
         "tensor_map.swizzle: found \"256b\", wanted one of: none, 32b, 64b, 128b"},
    };
    EXPECT_BAD(cases);
}

#define ORACLE(text)                                                                               \
    "{\"ptx\": \"kernel.ptx\", \"buffers\": {"                                                     \
    "\"x\": {\"type\": \"s32\", \"count\": 4, \"fill\": {\"generator\": \"zeros\"}}, "             \
    "\"raw\": {\"type\": \"s32\", \"count\": 4}, \"one\": {\"type\": \"s32\", \"count\": 1, "      \
    "\"fill\": {\"generator\": \"zeros\"}}}, "                                                     \
    "\"runs\": [{\"entry\": \"nothing\", \"grid\": [1], \"block\": [1], "                          \
    "\"expect\": {\"buffers\": [{" text "}]}}]}"

Test(ptxrun_manifest, oracles_get_the_buffers_they_need)
{
    static const bad_manifest cases[] = {
        {ORACLE("\"oracle\": \"sort\""),
         "runs[0].expect.buffers[0].oracle: found \"sort\", wanted one of: equals, file, copy"},
        {ORACLE("\"oracle\": \"copy\", \"alpha\": 1"),
         "buffers[0]: found the key \"alpha\", wanted one of: oracle, buffers, tolerance"},
        {ORACLE("\"oracle\": \"copy\", \"buffers\": [\"x\"]"),
         "buffers[0].buffers: found an array of 1, wanted an array of 2: out, in"},
        {ORACLE("\"oracle\": \"copy\", \"buffers\": [\"x\", \"y\"]"),
         "buffers[0].buffers[1]: found \"y\", wanted one of: x, raw, one"},
        {ORACLE("\"oracle\": \"copy\", \"buffers\": [\"x\", \"one\"]"),
         "buffers[0].buffers[1]: found one of 1 elements, wanted at least 4"},
        {ORACLE("\"oracle\": \"copy\", \"buffers\": [\"x\", \"raw\"]"),
         "buffers[0].buffers[1]: found raw, which is uninitialised, wanted a buffer with a "
         "\"fill\""},
        {ORACLE("\"oracle\": \"histogram\", \"buffers\": [\"raw\", \"x\"]"),
         "buffers[0].buffers[0]: found raw, which is uninitialised"},
        {ORACLE("\"oracle\": \"transpose\", \"buffers\": [\"raw\", \"x\"], \"rows\": 2"),
         "buffers[0].columns: found nothing, wanted an integer from 1 to 1048576"},
        {ORACLE("\"oracle\": \"transpose\", \"buffers\": [\"raw\", \"x\"], \"rows\": 2, "
                "\"columns\": 3"),
         "buffers[0].buffers[0]: found raw of 4 elements, wanted 6"},
        {ORACLE("\"oracle\": \"matmul\", \"buffers\": [\"raw\", \"x\", \"one\"], \"m\": 2, "
                "\"n\": 2, \"k\": 2"),
         "buffers[0].buffers[2]: found one of 1 elements, wanted 4"},
        {ORACLE("\"oracle\": \"equals\", \"buffers\": [\"x\"], \"values\": [1, 2, 3]"),
         "buffers[0].values: found an array of 3, wanted an array of 4"},
        {ORACLE("\"oracle\": \"equals\", \"buffers\": [\"x\"], \"values\": [1, 2, 3, 0.5]"),
         "buffers[0].values[3]: found 0.5, wanted an integer"},
        {ORACLE("\"oracle\": \"file\", \"buffers\": [\"x\"], \"path\": \"kernel.ptx\""),
         "bytes, wanted 16: those of x"},
        {ORACLE("\"oracle\": \"equals\", \"buffers\": [\"x\"], \"values\": 1, "
                "\"tolerance\": {\"ulp\": 1, \"relative\": 1}"),
         "buffers[0].tolerance: found an object, wanted one of: {\"ulp\": N}, {\"relative\": R}"},
        {ORACLE("\"oracle\": \"equals\", \"buffers\": [\"x\"], \"values\": 1, "
                "\"tolerance\": {\"ulp\": -1}"),
         "buffers[0].tolerance.ulp: found -1, wanted 0 or more"},
        {ORACLE("\"oracle\": \"equals\", \"buffers\": [\"x\"], \"values\": 1}]}}, {\"entry\": 1, "
                "\"expect\": {\"buffers\": [{"),
         "runs[1].entry: found 1, wanted a string that is not empty"},
    };
    EXPECT_BAD(cases);
}

#define TAKES(text)                                                                                \
    "{\"ptx\": \"kernel.ptx\", \"runs\": [{\"entry\": \"take\", \"grid\": [1], \"block\": [1], "   \
    "\"parameters\": [" text "]}]}"

Test(ptxrun_manifest, parameters_are_those_that_the_ptx_declares)
{
    static const bad_manifest cases[] = {
        {TAKES("{\"u8\": 1}"), "runs[0].parameters: found 1, wanted 2: the parameters of take"},
        {TAKES("{\"u8\": 1}, {\"bytes\": \"000000000000000000000000\"}, {\"u8\": 1}"),
         "runs[0].parameters: found 3, wanted 2: the parameters of take"},
        {TAKES("{\"u16\": 1}, {\"bytes\": \"000000000000000000000000\"}"),
         "runs[0].parameters[0]: found 2 bytes, wanted 1: parameter 0 of take"},
        {TAKES("{\"u8\": 1}, {\"struct\": [{\"u8\": 1}, {\"u64\": 1}]}"),
         "runs[0].parameters[1]: found 16 bytes, wanted 12: parameter 1 of take"},
        {TAKES("{\"u8\": 1}, {\"struct\": [{\"u32\": 1}, {\"u8\": 2}], \"align\": 16}"),
         "runs[0].parameters[1]: found 16 bytes, wanted 12: parameter 1 of take"},
        {TAKES("{\"u8\": 1}, {\"bytes\": \"000000000000000000000000\", \"align\": 8}"),
         "runs[0].parameters[1]: found an alignment of 8 bytes, but parameter 1 of take stands at "
         "offset 4"},
    };
    EXPECT_BAD(cases);
}

Test(ptxrun_manifest, a_text_cut_anywhere_is_refused)
{
    static const char whole[] = ORACLE("\"oracle\": \"equals\", \"buffers\": [\"x\"], \"values\": "
                                       "[1, 2, 3, 4], \"tolerance\": {\"ulp\": 1}");
    char *folder = ptxrun_folder_make();
    for (size_t length = 0; length < sizeof whole - 1; length += 7) {
        char *cut = strndup(whole, length);
        program_result result = ptxrun_folder_run(folder, cut);
        program_expect(&result, 3, "is not JSON");
        program_result_free(&result);
        free(cut);
    }
    temporary_folder_remove(folder);
}

/* A member of each kind in turn is replaced by each kind of value: never a crash, never exit 0. */
Test(ptxrun_manifest, values_of_any_type_anywhere_are_refused)
{
    static const char whole[] =
        "{\"ptx\": \"kernel.ptx\", \"device\": \"a100\", \"buffers\": {\"x\": {\"type\": \"u32\", "
        "\"count\": 4, \"fill\": {\"generator\": \"uniform\", \"seed\": 1, \"low\": 2, \"high\": "
        "9}}}, \"runs\": [{\"entry\": \"put\", \"grid\": [1], \"block\": [4], \"shared_bytes\": 0, "
        "\"parameters\": [{\"buffer\": \"x\", \"offset\": 0}, {\"u32\": 3}], \"expect\": "
        "{\"result\": \"CUDA_SUCCESS\", \"buffers\": [{\"oracle\": \"equals\", \"buffers\": "
        "[\"x\"], \"values\": 3}]}}]}";
    static const char *const wrong[] = {"null", "true", "-0.5", "\"\"", "[[]]", "{\"?\": 1}"};
    char *folder = ptxrun_folder_make();
    program_result right = ptxrun_folder_run(folder, whole);
    program_expect(&right, 0, "runs[0]   put  ok\n");
    program_result_free(&right);
    for (const char *colon = whole; (colon = strstr(colon, ": ")); colon += 2) {
        size_t skipped = strcspn(colon + 2, ",}]");
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
            char *text = NULL;
            cr_assert_gt(asprintf(&text, "%.*s: %s%s", (int)(colon - whole), whole, wrong[i],
                                  colon + 2 + skipped),
                         0);
            program_result result = ptxrun_folder_run(folder, text);
            cr_expect(result.exit_code == 3, "exit code %d for %s\n%s", result.exit_code, text,
                      result.output);
            program_result_free(&result);
            free(text);
        }
    }
    temporary_folder_remove(folder);
}
