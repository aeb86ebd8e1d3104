/*
 * saved_passes.c: remembers which memory the last forward passes have saved to. passes.c asks
 * before a dgrad reads it.
 */
#include "saved_passes.h"

#include <string.h>

void saved_passes_drop(saved_passes *saved, uintptr_t begin, size_t bytes)
{
    int kept = 0;
    for (int i = 0; i < saved->count; i++) {
        const saved_pass *p = &saved->passes[i];
        if (p->begin >= begin + bytes || begin >= p->begin + p->bytes)
            saved->passes[kept++] = *p;
    }
    saved->count = kept;
}

void saved_passes_add(saved_passes *saved, uintptr_t begin, size_t bytes, int64_t tokens)
{
    if (saved->count == SAVED_PASSES) {
        memmove(saved->passes, saved->passes + 1, (SAVED_PASSES - 1) * sizeof saved->passes[0]);
        saved->count--;
        saved->forgot = true;
    }
    saved->passes[saved->count++] = (saved_pass){begin, bytes, tokens};
}

mmlp_status saved_passes_check(const saved_passes *saved, uintptr_t begin, int64_t tokens)
{
    for (int i = saved->count - 1; i >= 0; i--) {
        const saved_pass *p = &saved->passes[i];
        if (p->begin == begin && p->tokens == tokens)
            return MMLP_OK;
        if (p->begin == begin)
            return mmlp_fail(MMLP_ERROR_SHAPE,
                             "saved: the forward pass that wrote it had %lld tokens, found %lld",
                             (long long)p->tokens, (long long)tokens);
    }
    if (saved->forgot)
        return MMLP_OK;
    return mmlp_fail(MMLP_ERROR_ORDER,
                     "saved: no forward pass of this mlp has written to 0x%llx, or a later call "
                     "has written over it: call mmlp_mlp_forward with this `saved` first",
                     (unsigned long long)begin);
}
