/* counted.c: see counted.h. */
#include "counted.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>

#include "device.h"
#include "kernel.h"

void counted_keep(void *user, const char *kernel, const emu_counters *counters)
{
    cr_assert_str_eq(kernel, "kernel");
    *(emu_counters *)user = *counters;
}

/* What kernel.h adds to a body. */
static void subtract_frame(emu_counters *counters, unsigned blocks, unsigned threads)
{
    static const struct {
        emu_class class;
        uint64_t count;
    } frame[] = {{EMU_CLASS_PARAM, 2}, {EMU_CLASS_MOVE, 3}, {EMU_CLASS_CONTROL, 1}};
    for (size_t i = 0; i < sizeof frame / sizeof frame[0]; i++) {
        counters->warp_instructions[frame[i].class] -=
            frame[i].count * blocks * ((threads + 31) / 32);
        counters->lane_instructions[frame[i].class] -= frame[i].count * blocks * threads;
    }
}

emu_counters counted_run(const char *name, const char *body, unsigned blocks, unsigned threads,
                         const uint32_t *in)
{
    static const uint32_t zeros[COUNTED_WORDS];
    emu_counters counters = {.blocks = 0};
    void *out = malloc(COUNTED_BYTES);
    device_open();
    cr_assert_eq(cuEmulatorCount(counted_keep, &counters), CUDA_SUCCESS);
    kernel_run(name, body, blocks, threads, in ? in : zeros, sizeof zeros, out, COUNTED_BYTES);
    device_close();
    free(out);
    cr_assert_eq(counters.blocks, blocks, "%s", name);
    subtract_frame(&counters, blocks, threads);
    return counters;
}

void counted_expect_classes(const char *name, const emu_counters *found,
                            const uint64_t warps[EMU_CLASS_COUNT],
                            const uint64_t lanes[EMU_CLASS_COUNT])
{
    static const char *const names[] = {
#define NAME(id, class_name, meaning) #class_name,
        EMU_CLASSES(NAME)
#undef NAME
    };
    for (int c = 0; c < EMU_CLASS_COUNT; c++) {
        cr_expect(found->warp_instructions[c] == warps[c] &&
                      found->lane_instructions[c] == lanes[c],
                  "%s: %s: %" PRIu64 " warp and %" PRIu64 " lane instructions, wanted %" PRIu64
                  " and %" PRIu64,
                  name, names[c], found->warp_instructions[c], found->lane_instructions[c],
                  warps[c], lanes[c]);
    }
}
