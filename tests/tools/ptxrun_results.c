/* ptxrun_results.c: what ptxrun says of runs, as expected or not. Definitions: PTXRUN (the
 * program), GPU_LIKE_DRIVER (a driver without reports). */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "temporary_folder.h"

#include "ptxrun_folder.h"

typedef struct wanted_output {
    const char *manifest;
    int exit_code;
    const char *lines[4];
} wanted_output;

static void expect_outputs(const wanted_output *cases, size_t count)
{
    char *folder = ptxrun_folder_make();
    for (size_t i = 0; i < count; i++) {
        program_result result = ptxrun_folder_run(folder, cases[i].manifest);
        for (size_t k = 0; k < 4 && cases[i].lines[k]; k++)
            program_expect(&result, cases[i].exit_code, cases[i].lines[k]);
        program_result_free(&result);
    }
    temporary_folder_remove(folder);
}
#define EXPECT_OUTPUTS(cases) expect_outputs(cases, sizeof(cases) / sizeof(cases)[0])

#define ZEROS "{\"type\": \"s32\", \"count\": 4, \"fill\": {\"generator\": \"zeros\"}}"
#define HEAD  "{\"ptx\": \"kernel.ptx\", \"buffers\": {\"x\": " ZEROS "}, \"runs\": ["
#define PUT(threads, expect)                                                                       \
    "{\"entry\": \"put\", \"grid\": [1], \"block\": [" threads "], \"parameters\": [{\"buffer\": " \
    "\"x\"}, {\"u32\": 3}], \"expect\": {" expect "}}"
#define HOLDS(values)                                                                              \
    "\"buffers\": [{\"oracle\": \"equals\", \"buffers\": [\"x\"], \"values\": " values "}]"

Test(ptxrun_results, a_run_that_differs_shows_where_and_exits_with_1)
{
    static const wanted_output cases[] = {
        {HEAD PUT("4", HOLDS("3")) "]}", 0, {"runs[0]   put  ok\n"}},
        {HEAD PUT("4", HOLDS("3")) ", " PUT("2", HOLDS("[3, 3, 3, -7]")) "]}",
         1,
         {"runs[0]   put  ok\n",
          "runs[1]   put  FAILED\n  x[2]: got 0, expected 3\n  x[3]: got 0, expected -7\n",
          "  x: 2 of 4 elements differ from the oracle \"equals\"\n",
          "ptxrun: 1 of 2 runs differ\n"}},
        {HEAD PUT("5", HOLDS("3")) "]}",
         1,
         {"FAILED\n  cuCtxSynchronize gave CUDA_ERROR_ILLEGAL_ADDRESS, expected CUDA_SUCCESS\n",
          "out of bounds: 4 bytes at a global address", "16 bytes, no label: bytes past its end"}},
        {HEAD PUT("4", "\"result\": \"CUDA_ERROR_ILLEGAL_ADDRESS\"") "]}",
         1,
         {"  cuCtxSynchronize gave CUDA_SUCCESS, expected CUDA_ERROR_ILLEGAL_ADDRESS\n"}},
        {HEAD PUT("5", "\"result\": \"CUDA_ERROR_ILLEGAL_ADDRESS\", "
                       "\"diagnostic\": [\"out of bounds\", \"a race\"]") "]}",
         1,
         {"FAILED\n  the report has no \"a race\"\n", "out of bounds: 4 bytes"}},
        {HEAD PUT("5", "\"result\": \"CUDA_ERROR_MISALIGNED_ADDRESS\"") ", " PUT("4",
                                                                                 HOLDS("3")) "]}",
         1,
         {"gave CUDA_ERROR_ILLEGAL_ADDRESS, expected CUDA_ERROR_MISALIGNED_ADDRESS\n",
          "runs[1]   put  ok\n"}},
        {HEAD PUT("4", "\"stdout\": [\"nothing of it\"]") "]}",
         1,
         {"FAILED\n  stdout has no \"nothing of it\"\n"}},
        {"{\"ptx\": \"kernel.ptx\", \"runs\": [{\"entry\": \"absent\", \"grid\": [1], \"block\": "
         "[1]}]}",
         1,
         {"cuModuleGetFunction gave CUDA_ERROR_NOT_FOUND, expected CUDA_SUCCESS\n"}},
    };
    EXPECT_OUTPUTS(cases);
}

