/* python.c: Python's safetensors reads what is saved, and what it writes is loaded. Definitions:
 * PYTHON (a python3 that has the packages, or will have), SCRIPT. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "program.h"
#include "shard.h"
#include "temporary_folder.h"

static void run_script(const char *what, const char *path, const shard_model *m)
{
    char numbers[3][24];
    snprintf(numbers[0], sizeof numbers[0], "%lld", (long long)m->hidden_size);
    snprintf(numbers[1], sizeof numbers[1], "%lld", (long long)m->ffn_hidden_size);
    snprintf(numbers[2], sizeof numbers[2], "%d", m->layers);
    program_result result = program_run((const char *const[]){
        PYTHON, SCRIPT, what, path, numbers[0], numbers[1], m->gated ? "1" : "0",
        m->bias ? "1" : "0", m->singleton ? "1" : "0", m->dtype, numbers[2], NULL});
    cr_assert_eq(result.exit_code, 0, "%s", result.output);
    program_result_free(&result);
}

Test(checkpoint_python, its_safetensors_reads_and_writes_checkpoints, .timeout = 240)
{
    static const char *const dtypes[] = {"bf16", "fp16", "fp32"};
    if (access(PYTHON, X_OK) != 0) {
        printf("SKIPPED: no " PYTHON "; scripts/setup --tests makes it\n");
        fflush(stdout); /* skipping ends the process without it */
        cr_skip_test("no " PYTHON);
    }
    char *folder = temporary_folder_make(), path[4096];
    snprintf(path, sizeof path, "%s/c.safetensors", folder);
    for (int i = 0; i < 12; i++) {
        const shard_model model = {12, 48, i & 1, i % 4 != 0, i & 2, dtypes[i / 4], i % 3};
        shard_save_all(path, &model, 4);
        run_script("check", path, &model);
        run_script("write", path, &model);
        for (int ranks = 1; ranks <= 8; ranks *= 2)
            shard_load_all(path, &model, ranks);
    }
    temporary_folder_remove(folder);
}
