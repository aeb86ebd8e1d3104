/*
 * ptxrun.c: ptxrun, runs entries of any PTX as a manifest says (docs/ptxrun.md), and compares what
 * came of it with what the manifest expects.
 */
#include "ptxrun.h"

#include <argp.h>
#include <base/text.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tool.h"

typedef struct options {
    const char *device, *manifest;
} options;

enum { KEY_DEVICE = 256 };

static const struct argp_option option_table[] = {
    {"device", KEY_DEVICE, "DEVICE", 0,
     "auto (the default: $MMLP_DRIVER, else the NVIDIA driver, else the emulator), cuda, or "
     "emulator",
     0},
    {0},
};

static const char documentation[] =
    "Runs entries of a PTX file, or of a CUDA C++ file that NVRTC compiles, through the CUDA "
    "Driver "
    "API, and compares what they do with what MANIFEST.json expects.\v"
    "A manifest:\n\n"
    "  {\n"
    "    \"ptx\": \"axpy.ptx\",\n"
    "    \"buffers\": {\n"
    "      \"x\": {\"type\": \"f32\", \"count\": 1000,\n"
    "            \"fill\": {\"generator\": \"uniform\", \"seed\": 1,\n"
    "                     \"low\": -1, \"high\": 1}},\n"
    "      \"y\": {\"type\": \"f32\", \"count\": 1000,\n"
    "            \"fill\": {\"generator\": \"constant\", \"value\": 3}}\n"
    "    },\n"
    "    \"runs\": [{\n"
    "      \"entry\": \"axpy\", \"grid\": [4], \"block\": [256],\n"
    "      \"parameters\": [{\"buffer\": \"y\"}, {\"buffer\": \"x\"},\n"
    "                     {\"f32\": 2.5}, {\"u32\": 1000}],\n"
    "      \"expect\": {\"buffers\": [{\"oracle\": \"axpy\", \"alpha\": 2.5,\n"
    "                              \"buffers\": [\"y\", \"x\"],\n"
    "                              \"tolerance\": {\"ulp\": 1}}]}\n"
    "    }]\n"
    "  }\n\n"
    "In place of \"ptx\": \"cuda\", \"target\", \"options\". Generators: uninitialised (without "
    "\"fill\"), zeros, constant, iota, uniform, normal, hex, file. Oracles: equals, file, copy, "
    "axpy, sum, scan, histogram, transpose, matmul. A run can also have \"cluster\", "
    "\"shared_bytes\", and in \"expect\": \"result\" (CUDA_ERROR_ILLEGAL_ADDRESS), \"diagnostic\" "
    "(parts of the emulator's report; a GPU has none) and \"stdout\" (parts of what printf "
    "writes). A parameter can be a scalar, {\"buffer\": NAME, \"offset\": BYTES}, {\"struct\": "
    "[...], \"align\": N}, {\"bytes\": HEX, \"align\": N}, or {\"tensor_map\": {...}}. "
    "docs/ptxrun.md has all of it.\n\n"
    "Exit codes: 0 all as expected, 1 a run differed, 2 usage, 3 a bad manifest, 4 a device or "
    "compile error.";

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    options *o = state->input;
    switch (key) {
    case KEY_DEVICE:
        o->device = argument;
        break;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0)
            argp_error(state, "'%s': one manifest is enough", argument);
        o->manifest = argument;
        break;
    case ARGP_KEY_END:
        if (!o->manifest)
            argp_error(state, "needs a MANIFEST.json");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* ---- one run -------------------------------------------------------------------------------- */

/* By the index of a buffer: what it holds before every run (NULL: uninitialised). */
typedef struct contents {
    unsigned char *of[PTXRUN_MOST_BUFFERS];
} contents;

static int make_contents(contents *before, const manifest *m)
{
    for (size_t i = 0; i < m->buffer_count; ++i) {
        const buffer *b = &m->buffers[i];
        if (!fill_is_made(&b->fill))
            continue;
        before->of[i] = malloc(b->bytes);
        if (!before->of[i])
            return tool_fail(EXIT_DEVICE, "out of memory: %s has %zu bytes", b->name, b->bytes);
        fill_make(before->of[i], b);
    }
    return 0;
}

static void contents_free(contents *c)
{
    for (size_t i = 0; i < PTXRUN_MOST_BUFFERS; ++i)
        free(c->of[i]);
}

/* A line for every part that the text lacks. */
static void miss_parts(text *why, const json_t *parts, const char *of, const char *found)
{
    for (size_t i = 0; i < json_array_size(parts); ++i) {
        const char *part = json_string_value(json_array_get(parts, i));
        if (!strstr(found ? found : "", part))
            text_printf(why, "  %s has no \"%s\"\n", of, part);
    }
}