#define BUFFERS                                                                                    \
    "\"buffers\": {\"ones\": {\"type\": \"s32\", \"count\": 4, \"fill\": {\"generator\": "         \
    "\"constant\", \"value\": 1}}, \"x\": {\"type\": \"s32\", \"count\": 4, \"fill\": "            \
    "{\"generator\": \"iota\", \"start\": 2, \"step\": 3}}}"
#define NOTHING(oracle)                                                                            \
    "{\"entry\": \"nothing\", \"grid\": [1], \"block\": [1], \"expect\": {\"buffers\": "           \
    "[{\"oracle\": " oracle "}]}}"

Test(ptxrun_results, every_oracle_finds_a_kernel_that_does_nothing)
{
    static const wanted_output cases[] = {
        {"{\"ptx\": \"kernel.ptx\", " BUFFERS
         ", \"runs\": [" NOTHING("\"copy\", \"buffers\": [\"ones\", \"x\"]") ", " NOTHING(
             "\"axpy\""
             ", "
             "\"buffer"
             "s\": "
             "[\"ones"
             "\", "
             "\"x\"], "
             "\"alpha"
             "\": -1") ", " NOTHING("\"sum\", \"buffers\": [\"ones\", \"x\"]") ", " NOTHING("\"scan"
                                                                                            "\", "
                                                                                            "\"buff"
                                                                                            "ers\":"
                                                                                            " ["
                                                                                            "\"ones"
                                                                                            "\", "
                                                                                            "\"x\""
                                                                                            "]") ","
                                                                                                 " " NOTHING("\"histogram\", \"buffers\": [\"ones\", \"x\"]") ", " NOTHING(
                                                                                                     "\"transpose\", "
                                                                                                     "\"buffers\": "
                                                                                                     "[\"ones\", \"x\"], "
                                                                                                     "\"rows\": 2, "
                                                                                                     "\"columns\": 2") ","
                                                                                                                       " " NOTHING("\"matmul\", \"buffers\": [\"ones\", \"x\", \"x\"], \"m\": 2, \"n\": 2, \"k\": 2") ", " NOTHING(
                                                                                                                           "\"equals\", \"buffers\": [\"ones\"], \"values\": 2") ", " NOTHING("\"file\", \"buffers\": [\"ones\"], \"path\": \"16.bytes\"") "]}",
         1,
         {"ones[0]: got 1, expected 2\n  ones[1]: got 1, expected 5\n  ones[2]: got 1, expected 8",
          "ones[0]: got 1, expected -1\n  ones[1]: got 1, expected -4\n",
          "ptxrun: 9 of 9 runs differ\n"}},
        {"{\"ptx\": \"kernel.ptx\", \"buffers\": {\"sums\": {\"type\": \"s16\", \"count\": 3}, "
         "\"x\": {\"type\": \"s32\", \"count\": 5, \"fill\": {\"generator\": \"iota\", \"start\": "
         "-30000, \"step\": 1}}}, \"runs\": [" NOTHING(
             "\"sum\", \"buffers\": [\"sums\", \"x\"]") "]}",
         1,
         {", expected 5537\n", ", expected 5541\n", ", expected -29996\n"}},
        {"{\"ptx\": \"kernel.ptx\", " BUFFERS
         ", \"runs\": [" NOTHING("\"scan\", \"buffers\": [\"ones\", \"x\"]") "]}",
         1,
         {"ones[0]: got 1, expected 2\n  ones[1]: got 1, expected 7\n  ones[2]: got 1, expected "
          "15\n  ones[3]: got 1, expected 26\n"}},
        {"{\"ptx\": \"kernel.ptx\", " BUFFERS
         ", \"runs\": [" NOTHING("\"histogram\", \"buffers\": [\"ones\", \"x\"]") "]}",
         1,
         {"FAILED\n  ones[2]: got 1, expected 2\n  ones: 1 of 4 elements"}},
        {"{\"ptx\": \"kernel.ptx\", " BUFFERS ", \"runs\": [" NOTHING(
             "\"transpose\", \"buffers\": [\"ones\", \"x\"], \"rows\": 2, \"columns\": 2") "]}",
         1,
         {"expected 2\n  ones[1]: got 1, expected 8\n  ones[2]: got 1, expected 5\n  ones[3]"}},
        {"{\"ptx\": \"kernel.ptx\", " BUFFERS
         ", \"runs\": [" NOTHING("\"matmul\", \"buffers\": [\"ones\", \"x\", \"x\"], \"m\": 2, "
                                 "\"n\": 2, \"k\": 2") "]}",
         1,
         {"ones[0]: got 1, expected 44\n  ones[1]: got 1, expected 65\n  ones[2]: got 1, expected "
          "104\n  ones[3]: got 1, expected 161\n"}},
    };
    char *folder = ptxrun_folder_make();
    ptxrun_folder_write(folder, "16.bytes", "sixteen of them.", 16);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        program_result result = ptxrun_folder_run(folder, cases[i].manifest);
        for (size_t k = 0; k < 4 && cases[i].lines[k]; k++)
            program_expect(&result, cases[i].exit_code, cases[i].lines[k]);
        program_result_free(&result);
    }
    temporary_folder_remove(folder);
}

