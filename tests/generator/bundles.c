/* bundles.c: what is written, that it is written whole or not at all, and the command line around
 * it. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/nvrtc.h"
#include "bundle_write.h"
#include "check.h"
#include "spec_text.h"

static void load_source(module_spec *spec, const char *path)
{
    char whole[512];
    snprintf(whole, sizeof whole, "%s/%s", MMLP_SOURCE_DIR, path);
    cr_assert_eq(spec_load(spec, whole, NULL), MMLP_OK, "%s", mmlp_last_error());
}

static void write_bundle(const char *spec_path, const char *place)
{
    module_spec spec;
    bundle_options options = {0};
    load_source(&spec, spec_path);
    cr_assert_eq(bundle_write(&spec, place, &options), MMLP_OK, "%s", mmlp_last_error());
    spec_free(&spec);
}

static char *read_all(const char *folder, const char *name, size_t *bytes)
{
    char path[512], *content;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    cr_assert_eq(file_read(&content, bytes, path), MMLP_OK, "%s", mmlp_last_error());
    return content;
}

/* The cubin of the kernel a.mlp/linear_fc1_forward.cu (malloc). */
static char *compile_fc1(size_t *bytes)
{
    nvrtc *compiler;
    nvrtc_image image;
    size_t count;
    char *content = read_all("a.mlp", "linear_fc1_forward.cu", &count);
    nvrtc_source source = {.name = "k.cu", .text = content, .target = "sm_80"};
    cr_assert_eq(nvrtc_open(&compiler, NULL), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(nvrtc_compile(&image, compiler, &source), MMLP_OK, "%s", mmlp_last_error());
    char *cubin = image.cubin;
    *bytes = image.cubin_bytes;
    image.cubin = NULL;
    nvrtc_image_free(&image);
    nvrtc_close(compiler);
    free(content);
    return cubin;
}

/* The current folder becomes the temporary one. */
static void go_to_temporary_folder(void)
{
    spec_text_file("bad.lua", "");
}

static int count_entries(const char *folder)
{
    int count = 0;
    DIR *directory = opendir(folder);
    cr_assert(directory);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count - 2;
}

Test(bundle, holds_every_file_that_its_manifest_hashes)
{
    go_to_temporary_folder();
    write_bundle("specs/mixtral_expert.lua", "a.mlp");
    size_t bytes;
    char *manifest = read_all("a.mlp", "manifest.json", &bytes);
    json_t *json = json_loads(manifest, 0, NULL);
    const char *name;
    json_t *hash;
    size_t kernels = json_array_size(json_object_get(json, "kernels"));
    cr_assert_geq(kernels, 8 + 6); /* of sm_80, and the GEMMs of sm_90a */
    cr_assert_eq(json_object_size(json_object_get(json, "files")), kernels);
    cr_assert_eq((size_t)count_entries("a.mlp"), kernels + 1);
    json_object_foreach(json_object_get(json, "files"), name, hash)
    {
        char wanted[33];
        size_t count;
        char *content = read_all("a.mlp", name, &count);
        XXH128_hash_t found = XXH3_128bits(content, count);
        snprintf(wanted, sizeof wanted, "%016llx%016llx", (unsigned long long)found.high64,
                 (unsigned long long)found.low64);
        cr_assert_str_eq(json_string_value(hash), wanted, "%s", name);
        free(content);
    }
    /* The manifest's own hash is of its text with zeros in the place of the hash. */
    const char *own = json_string_value(json_object_get(json, "hash"));
    char *place = strstr(manifest, own), wanted[33];
    memset(place, '0', 32);
    XXH128_hash_t found = XXH3_128bits(manifest, bytes);
    snprintf(wanted, sizeof wanted, "%016llx%016llx", (unsigned long long)found.high64,
             (unsigned long long)found.low64);
    cr_assert_str_eq(own, wanted);
    cr_assert_eq(manifest[bytes - 1], '\n');
    json_decref(json);
    free(manifest);
}

Test(bundle, the_same_spec_gives_the_same_bytes)
{
    static const char *const files[] = {"manifest.json", "linear_fc1_forward.cu",
                                        "linear_fc2_dgrad.cu", "linear_fc1_wgrad.cu", "fill.cu"};
    go_to_temporary_folder();
    write_bundle("specs/llama3_8b.lua", "a.mlp");
    write_bundle("specs/llama3_8b.lua", "b.mlp");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t a_bytes, b_bytes;
        char *a = read_all("a.mlp", files[i], &a_bytes), *b = read_all("b.mlp", files[i], &b_bytes);
        cr_assert(a_bytes == b_bytes && memcmp(a, b, a_bytes) == 0, "%s", files[i]);
        cr_assert_null(strstr(a, MMLP_SOURCE_DIR), "%s has a path of this machine", files[i]);
        free(a);
        free(b);
    }
}

