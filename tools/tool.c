/* tool.c: one-line errors, the choice of the device, and turning a spec into a bundle. */
#include "tool.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int tool_fail(int code, const char *format, ...)
{
    char *line = NULL;
    va_list args;
    va_start(args, format);
    if (vasprintf(&line, format, args) < 0)
        line = NULL;
    va_end(args);
    /* At once: lines of several ranks must not run into each other. */
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, line ? line : "out of memory");
    free(line);
    return code;
}

int tool_fail_status(mmlp_status status)
{
    int code = EXIT_DEVICE;
    if (status == MMLP_ERROR_ARGUMENT)
        code = EXIT_USAGE;
    if (status == MMLP_ERROR_IO || status == MMLP_ERROR_SPEC || status == MMLP_ERROR_FORMAT ||
        status == MMLP_ERROR_SHAPE)
        code = EXIT_INPUT;
    const char *line = mmlp_last_error();
    return tool_fail(code, "%s", line[0] ? line : mmlp_status_text(status));
}

static void check_output(void)
{
    errno = 0;
    int lost = ferror(stdout);
    if (fflush(stdout) == 0 && !lost)
        return;
    _exit(tool_fail(EXIT_INPUT, "cannot write to stdout: %s",
                    errno ? strerror(errno) : "an earlier write failed"));
}

void tool_check_output_at_exit(void)
{
    if (atexit(check_output) != 0)
        exit(tool_fail(EXIT_DEVICE, "out of memory"));
}

void tool_log(void *user, const char *line)
{
    (void)user;
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, line);
}

/* One variable: words wrapped in a column of their own, as argp wraps options. */
static void print_variable(FILE *out, const mmlp_environment_variable *variable)
{
    enum { COLUMN = 25, WIDTH = 78 };
    char *words = NULL;
    if (asprintf(&words, "%s (%s)", variable->meaning, variable->fallback) < 0)
        return;
    int at = fprintf(out, "  %-*s", COLUMN - 2, variable->name);
    char *rest = words;
    for (const char *word; (word = strsep(&rest, " "));) {
        int length = (int)strlen(word);
        if (at + 1 + length > WIDTH)
            at = fprintf(out, "\n%*s", COLUMN, "") - 1;
        at += fprintf(out, " %s", word);
    }
    fputc('\n', out);
    free(words);
}

char *tool_help_filter(int key, const char *text, void *input)
{
    (void)input;
    if (key != ARGP_KEY_HELP_EXTRA)
        return (char *)text;
    char *table = NULL;
    size_t bytes;
    FILE *out = open_memstream(&table, &bytes);
    if (!out)
        return NULL;
    fputs("Environment:\n", out);
    const mmlp_environment_variable *variable;
    for (int i = 0; (variable = mmlp_environment(i)); ++i)
        print_variable(out, variable);
    fclose(out);
    return table;
}

uint64_t tool_parse_number(const char *text, uint64_t least, uint64_t most, const char *option,
                           struct argp_state *state)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || value < least || value > most)
        argp_error(state, "%s %s: is not a whole number from %" PRIu64 " to %" PRIu64, option, text,
                   least, most);
    return value;
}

double tool_milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

/* ---- device --------------------------------------------------------------------------------- */

/* An architecture: the emulated GPU that stands for it, and what its kernels are compiled for. */
static const struct architecture {
    const char *name, *device, *target;
} architectures[] = {
    {"sm_80", "a100", "sm_80"},      {"sm_86", "a10", "sm_86"},    {"sm_89", "l40s", "sm_89"},
    {"sm_90", "h100", "sm_90a"},     {"sm_90a", "h100", "sm_90a"}, {"sm_100", "b200", "sm_100"},
    {"sm_120", "rtx5090", "sm_120"},
};

static const struct architecture *find_architecture(const char *name)
{
    for (size_t i = 0; i < sizeof architectures / sizeof architectures[0]; ++i)
        if (strcmp(architectures[i].name, name) == 0)
            return &architectures[i];
    return NULL;
}

/* What a device of that architecture runs: megamlp-gen names the unknown ones. */
static const char *target_of(const char *arch)
{
    const struct architecture *known = find_architecture(arch);
    return known ? known->target : arch;
}