#define ONE_FLOAT(type, fill, expected, tolerance)                                                 \
    "{\"ptx\": \"kernel.ptx\", \"buffers\": {\"x\": {\"type\": \"" type                            \
    "\", \"count\": 2, \"fill\": {\"generator\": " fill                                            \
    "}}}, \"runs\": [" NOTHING("\"equals\", \"buffers\": [\"x\"], \"values\": " expected           \
                               ", \"tolerance\": {" tolerance "}") "]}"

Test(ptxrun_results, tolerances_reach_as_far_as_they_say)
{
    static const wanted_output cases[] = {
        {ONE_FLOAT("f32", "\"constant\", \"value\": 1", "1.0000001192092896", "\"ulp\": 1"),
         0,
         {"ok"}},
        {ONE_FLOAT("f32", "\"constant\", \"value\": 1", "1.000000238418579", "\"ulp\": 1"),
         1,
         {"x[0]: got 1, expected 1.00000024\n"}},
        {ONE_FLOAT("f16", "\"constant\", \"value\": -2", "-2.001953125", "\"ulp\": 1"), 0, {"ok"}},
        {ONE_FLOAT("bf16", "\"constant\", \"value\": 1", "1.015625", "\"ulp\": 1"), 1, {"FAILED"}},
        {ONE_FLOAT("f64", "\"constant\", \"value\": 1", "1.0000000000000004", "\"ulp\": 2"),
         0,
         {"ok"}},
        {ONE_FLOAT("f64", "\"constant\", \"value\": 1", "1.0000000000000004", "\"ulp\": 1"),
         1,
         {"x[0]: got 1, expected 1.0000000000000004\n"}},
        {ONE_FLOAT("f32", "\"hex\", \"bytes\": \"00000000000000bf\"", "[0.01, -0.5]",
                   "\"relative\": 0.021"),
         0,
         {"ok"}},
        {ONE_FLOAT("f32", "\"hex\", \"bytes\": \"00000000000000bf\"", "[0.01, -0.5]",
                   "\"relative\": 0.019"),
         1,
         {"x[0]: got 0, expected 0.00999999978\n  x: 1 of 2"}},
        {ONE_FLOAT("f32", "\"hex\", \"bytes\": \"0000c07f0000807f\"", "[0, 1]",
                   "\"relative\": 1000"),
         1,
         {"x[0]: got nan, expected 0\n  x[1]: got inf, expected 1\n"}},
        {ONE_FLOAT("f32", "\"hex\", \"bytes\": \"0100008001000080\"", "1.401298464324817e-45",
                   "\"ulp\": 1"),
         1,
         {"x[0]: got -1.40129846e-45, expected 1.40129846e-45\n"}},
        {ONE_FLOAT("u8", "\"constant\", \"value\": 250", "253", "\"ulp\": 3"), 0, {"ok"}},
        {ONE_FLOAT("u8", "\"constant\", \"value\": 250", "253", "\"ulp\": 2"), 1, {"expected 253"}},
    };
    EXPECT_OUTPUTS(cases);
}

