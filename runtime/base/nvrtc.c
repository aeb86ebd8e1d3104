/*
 * nvrtc.c: the CUDA run-time compiler behind a table of function pointers. Used by the runtime when
 * a kernel is in neither bundle nor cache, and by megamlp-gen for --ptx, --cubin and check. Must
 * not be opened before a compilation is needed: the library is 100 MB.
 */
#include "base/nvrtc.h"

#include <ctype.h>
#include <dlfcn.h>
#include <locale.h>
#include <nvrtc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

#ifndef MMLP_CUDA_HOME
#define MMLP_CUDA_HOME "/usr/local/cuda"
#endif

static const char library_name[] = "libnvrtc.so.13";
enum { VERSION_NEEDED = 13000 };

/* X(separator, option): of the project's own kernels, next to --gpu-architecture. */
#define COMPILE_OPTIONS(X)                                                                         \
    X("", "-std=c++17")                                                                            \
    X(" ", "--minimal")                                                                            \
    X(" ", "-w")                                                                                   \
    X(" ", "-no-cache")                                                                            \
    X(" ", "-default-device")                                                                      \
    X(" ", "--ptxas-options=-v")

static const char *const compile_options[] = {
#define OPTION(separator, option) option,
    COMPILE_OPTIONS(OPTION)
#undef OPTION
};
enum { OPTION_COUNT = sizeof compile_options / sizeof *compile_options };

#define NVRTC_FUNCTIONS(X)                                                                         \
    X(nvrtcVersion)                                                                                \
    X(nvrtcGetErrorString)                                                                         \
    X(nvrtcCreateProgram)                                                                          \
    X(nvrtcDestroyProgram)                                                                         \
    X(nvrtcCompileProgram)                                                                         \
    X(nvrtcGetPTXSize)                                                                             \
    X(nvrtcGetPTX)                                                                                 \
    X(nvrtcGetCUBINSize)                                                                           \
    X(nvrtcGetCUBIN)                                                                               \
    X(nvrtcGetProgramLogSize)                                                                      \
    X(nvrtcGetProgramLog)

struct nvrtc {
    void *library;
    char *path;
    int version;
#define MEMBER(name) __typeof__(name) *name;
    NVRTC_FUNCTIONS(MEMBER)
#undef MEMBER
};

static const char *const function_names[] = {
#define NAME(name) #name,
    NVRTC_FUNCTIONS(NAME)
#undef NAME
};

/* Opens one candidate; on failure `tried` gets a line's worth of the reason. */
static void *open_candidate(const char *path, text *tried)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library) {
        const char *reason = dlerror();
        text_printf(tried, "%s%s", tried->length ? "; " : "", reason ? reason : path);
    }
    return library;
}

/* The library and the path it was found under (malloc), or NULL. */
static void *find_library(char **found, const char *path, text *tried)
{
    const char *home = getenv("CUDA_HOME");
    const struct {
        const char *folder, *inside;
    } places[] = {
        {home, "/lib64/"},
        {home, "/lib/"},
        {"", ""}, /* the loader's path */
        {"/usr/local/cuda", "/lib64/"},
        {MMLP_CUDA_HOME, "/lib64/"},
        {MMLP_CUDA_HOME, "/lib/"},
    };
    if (path) {
        *found = strdup(path);
        return *found ? open_candidate(path, tried) : NULL;
    }
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (!places[i].folder || (places[i].inside[0] && !places[i].folder[0]))
            continue;
        if (asprintf(found, "%s%s%s", places[i].folder, places[i].inside, library_name) < 0) {
            *found = NULL;
            return NULL;
        }
        void *library = open_candidate(*found, tried);
        if (library)
            return library;
        free(*found);
        *found = NULL;
    }
    return NULL;
}