static int choose_emulated_device(const char *arch)
{
    if (!arch || getenv("MMLP_EMULATOR_DEVICE"))
        return 0;
    const struct architecture *known = find_architecture(arch);
    if (!known)
        return tool_fail(EXIT_USAGE,
                         "--arch %s: the emulator knows sm_80, sm_86, sm_89, sm_90 (sm_90a), "
                         "sm_100 and sm_120",
                         arch);
    setenv("MMLP_EMULATOR_DEVICE", known->device, 1);
    return 0;
}

static mmlp_status create_context(mmlp_context **out, const char *driver, int ordinal)
{
    mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
    options.driver = driver;
    options.device = ordinal;
    options.log = tool_log;
    return mmlp_context_create(out, &options);
}

/* A GPU must be of the architecture that was asked for: numbers of another one answer no question.
 */
static int check_arch(mmlp_context *context, const char *arch)
{
    mmlp_device_properties device = MMLP_DEVICE_PROPERTIES_INIT;
    mmlp_status status = mmlp_context_properties(context, &device);
    if (status != MMLP_OK)
        return tool_fail_status(status);
    if (arch && strcmp(target_of(arch), target_of(device.arch)) != 0)
        return tool_fail(
            EXIT_DEVICE,
            "--arch %s: the device (%s) is %s; leave --arch out, or use --device emulator", arch,
            device.name, device.arch);
    return 0;
}

int tool_open_device(mmlp_context **out, const char *device, int ordinal, const char *arch)
{
    *out = NULL;
    int automatic = strcmp(device, "auto") == 0;
    if (!automatic && strcmp(device, "cuda") != 0 && strcmp(device, "emulator") != 0)
        return tool_fail(EXIT_USAGE, "--device %s: is not one of auto, cuda, emulator", device);

    const char *driver = automatic ? getenv("MMLP_DRIVER") : device;
    mmlp_status status;
    if (!driver || driver[0] == '\0') {
        status = create_context(out, "cuda", ordinal);
        if (status == MMLP_OK) {
            driver = "cuda";
        } else {
            fprintf(stderr, "%s: running on the emulator (%s)\n", program_invocation_short_name,
                    mmlp_last_error());
            driver = "emulator";
        }
    }
    if (!*out) {
        int is_gpu = strcmp(driver, "cuda") == 0;
        int code = is_gpu ? 0 : choose_emulated_device(arch);
        if (code != 0)
            return code;
        status = create_context(out, driver, is_gpu ? ordinal : 0);
        if (status != MMLP_OK)
            return tool_fail_status(status);
    }
    int code = check_arch(*out, arch);
    if (code != 0) {
        mmlp_context_destroy(*out);
        *out = NULL;
    }
    return code;
}

/* ---- bundle --------------------------------------------------------------------------------- */

static int ends_with(const char *string, const char *end)
{
    size_t length = strlen(string), end_length = strlen(end);
    return length >= end_length && strcmp(string + length - end_length, end) == 0;
}

/* The path of `name` in the folder of this program (malloc). */
static char *beside_this_program(const char *name)
{
    char own[4096];
    ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
    if (length < 0)
        return NULL;
    own[length] = '\0';
    char *slash = strrchr(own, '/');
    char *path = NULL;
    if (!slash || asprintf(&path, "%.*s/%s", (int)(slash - own), own, name) < 0)
        return NULL;
    return path;
}

/* Runs the program and returns its exit code, 127 when it could not be started. */
static int run_program(char *const arguments[], int output)
{
    pid_t child = fork();
    if (child == 0) {
        dup2(output, STDOUT_FILENO);
        execv(arguments[0], arguments);
        _exit(127);
    }
    int state = 0;
    if (child < 0 || waitpid(child, &state, 0) < 0 || !WIFEXITED(state))
        return 127;
    return WEXITSTATUS(state);
}

char *tool_temporary_folder(void)
{
    const char *parent = getenv("TMPDIR");
    char *folder = NULL;
    if (asprintf(&folder, "%s/megamlp.XXXXXX", parent && parent[0] ? parent : P_tmpdir) < 0) {
        tool_fail(EXIT_DEVICE, "out of memory");
        return NULL;
    }
    if (!mkdtemp(folder)) {
        tool_fail(EXIT_DEVICE, "%s: cannot create a temporary folder: %s", folder, strerror(errno));
        free(folder);
        return NULL;
    }
    return folder;
}

