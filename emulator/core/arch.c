/*
 * arch.c: the table of GPUs that can be emulated. Used by the driver front and by module loading,
 * which refuses PTX for a newer GPU than the row.
 */
#include <string.h>

#include "emu.h"

static const emu_arch arch_rows[] = {
#define ARCH(id, name, major, minor, sms, block, optin, sm, regs, threads, blocks, l2, khz, bytes) \
    {id, name, major, minor, sms, block, optin, sm, regs, threads, blocks, l2, khz, bytes},
#include "arch.def"
#undef ARCH
};

const emu_arch *emu_arch_at(int index)
{
    int count = (int)(sizeof arch_rows / sizeof arch_rows[0]);
    return index >= 0 && index < count ? &arch_rows[index] : NULL;
}

const emu_arch *emu_arch_find(const char *id)
{
    for (int i = 0; emu_arch_at(i); i++) {
        if (strcmp(emu_arch_at(i)->id, id) == 0) {
            return emu_arch_at(i);
        }
    }
    return NULL;
}