mmlp_status nvrtc_open(nvrtc **out, const char *path)
{
    *out = NULL;
    mmlp_status status = MMLP_OK;
    text tried = TEXT_INIT;
    nvrtc *opened = calloc(1, sizeof *opened);
    if (!opened)
        return mmlp_fail_memory(sizeof *opened, "the NVRTC function table");

    opened->library = find_library(&opened->path, path, &tried);
    if (!opened->library) {
        status = mmlp_fail(MMLP_ERROR_DRIVER,
                           "NVRTC: %s not found (%s); install CUDA 13.0 or newer, or set CUDA_HOME",
                           path ? path : library_name, text_string(&tried));
        goto cleanup;
    }
    void *functions[] = {
#define LOOK_UP(name) dlsym(opened->library, #name),
        NVRTC_FUNCTIONS(LOOK_UP)
#undef LOOK_UP
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        if (!functions[i]) {
            status = mmlp_fail(MMLP_ERROR_DRIVER, "NVRTC: %s has no function %s", opened->path,
                               function_names[i]);
            goto cleanup;
        }
    }
    size_t next = 0;
#define STORE(name) memcpy(&opened->name, &functions[next++], sizeof opened->name);
    NVRTC_FUNCTIONS(STORE)
#undef STORE

    int major = 0, minor = 0;
    opened->nvrtcVersion(&major, &minor);
    opened->version = 1000 * major + 10 * minor;
    if (opened->version < VERSION_NEEDED) {
        status = mmlp_fail(MMLP_ERROR_DRIVER, "NVRTC: %s is version %d.%d, 13.0 or newer is needed",
                           opened->path, major, minor);
        goto cleanup;
    }
    *out = opened;
    opened = NULL;

cleanup:
    text_free(&tried);
    nvrtc_close(opened);
    return status;
}

void nvrtc_close(nvrtc *compiler)
{
    if (!compiler)
        return;
    if (compiler->library)
        dlclose(compiler->library);
    free(compiler->path);
    free(compiler);
}

int nvrtc_version(const nvrtc *compiler)
{
    return compiler->version;
}

const char *nvrtc_path(const nvrtc *compiler)
{
    return compiler->path;
}

const char *nvrtc_options_line(void)
{
#define JOINED(separator, option) separator option
    return COMPILE_OPTIONS(JOINED);
#undef JOINED
}

void nvrtc_image_free(nvrtc_image *image)
{
    free(image->ptx);
    free(image->cubin);
    free(image->log);
    *image = (nvrtc_image){0};
}

/*
 * One line of the log with "name(12)" replaced by "name:12 (templates/...:34)". Lines of ptxas
 * carry no position and stay as they are.
 */
static void append_mapped(text *out, const char *line, size_t length, const nvrtc_source *source)
{
    size_t name_length = strlen(source->name);
    size_t end = name_length + 1;
    int number = 0;
    bool has_position = length > end && strncmp(line, source->name, name_length) == 0 &&
                        line[name_length] == '(' && isdigit((unsigned char)line[end]);
    while (has_position && end < length && isdigit((unsigned char)line[end]) && number < 100000000)
        number = 10 * number + (line[end++] - '0');
    if (!has_position || end >= length || line[end] != ')') {
        text_append(out, line, length);
        return;
    }
    const char *file = NULL;
    int file_line = 0;
    if (source->line_map)
        source->line_map(&file, &file_line, number, source->user);
    if (file)
        text_printf(out, "%s:%d (%s:%d)", file, file_line, source->name, number);
    else
        text_printf(out, "%s:%d", source->name, number);
    text_append(out, line + end + 1, length - end - 1);
}

static char *map_log(const char *log, const nvrtc_source *source)
{
    text mapped = TEXT_INIT;
    while (*log) {
        size_t length = strcspn(log, "\n");
        append_mapped(&mapped, log, length, source);
        log += length;
        if (*log == '\n') {
            text_puts(&mapped, "\n");
            log++;
        }
    }
    return text_take(&mapped);
}

/* The first line of the log that reports an error, else the first line. Not NUL-terminated. */
static const char *first_error(size_t *length, const char *log)
{
    const char *first = log;
    for (const char *line = log; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        *length = strcspn(line, "\n");
        const char *word = strstr(line, "error");
        if (word && word < line + *length)
            return line;
    }
    *length = strcspn(first, "\n");
    return first;
}

/* Fetches an image by its pair of functions: its size, then its bytes, with a NUL behind them. */
static mmlp_status fetch(char **out, size_t *bytes, nvrtcProgram program, const char *what,
                         nvrtcResult (*get_size)(nvrtcProgram, size_t *),
                         nvrtcResult (*get)(nvrtcProgram, char *))
{
    size_t size = 0;
    if (get_size(program, &size) != NVRTC_SUCCESS)
        return mmlp_fail(MMLP_ERROR_COMPILE, "NVRTC gave no size for the %s", what);
    char *fetched = calloc(1, size + 1);
    if (!fetched)
        return mmlp_fail_memory(size + 1, what);
    if (size > 0 && get(program, fetched) != NVRTC_SUCCESS) {
        free(fetched);
        return mmlp_fail(MMLP_ERROR_COMPILE, "NVRTC gave no %s", what);
    }
    *out = fetched;
    *bytes = size;
    return MMLP_OK;
}

