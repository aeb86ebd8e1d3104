/*
 * check.c: a kernel that spills, keeps accumulators on the stack or makes ptxas serialise something
 * is slow without being wrong, so it has to be looked for. Reads the log of ptxas -v, and counts in
 * the machine code what the PTX has of warpgroup instructions.
 */
#include "check.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "cubin.h"
#include "emit_compile.h"

/* The number in front of `words`, as in "12 bytes stack frame"; -1 when the log has no such words.
 */
static long number_before(const char *log, const char *words)
{
    const char *at = strstr(log, words);
    if (!at)
        return -1;
    while (at > log && at[-1] == ' ')
        at--;
    while (at > log && isdigit((unsigned char)at[-1]))
        at--;
    return isdigit((unsigned char)*at) ? strtol(at, NULL, 10) : -1;
}

/* The first advisory of ptxas, "C75xx". */
static void find_advisory(char out[8], const char *log)
{
    out[0] = '\0';
    for (const char *at = log; (at = strstr(at, "C75")) != NULL; at++) {
        if (isdigit((unsigned char)at[3]) && isdigit((unsigned char)at[4])) {
            memcpy(out, at, 5);
            out[5] = '\0';
            return;
        }
    }
}

void check_read_log(check_report *out, const char *log)
{
    const char *used = strstr(log, "Used ");
    out->registers = used ? strtol(used + strlen("Used "), NULL, 10) : -1;
    out->shared_bytes = number_before(log, "bytes smem");
    out->stack_bytes = number_before(log, "bytes stack frame");
    out->spill_stores = number_before(log, "bytes spill stores");
    out->spill_loads = number_before(log, "bytes spill loads");
    find_advisory(out->advisory, log);
}

/* Instructions of a PTX text: lines that end in ';' and are no directive. */
static long count_instructions(const char *ptx)
{
    long count = 0;
    for (const char *line = ptx; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        const char *start = line + strspn(line, " \t");
        size_t length = strcspn(start, "\n");
        if (length > 0 && start[length - 1] == ';' && *start != '.' && *start != '/')
            count++;
    }
    return count;
}

static long count_words(const char *ptx, const char *word)
{
    long count = 0;
    for (const char *at = ptx; (at = strstr(at, word)) != NULL; at += strlen(word))
        count++;
    return count;
}

/* ptxas may multiply a product when it copies a loop, and leave setmaxnreg out. */
typedef struct warpgroup_code {
    long wgmma, setmaxnreg; /* of the PTX; 0 each: nothing to compare */
    cubin_counts code;
    bool is_read;
} warpgroup_code;

static warpgroup_code read_code(const nvrtc_image *image, const char *entry)
{
    warpgroup_code w = {.wgmma = count_words(image->ptx, "wgmma.mma_async"),
                        .setmaxnreg = count_words(image->ptx, "setmaxnreg.")};
    w.is_read = w.wgmma + w.setmaxnreg == 0 ||
                cubin_count(&w.code, image->cubin, image->cubin_bytes, entry) == MMLP_OK;
    return w;
}

/* True: the machine code has what the PTX has. */
static bool print_code_failures(FILE *out, const warpgroup_code *w)
{
    bool lacks_setmaxnreg = w->is_read && w->setmaxnreg > 0 && w->code.setmaxnreg == 0;
    bool differs = w->is_read && w->code.wgmma != w->wgmma;
    if (!w->is_read)
        fprintf(out, ", FAILED: %s", mmlp_last_error());
    if (differs)
        fprintf(out, ", FAILED: %ld wgmma in the PTX, %ld in the machine code", w->wgmma,
                w->code.wgmma);
    if (lacks_setmaxnreg)
        fprintf(out, ", FAILED: no setmaxnreg in the machine code");
    return w->is_read && !differs && !lacks_setmaxnreg;
}

static bool print_report(FILE *out, const emit_kernel *kernel, const char *arch,
                         const nvrtc_image *image)
{
    check_report r;
    check_read_log(&r, image->log);
    warpgroup_code code = read_code(image, kernel->entry);
    bool bad = r.stack_bytes > 0 || r.spill_stores > 0 || r.spill_loads > 0 || r.advisory[0] ||
               r.registers < 0;
    fprintf(out, "%-7s %-40s %3ld registers, %6lld B shared, %5ld PTX instructions", arch,
            kernel->entry, r.registers,
            (long long)kernel->shared_bytes + (r.shared_bytes > 0 ? r.shared_bytes : 0),
            count_instructions(image->ptx));
    if (code.code.wgmma > 0)
        fprintf(out, ", %2ld wgmma", code.code.wgmma);
    if (code.code.setmaxnreg > 0)
        fprintf(out, ", setmaxnreg");
    if (r.registers < 0)
        fprintf(out, ", FAILED: the compiler's log has no register count");
    if (r.stack_bytes > 0 || r.spill_stores > 0 || r.spill_loads > 0)
        fprintf(out, ", FAILED: %ld B stack, %ld B spill stores, %ld B spill loads", r.stack_bytes,
                r.spill_stores, r.spill_loads);
    if (r.advisory[0])
        fprintf(out, ", FAILED: advisory %s", r.advisory);
    bad = !print_code_failures(out, &code) || bad;
    fprintf(out, "\n");
    return !bad;
}

mmlp_status check_kernels(int *failures, FILE *out, const emit_kernels *kernels,
                          const char *const *archs, int arch_count)
{
    *failures = 0;
    if (arch_count == 0) {
        archs = plan_architectures;
        while (archs[arch_count])
            arch_count++;
    }
    nvrtc_image *images;
    MMLP_TRY(emit_compile(&images, kernels, archs, arch_count));
    for (int a = 0; a < arch_count; a++)
        for (int i = 0; i < kernels->count; i++)
            *failures +=
                emit_runs_on(kernels, i, archs[a]) &&
                !print_report(out, &kernels->kernels[i], archs[a], &images[i * arch_count + a]);
    emit_images_free(images, kernels->count * arch_count);
    return MMLP_OK;
}