Test(compile, a_decimal_comma_of_the_program_does_not_reach_the_kernels)
{
    go_to_temporary_folder();
    setenv("LOCPATH", ".", 1);
    if (system("localedef -i de_DE -f UTF-8 ./de_DE.UTF-8 >/dev/null 2>&1") != 0)
        cr_skip_test("this machine cannot make the locale de_DE");
    write_bundle("specs/llama3_8b.lua", "a.mlp");
    size_t wanted_bytes, bytes;
    char *wanted = compile_fc1(&wanted_bytes);
    cr_assert(setlocale(LC_ALL, "de_DE.UTF-8"));
    char *cubin = compile_fc1(&bytes);
    cr_assert(bytes == wanted_bytes && memcmp(cubin, wanted, bytes) == 0);
    cr_assert_str_eq(localeconv()->decimal_point, ",");
    free(wanted);
    free(cubin);
}

Test(bundle, an_existing_one_is_replaced_only_with_force)
{
    module_spec spec;
    bundle_options options = {0};
    go_to_temporary_folder();
    int before = count_entries(".");
    write_bundle("specs/llama3_8b.lua", "a.mlp");
    load_source(&spec, "specs/mixtral_expert.lua");
    cr_assert_eq(bundle_write(&spec, "a.mlp/", &options), MMLP_ERROR_IO);
    cr_assert_str_eq(mmlp_last_error(), "a.mlp exists; --force replaces it");
    options.force = true;
    cr_assert_eq(bundle_write(&spec, "a.mlp/", &options), MMLP_OK, "%s", mmlp_last_error());
    size_t bytes;
    char *manifest = read_all("a.mlp", "manifest.json", &bytes);
    cr_assert(strstr(manifest, "\"name\": \"mixtral_expert\""));
    free(manifest);
    cr_assert_eq(count_entries("."), before + 1, "something is left over");
    spec_free(&spec);
}

Test(bundle, what_is_no_bundle_is_never_replaced)
{
    module_spec spec;
    bundle_options options = {.force = true};
    go_to_temporary_folder();
    cr_assert_eq(mkdir("precious", 0777), 0);
    load_source(&spec, "specs/llama3_8b.lua");
    cr_assert_eq(bundle_write(&spec, "precious", &options), MMLP_ERROR_IO);
    cr_assert_str_eq(mmlp_last_error(),
                     "precious exists and is not a bundle (no manifest.json); it is not replaced");
    cr_assert_eq(bundle_write(&spec, "no/such/folder.mlp", &options), MMLP_ERROR_IO);
    spec_free(&spec);
}

Test(bundle, a_bias_after_the_reduction_has_a_kernel_of_its_own)
{
    module_spec spec;
    bundle_options options = {0};
    char *content = spec_text_config("hidden_size = 64, params_dtype = \"bf16\", "
                                     "tensor_model_parallel_size = 2",
                                     "per_token_scale = true");
    cr_assert_eq(spec_text_load(&spec, content), MMLP_OK);
    free(content);
    cr_assert_eq(bundle_write(&spec, "a.mlp", &options), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(access("a.mlp/linear_fc2_bias_forward.cu", R_OK), 0);
    spec_free(&spec);
}

/* Every spec of the repository's folder plans and bundles. */
static void bundle_folder(const char *folder, int least)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", MMLP_SOURCE_DIR, folder);
    DIR *directory = opendir(path);
    cr_assert(directory);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (!strstr(entry->d_name, ".lua"))
            continue;
        char place[300];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        snprintf(place, sizeof place, "%s.mlp", entry->d_name);
        write_bundle(path, place);
        count++;
    }
    closedir(directory);
    cr_assert_geq(count, least);
}

Test(bundle, every_spec_of_the_repository_becomes_one)
{
    go_to_temporary_folder();
    bundle_folder("specs", 4);
    bundle_folder("tests/specs", 27);
}

/* ---- compiled images ------------------------------------------------------------------------- */