#define AS_FILE(type, fill)                                                                        \
    "{\"ptx\": \"kernel.ptx\", \"buffers\": {\"x\": {\"type\": \"" type                            \
    "\", \"count\": 2, \"fill\": {\"generator\": " fill                                            \
    "}}}, \"runs\": [" NOTHING("\"file\", \"buffers\": [\"x\"], \"path\": \"bytes\"") "]}"

Test(ptxrun_results, generators_write_the_bytes_of_their_type)
{
    static const struct {
        const char *manifest;
        size_t count;
        const char *bytes;
    } cases[] = {
        {AS_FILE("f16", "\"constant\", \"value\": 0.1"), 4, "\x66\x2e\x66\x2e"},
        {AS_FILE("bf16", "\"constant\", \"value\": 0.1"), 4, "\xcd\x3d\xcd\x3d"},
        {AS_FILE("f32", "\"constant\", \"value\": 0.1"), 8, "\xcd\xcc\xcc\x3d\xcd\xcc\xcc\x3d"},
        {AS_FILE("f64", "\"iota\", \"start\": 1, \"step\": -3"), 16,
         "\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\0\xc0"},
        {AS_FILE("s8", "\"iota\", \"start\": 127, \"step\": 1"), 2, "\x7f\x80"},
        {AS_FILE("u16", "\"iota\", \"start\": 65535, \"step\": 2"), 4, "\xff\xff\x01\x00"},
        {AS_FILE("s64", "\"iota\", \"start\": -1, \"step\": 9007199254740993"), 16,
         "\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x20\x00"},
        {AS_FILE("u8", "\"hex\", \"bytes\": \"aF09\""), 2, "\xaf\x09"},
        {AS_FILE("u8", "\"file\", \"path\": \"bytes\""), 2, "\x12\x34"},
        {AS_FILE("u64", "\"zeros\""), 16, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"},
        /* Known answers of the authors' library (Random123, kat_vectors): philox4x32, 10 rounds. */
        {AS_FILE("u64", "\"uniform\", \"seed\": 0, \"low\": 0, \"high\": 9223372036854775807"), 16,
         "\xd5\xe8\x27\x66\x8d\xc5\x69\x61\x8d\xc5\x69\xe1\x4c\xac\x57\x3c"},
    };
    char *folder = ptxrun_folder_make();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ptxrun_folder_write(folder, "bytes", cases[i].bytes, cases[i].count);
        program_result result = ptxrun_folder_run(folder, cases[i].manifest);
        program_expect(&result, 0, "runs[0]   nothing  ok\n");
        program_result_free(&result);
    }
    temporary_folder_remove(folder);
}