void tool_remove_folder(char *folder)
{
    char *arguments[] = {"/bin/rm", "-rf", "--", folder, NULL};
    if (folder)
        run_program(arguments, STDOUT_FILENO);
    free(folder);
}

int tool_generate(char **bundle, const char *spec, const char *arch, const char *tile,
                  const char *folder)
{
    *bundle = NULL;
    const char *slash = strrchr(spec, '/');
    const char *file = slash ? slash + 1 : spec;
    int stem = (int)strlen(file) - (ends_with(file, ".lua") ? 4 : 0);
    char *generator = beside_this_program("megamlp-gen");
    if (!generator || asprintf(bundle, "%s/%.*s.mlp", folder, stem, file) < 0) {
        free(generator);
        *bundle = NULL;
        return tool_fail(EXIT_DEVICE, "out of memory");
    }
    char *arguments[12] = {generator, "bundle", (char *)spec, "-o", *bundle};
    int count = 5;
    if (arch) {
        arguments[count++] = "--cubin";
        arguments[count++] = "--arch";
        arguments[count++] = (char *)target_of(arch);
    }
    if (tile) {
        arguments[count++] = "--tile";
        arguments[count++] = (char *)tile;
    }
    int code = run_program(arguments, STDOUT_FILENO);
    if (code == 127)
        code = tool_fail(EXIT_DEVICE, "%s: cannot be run; it makes the bundle of a .lua spec",
                         generator);
    free(generator);
    if (code != 0) {
        free(*bundle);
        *bundle = NULL;
    }
    return code;
}

/* The text of a file from its start (malloc), or NULL. */
static char *read_whole(int file)
{
    off_t bytes = lseek(file, 0, SEEK_END);
    char *text = bytes < 0 ? NULL : calloc((size_t)bytes + 1, 1);
    if (text && pread(file, text, (size_t)bytes, 0) != bytes) {
        free(text);
        text = NULL;
    }
    return text;
}

/* What megamlp-gen prints to stdout (malloc). arguments[0] is set here. purpose: what it is for, in
 * the message that it cannot be run. */
static int generator_output(char **printed, char *arguments[], const char *purpose)
{
    *printed = NULL;
    char *generator = beside_this_program("megamlp-gen");
    int output = memfd_create("output", MFD_CLOEXEC);
    if (!generator || output < 0) {
        free(generator);
        if (output >= 0)
            close(output);
        return tool_fail(EXIT_DEVICE, "out of memory");
    }
    arguments[0] = generator;
    int code = run_program(arguments, output);
    if (code == 127)
        code = tool_fail(EXIT_DEVICE, "%s: cannot be run; it %s", generator, purpose);
    if (code == EXIT_CHECK_FAILED) /* the kernels are bad, and that is what is asked */
        code = 0;
    if (code == 0 && !(*printed = read_whole(output)))
        code = tool_fail(EXIT_DEVICE, "%s: its output cannot be read", generator);
    close(output);
    free(generator);
    return code;
}

int tool_check_kernels(char **report, const char *spec, const char *arch, const char *tile)
{
    char *arguments[] = {NULL,
                         "check",
                         (char *)spec,
                         "--arch",
                         (char *)target_of(arch),
                         tile ? "--tile" : NULL,
                         (char *)tile,
                         NULL};
    return generator_output(report, arguments, "compiles the kernels of a spec");
}

int tool_describe(char **description, const char *spec)
{
    char *arguments[] = {NULL, "describe", (char *)spec, NULL};
    return generator_output(description, arguments, "reads a .lua spec");
}

int tool_is_spec(const char *path)
{
    return ends_with(path, ".lua");
}

int tool_open_bundle(mmlp_bundle **out, const char *spec_or_bundle, const char *tile)
{
    *out = NULL;
    char *folder = NULL, *generated = NULL;
    int code = 0;
    if (tool_is_spec(spec_or_bundle)) {
        folder = tool_temporary_folder();
        code = folder ? tool_generate(&generated, spec_or_bundle, NULL, tile, folder) : EXIT_DEVICE;
    }
    if (code == 0) {
        mmlp_status status = mmlp_bundle_open(out, generated ? generated : spec_or_bundle);
        if (status != MMLP_OK)
            code = tool_fail_status(status);
    }
    free(generated);
    tool_remove_folder(folder);
    return code;
}