/* The options of one compilation; the first ones are its own. */
typedef struct option_list {
    char *own[4];
    const char **all;
    int count;
} option_list;

static void option_list_free(option_list *list)
{
    for (size_t i = 0; i < sizeof list->own / sizeof *list->own; i++)
        free(list->own[i]);
    free(list->all);
}

static char *folder_option(const char *inside)
{
    const char *home = getenv("CUDA_HOME");
    char *option = NULL;
    if (asprintf(&option, "-I%s%s", home && home[0] ? home : MMLP_CUDA_HOME, inside) < 0)
        return NULL;
    return option;
}

static mmlp_status option_list_make(option_list *out, const nvrtc_source *source)
{
    const char *const *given = source->options ? source->options : compile_options;
    int given_count = OPTION_COUNT, own_count = source->options ? 4 : 1;
    if (source->options)
        for (given_count = 0; given[given_count];)
            given_count++;
    *out = (option_list){0};
    if (asprintf(&out->own[0], "--gpu-architecture=%s", source->target) < 0)
        out->own[0] = NULL;
    if (source->options) {
        out->own[1] = folder_option("/include");
        out->own[2] = folder_option("/include/cccl");
        out->own[3] = strdup("-no-cache"); /* without it NVRTC 13.0 has crashed */
    }
    out->all = calloc((size_t)(own_count + given_count), sizeof *out->all);
    for (int i = 0; i < own_count; i++) {
        if (!out->all || !out->own[i])
            return mmlp_fail_memory(strlen(source->target), "the options of NVRTC");
        out->all[out->count++] = out->own[i];
    }
    for (int i = 0; i < given_count; i++)
        out->all[out->count++] = given[i];
    return MMLP_OK;
}

/* NVRTC makes other machine code where the thread's locale has a decimal comma: the locale of the
 * program must not reach it. */
static nvrtcResult compile_in_c_locale(const nvrtc *compiler, nvrtcProgram program,
                                       const option_list *options)
{
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!plain)
        return NVRTC_ERROR_OUT_OF_MEMORY;
    locale_t callers = uselocale(plain);
    nvrtcResult result = compiler->nvrtcCompileProgram(program, options->count, options->all);
    uselocale(callers);
    freelocale(plain);
    return result;
}

mmlp_status nvrtc_compile(nvrtc_image *out, const nvrtc *compiler, const nvrtc_source *source)
{
    *out = (nvrtc_image){0};
    mmlp_status status = MMLP_OK;
    nvrtcProgram program = NULL;
    char *raw_log = NULL;
    size_t raw_log_bytes = 0;
    option_list options;
    nvrtcResult result;
    MMLP_TRY_CLEANUP(option_list_make(&options, source));

    result = compiler->nvrtcCreateProgram(&program, source->text, source->name, 0, NULL, NULL);
    if (result != NVRTC_SUCCESS) {
        status = mmlp_fail(MMLP_ERROR_COMPILE, "%s: NVRTC: %s", source->name,
                           compiler->nvrtcGetErrorString(result));
        goto cleanup;
    }
    result = compile_in_c_locale(compiler, program, &options);
    MMLP_TRY_CLEANUP(fetch(&raw_log, &raw_log_bytes, program, "log",
                           compiler->nvrtcGetProgramLogSize, compiler->nvrtcGetProgramLog));
    out->log = map_log(raw_log, source);
    if (!out->log) {
        status = mmlp_fail_memory(raw_log_bytes, "the log of NVRTC");
        goto cleanup;
    }
    if (result != NVRTC_SUCCESS) {
        size_t length;
        const char *line = first_error(&length, out->log);
        status = mmlp_fail(MMLP_ERROR_COMPILE, "%s for %s did not compile: %.*s", source->name,
                           source->target, length ? (int)length : (int)strlen("(no log)"),
                           length ? line : "(no log)");
        goto cleanup;
    }
    MMLP_TRY_CLEANUP(fetch(&out->ptx, &out->ptx_bytes, program, "PTX", compiler->nvrtcGetPTXSize,
                           compiler->nvrtcGetPTX));
    if (out->ptx_bytes > 0)
        out->ptx_bytes--; /* NVRTC counts the NUL */
    MMLP_TRY_CLEANUP(fetch(&out->cubin, &out->cubin_bytes, program, "cubin",
                           compiler->nvrtcGetCUBINSize, compiler->nvrtcGetCUBIN));

cleanup:
    if (program)
        compiler->nvrtcDestroyProgram(&program);
    free(raw_log);
    option_list_free(&options);
    return status;
}