Test(ptxrun_results, random_numbers_depend_on_seed_and_index_alone)
{
    /* The words of the first group of seed 0, as above. */
    static const double words[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    double radius = sqrt(-2 * log((words[0] + 0.5) / 0x1p32)), angle = 2 * M_PI * words[1] / 0x1p32;
    char *folder = ptxrun_folder_make(), *manifest = NULL;
    cr_assert_gt(
        asprintf(&manifest,
                 ONE_FLOAT("f64", "\"normal\", \"seed\": 0, \"mean\": 10, \"deviation\": 2",
                           "[%.17g, %.17g]", "\"relative\": 1e-14"),
                 10 + 2 * radius * cos(angle), 10 + 2 * radius * sin(angle)),
        0);
    program_result result = ptxrun_folder_run(folder, manifest);
    program_expect(&result, 0, "ok");
    program_result_free(&result);
    free(manifest);
    cr_assert_gt(asprintf(&manifest,
                          ONE_FLOAT("f64", "\"uniform\", \"seed\": 0, \"low\": -1, \"high\": 3",
                                    "[%.17g, %.17g]", "\"relative\": 1e-14"),
                          -1 + 4 * floor(words[0] / 256) / 0x1p24,
                          -1 + 4 * floor(words[1] / 256) / 0x1p24),
                 0);
    result = ptxrun_folder_run(folder, manifest);
    program_expect(&result, 0, "ok");
    program_result_free(&result);
    free(manifest);
    temporary_folder_remove(folder);
}

#define CUDA(options, expect)                                                                      \
    "{\"cuda\": \"program.cu\", " options "\"buffers\": {\"x\": " ZEROS "}, \"runs\": "            \
    "[{\"entry\": \"put\", \"grid\": [1], \"block\": [4], \"parameters\": [{\"buffer\": "          \
    "\"x\"}], \"expect\": {" expect "}}]}"

Test(ptxrun_results, a_cuda_program_is_compiled_for_the_device_or_its_target)
{
    static const char program[] =
        "#include <cuda_fp16.h>\n"
        "extern \"C\" __global__ void put(int *x)\n{\n"
        "    x[threadIdx.x] = VALUE + __CUDA_ARCH__;\n"
        "    if (threadIdx.x == 0)\n        printf(\"value %d\\n\", *x);\n}\n";
    static const wanted_output cases[] = {
        {CUDA("\"device\": \"h100\", \"options\": [\"-DVALUE=7\"], ", HOLDS("907")),
         0,
         {"value 907\nruns[0]   put  ok\n"}},
        {CUDA("\"device\": \"h100\", \"target\": \"compute_80\", \"options\": [\"-DVALUE=1\"], ",
              "\"stdout\": [\"value 801\\n\"], " HOLDS("801")),
         0,
         {"runs[0]   put  ok\n"}},
        {CUDA("\"device\": \"a100\", \"target\": \"compute_90\", \"options\": [\"-DVALUE=1\"], ",
              "\"result\": \"CUDA_ERROR_NO_BINARY_FOR_GPU\", "
              "\"diagnostic\": [\"the PTX is for sm_90\"]"),
         0,
         {"runs[0]   put  ok\n"}},
        {CUDA("", HOLDS("1")),
         4,
         {"ptxrun: program.cu for compute_80 did not compile: program.cu:4: error: identifier "
          "\"VALUE\" is undefined"}},
        {CUDA("\"target\": \"compute_1\", ", HOLDS("1")), 4, {"program.cu for compute_1 did not"}},
    };
    char *folder = ptxrun_folder_make();
    ptxrun_folder_write(folder, "program.cu", program, sizeof program - 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        program_result result = ptxrun_folder_run(folder, cases[i].manifest);
        program_expect(&result, cases[i].exit_code, cases[i].lines[0]);
        program_result_free(&result);
    }
    temporary_folder_remove(folder);
}

Test(ptxrun_results, a_text_that_the_driver_refuses_can_be_expected)
{
    static const wanted_output cases[] = {
        {"{\"ptx\": \"manifest.json\", \"runs\": [{\"entry\": \"x\", \"grid\": [1], \"block\": "
         "[1], "
         "\"expect\": {\"result\": \"CUDA_ERROR_INVALID_PTX\", \"diagnostic\": [\"PTX line "
         "1\"]}}]}",
         0,
         {"runs[0]   x  ok\n"}},
        {"{\"ptx\": \"manifest.json\", \"runs\": [{\"entry\": \"x\", \"grid\": [1], \"block\": "
         "[1]}]}",
         1,
         {"cuModuleLoadDataEx gave CUDA_ERROR_INVALID_PTX, expected CUDA_SUCCESS\nPTX line 1"}},
    };
    EXPECT_OUTPUTS(cases);
}

#define MAPPED(box)                                                                                \
    "{\"ptx\": \"kernel.ptx\", \"buffers\": {\"x\": {\"type\": \"bf16\", \"count\": 4096}, "       \
    "\"out\": {\"type\": \"u32\", \"count\": 16}}, \"runs\": [{\"entry\": \"map\", \"grid\": "     \
    "[1], \"block\": [1], \"parameters\": [{\"tensor_map\": {\"buffer\": \"x\", \"type\": "        \
    "\"bf16\", \"dimensions\": [64, 60], \"strides\": [128], \"box\": [" box ", 8], "              \
    "\"swizzle\": \"128b\", \"l2_promotion\": \"256b\", \"oob_fill\": \"nan\"}}, {\"buffer\": "    \
    "\"out\"}], \"expect\": {\"buffers\": [{\"oracle\": \"equals\", \"buffers\": [\"out\"], "      \
    "\"values\": [9, 2, 0, 0, 3, 3, 1, 64, 60, 128, 0, " box ", 8, 1, 1, 0]}]}}]}"

Test(ptxrun_results, tensor_maps_are_made_by_the_driver)
{
    static const wanted_output without[] = {
        {MAPPED("64"),
         4,
         {"manifest.json: runs[0].parameters[0]: the device has no such tensor maps "
          "(CUDA_ERROR_NOT_SUPPORTED): they need a GPU of compute capability 9.0 or later\n"}},
    };
    static const wanted_output with[] = {
        {MAPPED("64"), 0, {"runs[0]   map  ok\n"}},
        {MAPPED("13"),
         3,
         {"runs[0].parameters[0]: cuTensorMapEncodeTiled refuses these values: "
          "CUDA_ERROR_INVALID_VALUE\n"}},
        {MAPPED("14"), 4, {"ptxrun: runs[0]: its process was ended by signal 6\n"}},
    };
    EXPECT_OUTPUTS(without);
    setenv("MMLP_DRIVER", GPU_LIKE_DRIVER, 1);
    EXPECT_OUTPUTS(with);
}

Test(ptxrun_results, a_gpu_has_no_reports_and_is_lost_to_a_process_after_a_fault)
{
    static const wanted_output cases[] = {
        {HEAD PUT("5", "\"result\": \"CUDA_ERROR_ILLEGAL_ADDRESS\", "
                       "\"diagnostic\": [\"something else\"]") ", " PUT("4", HOLDS("3")) "]}",
         0,
         {"runs[0]   put  ok (the report was not compared: a GPU gives none)\n",
          "runs[1]   put  ok\n"}},
    };
    setenv("MMLP_DRIVER", GPU_LIKE_DRIVER, 1);
    EXPECT_OUTPUTS(cases);
}

Test(ptxrun_results, wrong_usage_is_told_in_one_line)
{
    static const struct {
        const char *arguments[4];
        int exit_code;
        const char *line;
    } cases[] = {
        {{PTXRUN}, 2, "ptxrun: needs a MANIFEST.json\n"},
        {{PTXRUN, "a.json", "b.json"}, 2, "ptxrun: 'b.json': one manifest is enough\n"},
        {{PTXRUN, "--frobnicate"}, 2, "--frobnicate"},
        {{PTXRUN, "none.json"}, 3, "ptxrun: none.json: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        program_result result = program_run(cases[i].arguments);
        program_expect(&result, cases[i].exit_code, cases[i].line);
        program_result_free(&result);
    }
    char *folder = ptxrun_folder_make(), *path = NULL;
    ptxrun_folder_write(folder, "right.json", HEAD PUT("4", HOLDS("3")) "]}",
                        sizeof(HEAD PUT("4", HOLDS("3")) "]}") - 1);
    cr_assert_gt(asprintf(&path, "%s/right.json", folder), 0);
    program_result result =
        program_run((const char *const[]){PTXRUN, "--device", "toaster", path, NULL});
    program_expect(&result, 2, "--device toaster: is not one of auto, cuda, emulator\n");
    program_result_free(&result);
    free(path);
    temporary_folder_remove(folder);
}
