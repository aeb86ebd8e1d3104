/* mistakes.c: see mistakes.h. */
#include "mistakes.h"

#include <criterion/criterion.h>
#include <driver/cu_emulator.h>
#include <stdlib.h>
#include <string.h>

void expect_none(const char *schedule)
{
    static const victim victims[] = {FC1_FORWARD, FC2_FORWARD, FC2_DGRAD,
                                     FC1_DGRAD,   FC1_WGRAD,   BIAS_FC2_DGRAD};
    setenv("MMLP_EMULATOR_SCHEDULE", schedule, 1);
    for (size_t i = 0; i < sizeof victims / sizeof *victims; i++) {
        generated k = generated_read(victims[i]);
        cr_expect_eq(generated_run(&k, NULL, NULL, NULL), CUDA_SUCCESS, "%s",
                     generated_string(&k, "entry"));
        generated_free(&k);
    }
}

void expect_report(const mistake *m, const char *short_tensor)
{
    generated k = generated_read(m->kernel);
    if (m->from)
        generated_replace(&k, m->from, m->to);
    CUresult result = generated_run(&k, short_tensor, NULL, NULL);
    const char *report = cuEmulatorLastReport(), *entry = generated_string(&k, "entry");
    cr_expect_neq(result, CUDA_SUCCESS, "%s: nothing was reported", m->name);
    cr_expect(strstr(report, entry), "%s: no %s in\n%s", m->name, entry, report);
    cr_expect(strstr(report, m->said[0]) || (m->said[1] && strstr(report, m->said[1])),
              "%s: '%s' is not in\n%s", m->name, m->said[0], report);
    generated_free(&k);
}

void expect_reports(const char *schedule, const mistake *mistakes, size_t count)
{
    setenv("MMLP_EMULATOR_SCHEDULE", schedule, 1);
    for (size_t i = 0; i < count; i++)
        expect_report(&mistakes[i], NULL);
}