Test(bundle, images_are_built_ahead_of_time)
{
    module_spec spec;
    static const char *const archs[] = {"sm_80", "sm_90", "sm_90a"};
    bundle_options options = {.archs = archs, .arch_count = 3, .ptx = true, .cubin = true};
    go_to_temporary_folder();
    load_source(&spec, "tests/specs/swiglu_nobias.lua");
    cr_assert_eq(bundle_write(&spec, "a.mlp", &options), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(count_entries("a.mlp"), 1 + (7 + 6) + (7 * 2 + 7) * 2);
    /* sm_90a has GEMMs of its own, and what every architecture has besides. */
    cr_assert_eq(access("a.mlp/linear_fc1_forward_sm_90a.sm_90a.cubin", R_OK), 0);
    cr_assert_neq(access("a.mlp/linear_fc1_forward_sm_90a.sm_90.cubin", R_OK), 0);
    cr_assert_neq(access("a.mlp/linear_fc1_forward.sm_90a.cubin", R_OK), 0);
    cr_assert_eq(access("a.mlp/fill.sm_90a.cubin", R_OK), 0);
    size_t bytes;
    char *ptx = read_all("a.mlp", "linear_fc1_forward.sm_90.ptx", &bytes);
    cr_assert(strstr(ptx, ".target sm_90"));
    cr_assert_eq(strlen(ptx), bytes);
    free(ptx);
    char *cubin = read_all("a.mlp", "linear_fc1_forward.sm_80.cubin", &bytes);
    cr_assert(memcmp(cubin, "\177ELF", 4) == 0);
    free(cubin);
    spec_free(&spec);
}

Test(nvrtc, an_error_has_the_templates_line)
{
    nvrtc *compiler;
    nvrtc_image image;
    nvrtc_source source = {
        .name = "k.cu", .text = "__global__ void f()\n{\n    undefined();\n}\n", .target = "sm_80"};
    cr_assert_eq(nvrtc_open(&compiler, NULL), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_geq(nvrtc_version(compiler), 13000);
    cr_assert_eq(nvrtc_compile(&image, compiler, &source), MMLP_ERROR_COMPILE);
    cr_assert_str_eq(mmlp_last_error(),
                     "k.cu for sm_80 did not compile: k.cu:3: error: identifier \"undefined\" is "
                     "undefined");
    nvrtc_image_free(&image);
    nvrtc_close(compiler);
}

Test(nvrtc, a_missing_library_is_named)
{
    nvrtc *compiler;
    cr_assert_eq(nvrtc_open(&compiler, "/nowhere/libnvrtc.so"), MMLP_ERROR_DRIVER);
    cr_assert(strncmp(mmlp_last_error(), "NVRTC: /nowhere/libnvrtc.so not found (", 39) == 0, "%s",
              mmlp_last_error());
}

Test(check, reads_the_log_of_ptxas)
{
    check_report r;
    check_read_log(&r, "ptxas info    : Compiling entry function 'f' for 'sm_80'\n"
                       "    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads\n"
                       "ptxas info    : Used 255 registers, used 1 barriers, 1024 bytes smem\n");
    cr_assert_eq(r.registers, 255);
    cr_assert_eq(r.shared_bytes, 1024);
    cr_assert_eq(r.stack_bytes, 16);
    cr_assert_eq(r.spill_stores, 12);
    cr_assert_eq(r.spill_loads, 8);
    cr_assert_str_eq(r.advisory, "");
    check_read_log(&r, "ptxas info : (C7511) Potential Performance Loss: wgmma serialized\n");
    cr_assert_str_eq(r.advisory, "C7511");
    cr_assert_eq(r.registers, -1);
}

/* A local array that is indexed at run time lies on the stack. */
Test(check, a_stack_frame_fails)
{
    module_spec spec;
    plan p;
    int failures;
    load_source(&spec, "specs/llama3_8b.lua");
    cr_assert_eq(plan_build(&p, &spec, NULL, NULL), MMLP_OK);
    emit_kernel kernel = {
        .plan = &p, .pass = "forward", .step_name = "f", .entry = "f", .file = "f.cu"};
    text_puts(&kernel.source.text, "extern \"C\" __global__ void f(volatile int *p, int n)\n"
                                   "{ int a[64]; for (int i = 0; i < 64; i++) a[i] = p[i];\n"
                                   "  for (int i = 0; i < n; i++) a[p[i]] += i; *p = a[n]; }\n");
    emit_kernels kernels = {.kernels = &kernel, .count = 1};
    static const char *const archs[] = {"sm_80"};
    FILE *out = fopen("/dev/null", "w");
    cr_assert_eq(check_kernels(&failures, out, &kernels, archs, 1), MMLP_OK, "%s",
                 mmlp_last_error());
    cr_assert_eq(failures, 1);
    fclose(out);
    text_free(&kernel.source.text);
    plan_free(&p);
    spec_free(&spec);
}

/* ---- command line ---------------------------------------------------------------------------- */

/* Runs megamlp-gen with stdout and stderr in "out" and "err". */
static int run(const char *arguments)
{
    char command[1024];
    go_to_temporary_folder();
    snprintf(command, sizeof command, "%s %s >out 2>err", MMLP_GEN, arguments);
    int status = system(command);
    cr_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void err_is(const char *wanted)
{
    size_t bytes;
    char *content = read_all(".", "err", &bytes);
    cr_assert_str_eq(content, wanted);
    free(content);
}

Test(cli, output_that_is_lost_is_an_error)
{
    static const char *const commands[] = {"--help", "plan --help", "fields", "--version"};
    static const char wanted[] = "megamlp-gen: cannot write to stdout: ";
    char command[1024];
    go_to_temporary_folder();
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        snprintf(command, sizeof command, "%s %s >/dev/full 2>err", MMLP_GEN, commands[i]);
        int status = system(command);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 3, "%s", commands[i]);
        size_t bytes;
        char *content = read_all(".", "err", &bytes);
        cr_assert(strncmp(content, wanted, strlen(wanted)) == 0, "%s", content);
        free(content);
    }
}

Test(cli, an_architecture_that_is_given_twice_counts_once)
{
    cr_assert_eq(run("bundle " MMLP_SOURCE_DIR
                     "/tests/specs/relu_bias.lua -o a.mlp --ptx -a sm_80 -a sm_80"),
                 0);
    size_t bytes;
    char *manifest = read_all("a.mlp", "manifest.json", &bytes);
    json_t *json = json_loads(manifest, 0, NULL);
    json_t *kernel = json_array_get(json_object_get(json, "kernels"), 0);
    cr_assert_eq(json_array_size(json_object_get(kernel, "images")), 1);
    json_decref(json);
    free(manifest);
}

Test(cli, an_empty_output_path_is_a_usage_error)
{
    cr_assert_eq(run("bundle x.lua -o ''"), 2);
    err_is("megamlp-gen bundle: -o NAME.mlp is missing\n");
}

Test(cli, a_spec_that_no_kernel_computes_is_described)
{
    char *content = spec_text_config("hidden_size = 12, ffn_hidden_size = 40, num_moe_experts = 2, "
                                     "moe_ffn_hidden_size = 20, tensor_model_parallel_size = 8, "
                                     "expert_tensor_parallel_size = 2, gated_linear_unit = true, "
                                     "add_bias_linear = false, params_dtype = 'fp16'",
                                     "is_expert = true");
    go_to_temporary_folder();
    spec_text_file("expert.lua", content);
    free(content);
    cr_assert_eq(run("describe expert.lua"), 0);
    size_t bytes;
    char *printed = read_all(".", "out", &bytes);
    cr_expect_str_eq(printed, "{\n  \"hidden_size\": 12,\n  \"ffn_hidden_size\": 10,\n"
                              "  \"tensor_model_parallel_size\": 2,\n"
                              "  \"gated_linear_unit\": true,\n  \"add_bias_linear\": false,\n"
                              "  \"params_dtype\": \"fp16\"\n}\n");
    free(printed);
    cr_expect_eq(run("bundle expert.lua -o expert.mlp"), 3);
}

Test(cli, exit_statuses)
{
    cr_assert_eq(run(""), 2);
    cr_assert_eq(run("--help"), 0);
    cr_assert_eq(run("plan --help"), 0);
    cr_assert_eq(run("fields"), 0);
    cr_assert_eq(run("pan"), 2);
    err_is("megamlp-gen: unknown command 'pan'; megamlp-gen --help lists them\n");
    cr_assert_eq(run("plan"), 2);
    cr_assert_eq(run("plan --nonsense"), 2);
    cr_assert_eq(run("plan -a sm_70 x.lua"), 2);
    cr_assert_eq(run("bundle x.lua"), 2);
    err_is("megamlp-gen bundle: -o NAME.mlp is missing\n");
    cr_assert_eq(run("bundle x.lua -o x.mlp -a sm_90"), 2);
    err_is("megamlp-gen bundle: --arch says what --cubin and --ptx build for; give one of them\n");
    cr_assert_eq(run("plan none.lua"), 3);
    err_is("none.lua: cannot open: No such file or directory\n");
    cr_assert_eq(run("plan bad.lua"), 3);
    err_is("bad.lua: spec returned nothing, wanted return ModuleSpec { ... }\n");
    cr_assert_eq(run("plan " MMLP_SOURCE_DIR "/specs/llama3_8b.lua"), 0);
    err_is("");
    cr_assert_eq(run("bundle " MMLP_SOURCE_DIR "/specs/llama3_8b.lua -o l.mlp"), 0);
    cr_assert_eq(run("bundle " MMLP_SOURCE_DIR "/specs/llama3_8b.lua -o l.mlp"), 3);
    err_is("l.mlp exists; --force replaces it\n");
}

Test(cli, check_compiles_for_every_architecture_without_a_spill)
{
    cr_assert_eq(run("check " MMLP_SOURCE_DIR "/specs/mixtral_expert.lua -a sm_80 -a sm_120"), 0);
    err_is("");
    size_t bytes;
    char *out = read_all(".", "out", &bytes);
    cr_assert(strstr(out, "sm_120  mixtral_expert_linear_fc1_forward "), "%s", out);
    free(out);
}
