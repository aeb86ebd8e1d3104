/*
 * bundle.c: opens a bundle: reads its folder whole, verifies every byte against the hashes, and
 * hands the manifest to manifest.c. A changed bundle is refused here and nowhere later.
 */
#include "bundle.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/text.h"
#include "context.h"

enum { HASH_DIGITS = 32 };

static void hash_digits(char out[HASH_DIGITS + 1], const void *bytes, size_t count)
{
    XXH128_hash_t hash = XXH3_128bits(bytes, count);
    snprintf(out, HASH_DIGITS + 1, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
}

static mmlp_status read_bounded(char **out, size_t *count, const mmlp_bundle *bundle,
                                const char *name)
{
    *out = NULL;
    *count = 0;
    text path = TEXT_INIT;
    mmlp_status status = MMLP_OK;
    struct stat properties;
    text_printf(&path, "%s/%s", bundle->path, name);
    if (path.failed)
        status = mmlp_fail_memory(strlen(name), "a path");
    else if (stat(text_string(&path), &properties) != 0)
        status =
            mmlp_fail(MMLP_ERROR_IO, "%s: cannot open: %s", text_string(&path), strerror(errno));
    else if (!S_ISREG(properties.st_mode))
        status = mmlp_fail(MMLP_ERROR_IO, "%s: not a regular file", text_string(&path));
    else if (properties.st_size > BUNDLE_MAX_FILE_BYTES)
        status =
            mmlp_fail(MMLP_ERROR_FORMAT, "%s: found %lld bytes, wanted at most %d",
                      text_string(&path), (long long)properties.st_size, BUNDLE_MAX_FILE_BYTES);
    else
        status = file_read(out, count, text_string(&path));
    text_free(&path);
    return status;
}

/* The manifest's own hash covers its text with the digits of `hash` as zeros. */
static mmlp_status verify_manifest(const mmlp_bundle *bundle, char *chars, size_t count)
{
    static const char key[] = "\"hash\": \"";
    char *digits = strstr(chars, key);
    if (digits)
        digits += sizeof key - 1;
    if (!digits || count - (size_t)(digits - chars) < HASH_DIGITS + 1 || digits[HASH_DIGITS] != '"')
        return mmlp_fail(MMLP_ERROR_FORMAT,
                         "%s: manifest.json: found no hash of 32 hexadecimal digits", bundle->path);
    char found[HASH_DIGITS + 1] = "", wanted[HASH_DIGITS + 1];
    memcpy(found, digits, HASH_DIGITS);
    memset(digits, '0', HASH_DIGITS);
    hash_digits(wanted, chars, count);
    memcpy(digits, found, HASH_DIGITS);
    if (memcmp(found, wanted, HASH_DIGITS) != 0)
        return mmlp_fail(MMLP_ERROR_FORMAT,
                         "%s: manifest.json: its hash is %s, its bytes give %s: it was changed",
                         bundle->path, found, wanted);
    return MMLP_OK;
}

static mmlp_status open_manifest(mmlp_bundle *bundle)
{
    mmlp_status status = MMLP_OK;
    char *chars;
    size_t count;
    MMLP_TRY(read_bounded(&chars, &count, bundle, "manifest.json"));
    json_error_t error;
    if (strlen(chars) != count) {
        status = mmlp_fail(MMLP_ERROR_FORMAT, "%s: manifest.json: byte %zu is NUL", bundle->path,
                           strlen(chars));
        goto cleanup;
    }
    bundle->manifest = json_loadb(chars, count, JSON_REJECT_DUPLICATES, &error);
    if (!bundle->manifest) {
        status = mmlp_fail(MMLP_ERROR_FORMAT, "%s: manifest.json:%d: %s", bundle->path, error.line,
                           error.text);
        goto cleanup;
    }
    /* A person is told about another format before being told about a hash. */
    const json_t *format = json_object_get(bundle->manifest, "format");
    if (!json_is_integer(format) || json_integer_value(format) != BUNDLE_FORMAT) {
        status = mmlp_fail(MMLP_ERROR_FORMAT,
                           "%s: manifest.json: format: found %lld, this library reads format %d: "
                           "generate the bundle again",
                           bundle->path, (long long)json_integer_value(format), BUNDLE_FORMAT);
        goto cleanup;
    }
    MMLP_TRY_CLEANUP(verify_manifest(bundle, chars, count));

cleanup:
    free(chars);
    return status;
}

static mmlp_status read_files(mmlp_bundle *bundle)
{
    MMLP_TRY(manifest_read_files(bundle, bundle->manifest));
    const json_t *hashes = json_object_get(bundle->manifest, "files");
    for (int i = 0; i < bundle->file_count; i++) {
        bundle_file *file = &bundle->files[i];
        MMLP_TRY(read_bounded(&file->bytes, &file->count, bundle, file->name));
        char found[HASH_DIGITS + 1];
        hash_digits(found, file->bytes, file->count);
        const char *wanted = json_string_value(json_object_get(hashes, file->name));
        if (strcmp(found, wanted) != 0)
            return mmlp_fail(MMLP_ERROR_FORMAT,
                             "%s: %s: the manifest's hash is %.32s, its bytes give %s: it was "
                             "changed",
                             bundle->path, file->name, wanted, found);
    }
    return MMLP_OK;
}

mmlp_status mmlp_bundle_open(mmlp_bundle **out, const char *path)
{
    if (!out)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_bundle_open: out is NULL");
    *out = NULL;
    if (!path)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_bundle_open: path is NULL");
    mmlp_status status = MMLP_OK;
    mmlp_bundle *bundle = calloc(1, sizeof *bundle);
    if (!bundle)
        return mmlp_fail_memory(sizeof *bundle, "a bundle");
    bundle->path = strdup(path);
    if (!bundle->path) {
        status = mmlp_fail_memory(strlen(path), "a path");
        goto cleanup;
    }
    for (size_t length = strlen(path); length > 1 && bundle->path[length - 1] == '/'; length--)
        bundle->path[length - 1] = '\0';
    MMLP_TRY_CLEANUP(open_manifest(bundle));
    MMLP_TRY_CLEANUP(read_files(bundle));
    MMLP_TRY_CLEANUP(manifest_read(bundle, bundle->manifest));
    *out = bundle;
    bundle = NULL;

cleanup:
    mmlp_bundle_close(bundle);
    return status;
}

void mmlp_bundle_close(mmlp_bundle *bundle)
{
    if (!bundle)
        return;
    for (int i = 0; i < bundle->kernel_count; i++) {
        free(bundle->kernels[i].lines);
        free(bundle->kernels[i].images);
    }
    free(bundle->kernels);
    for (int i = 0; i < bundle->file_count; i++)
        free(bundle->files[i].bytes);
    free(bundle->files);
    program_free(&bundle->activation);
    program_free(&bundle->output);
    program_free(&bundle->backward);
    json_decref(bundle->manifest);
    free(bundle->path);
    free(bundle);
}

mmlp_status mmlp_bundle_get(const mmlp_bundle *bundle, mmlp_bundle_properties *properties)
{
    if (!bundle)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_bundle_get: bundle is NULL");
    mmlp_bundle_properties filled = MMLP_BUNDLE_PROPERTIES_INIT;
    filled.name = bundle->name;
    filled.hidden_size = bundle->hidden_size;
    filled.ffn_hidden_size = bundle->ffn_hidden_size;
    filled.fc1_output_size = bundle->fc1_output_size;
    filled.params_dtype = bundle_dtype_name(bundle->params_dtype);
    filled.gated_linear_unit = bundle->gated_linear_unit;
    filled.add_bias_linear = bundle->add_bias_linear;
    filled.per_token_scale = bundle->per_token_scale;
    filled.fc2_bias = bundle->fc2_bias;
    filled.tensor_model_parallel_size = (int)bundle->tensor_model_parallel_size;
    filled.has_clamp_or_relu = bundle->has_clamp_or_relu;
    filled.gradient_accumulation_fusion = bundle->gradient_accumulation_fusion;
    filled.delay_wgrad_compute = bundle->delay_wgrad_compute;
    filled.save_activation = bundle->save_activation;
    filled.communicates = bundle->collective_count > 0;
    filled.sequence_parallel = bundle->sequence_parallel;
    filled.determinism = bundle->determinism;
    filled.rounding = bundle->rounding;
    return struct_fill(properties, &filled, sizeof filled, "mmlp_bundle_properties");
}
