/*
 * tool.h: what the command-line tools share: exit codes, one-line errors, the choice of the device,
 * and turning a spec into a bundle.
 */
#ifndef MMLP_TOOLS_TOOL_H
#define MMLP_TOOLS_TOOL_H

#include <megamlp/megamlp.h>

/* What the exit codes of every tool mean. */
enum {
    EXIT_CHECK_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_INPUT = 3, /* a bad spec, bundle or tensor file */
    EXIT_DEVICE = 4 /* a device, driver or compile error */
};

/* Prints "PROGRAM: text" to stderr and returns code. */
int tool_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints mmlp_last_error() and returns the exit code that goes with status. */
int tool_fail_status(mmlp_status status);
/* To be called first by main: at exit, also when argp exits after --help, output that did not
 * arrive is an error (EXIT_INPUT). */
void tool_check_output_at_exit(void);
/* mmlp_context_options.log: a line to stderr. */
void tool_log(void *user, const char *line);
/* argp.help_filter: --help ends with the environment variables, from the library's own table. */
char *tool_help_filter(int key, const char *text, void *input);
/* The whole number in [least, most] that `option` was given, or a usage error. */
struct argp_state;
uint64_t tool_parse_number(const char *text, uint64_t least, uint64_t most, const char *option,
                           struct argp_state *state);
/* Milliseconds of a clock that only goes forward. */
double tool_milliseconds(void);

/*
 * Opens the context that --device (auto, cuda, emulator) and --arch (NULL: whatever the device is)
 * ask for. auto: $MMLP_DRIVER if set, else the NVIDIA driver if one works, else the emulator, with
 * one line of notice on stderr. On the emulator the emulated GPU is chosen to suit `arch`, unless
 * $MMLP_EMULATOR_DEVICE says otherwise. ordinal: which GPU; an emulated one is each process's own.
 * Returns 0, or the exit code after printing why.
 */
int tool_open_device(mmlp_context **out, const char *device, int ordinal, const char *arch);

/*
 * Opens NAME.mlp, or makes a bundle from SPEC.lua with the megamlp-gen beside this program. The
 * temporary bundle is gone when this returns. tile: what megamlp-gen calls --tile, for a spec, or
 * NULL. Returns 0, or the exit code after printing why.
 */
int tool_open_bundle(mmlp_bundle **out, const char *spec_or_bundle, const char *tile);

/* A new folder in $TMPDIR (malloc), or NULL after printing why; tool_remove_folder removes it with
 * all it holds and frees the string (NULL allowed). */
char *tool_temporary_folder(void);
void tool_remove_folder(char *folder);

/* Runs the megamlp-gen beside this program: SPEC.lua -> folder/SPEC.mlp, whose path (malloc) is
 * *bundle; with `arch` its cubins for that architecture too. Returns 0, or the exit code after
 * printing why. */
int tool_generate(char **bundle, const char *spec, const char *arch, const char *tile,
                  const char *folder);
/* What the megamlp-gen beside this program says of the kernels of SPEC.lua as ptxas compiles them
 * (malloc): the lines of its `check`. Returns 0, or the exit code after printing why. */
int tool_check_kernels(char **report, const char *spec, const char *arch, const char *tile);
/* The JSON that the megamlp-gen beside this program prints of SPEC.lua's sizes (malloc): no bundle
 * is made, and the kernels' rule about sizes does not hold. Returns as tool_check_kernels. */
int tool_describe(char **description, const char *spec);
/* Whether the path is that of a SPEC.lua, by its name. */
int tool_is_spec(const char *path);

#endif