static int compare_buffers(text *why, const manifest *m, const run *r, const contents *before,
                           const contents *after)
{
    int code = 0;
    for (size_t i = 0; code == 0 && i < r->expected_count; ++i) {
        char *report;
        const expected_buffer *e = &r->expected[i];
        code =
            expected_buffer_compare(&report, e, m->buffers, before->of, after->of[e->buffers[0]]);
        text_puts(why, report ? report : "");
        free(report);
    }
    return code;
}

/* Why the run is not as expected; nothing if it is. */
static int judge(text *why, const outcome *o, const device *d, const manifest *m, const run *r,
                 const contents *before, const contents *after)
{
    int code = 0;
    const char *result = device_result_name(d, o->result);
    if (strcmp(result, r->result) != 0) {
        text_printf(why, "  %s gave %s, expected %s\n", o->call, result, r->result);
    } else {
        if (device_has_reports(d))
            miss_parts(why, r->diagnostic, "the report", o->diagnostic);
        miss_parts(why, r->printed, "stdout", o->printed);
        code = compare_buffers(why, m, r, before, after);
    }
    if (why->length > 0 && o->diagnostic)
        text_puts(why, o->diagnostic);
    return code;
}

/* Prints the line of a run, and what is to be said about it. *differed counts. */
static int run_one(int *differed, device *d, const manifest *m, size_t i, int width,
                   const contents *before)
{
    const run *r = &m->runs[i];
    outcome o = {0};
    contents after = {0};
    text why = TEXT_INIT;
    int code = device_run(&o, after.of, d, m, i, before->of);
    if (code == 0)
        code = judge(&why, &o, d, m, r, before, &after);
    if (code == 0) {
        bool untold = r->diagnostic && !device_has_reports(d);
        if (!r->printed)
            fputs(o.printed ? o.printed : "", stdout);
        printf("runs[%zu]%*s%-*s  %s%s\n", i,
               i < 10    ? 3
               : i < 100 ? 2
                         : 1,
               "", width, r->entry, why.length ? "FAILED" : "ok",
               untold ? " (the report was not compared: a GPU gives none)" : "");
        fputs(text_string(&why), stdout);
    }
    *differed += why.length > 0;
    text_free(&why);
    contents_free(&after);
    outcome_free(&o);
    return code;
}

/* ---- all of them ---------------------------------------------------------------------------- */

/* What the processes of one ptxrun know of each other. */
typedef struct progress {
    size_t next; /* the run that comes, or is under way */
    int differed;
} progress;

/* Runs what is left, until a fault takes the device from this process. */
static int run_rest(progress *p, const char *which, const manifest *m)
{
    device *d = NULL;
    contents before = {0};
    int width = 0;
    for (size_t i = 0; i < m->run_count; ++i)
        if ((int)strlen(m->runs[i].entry) > width)
            width = (int)strlen(m->runs[i].entry);
    int code = device_open(&d, which, m);
    if (code == 0)
        code = make_contents(&before, m);
    while (code == 0 && p->next < m->run_count && !device_is_lost(d)) {
        code = run_one(&p->differed, d, m, p->next, width, &before);
        ++p->next;
    }
    contents_free(&before);
    device_close(d);
    return code;
}

static int wait_for(pid_t child, const progress *p)
{
    int state = 0;
    if (child < 0 || waitpid(child, &state, 0) != child)
        return tool_fail(EXIT_DEVICE, "runs[%zu]: there is no process for it", p->next);
    if (WIFSIGNALED(state))
        return tool_fail(EXIT_DEVICE, "runs[%zu]: its process was ended by signal %d", p->next,
                         WTERMSIG(state));
    return WEXITSTATUS(state);
}

/* After a fault a GPU is of no more use to the process that caused it: another one goes on. */
static int run_all(const char *which, const manifest *m)
{
    int code = 0;
    progress *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return tool_fail(EXIT_DEVICE, "out of memory: %zu bytes", sizeof *p);
    while (code == 0 && p->next < m->run_count) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0)
            exit(run_rest(p, which, m));
        code = wait_for(child, p);
    }
    if (code == 0 && p->differed > 0)
        code = tool_fail(EXIT_CHECK_FAILED, "%d of %zu runs differ", p->differed, m->run_count);
    munmap(p, sizeof *p);
    return code;
}

int main(int argc, char **argv)
{
    options o = {.device = "auto"};
    const struct argp parser = {
        option_table, parse_option, "MANIFEST.json", documentation, NULL, tool_help_filter, NULL};
    tool_check_output_at_exit();
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, &o);

    manifest m = {0};
    int code = ptxrun_read(&m, o.manifest);
    if (code == 0)
        code = run_all(o.device, &m);
    ptxrun_free(&m);
    return code;
}
