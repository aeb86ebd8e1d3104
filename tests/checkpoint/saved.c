/* saved.c: see saved.h. */
#include "saved.h"

#include <stdio.h>

#include "temporary_folder.h"

char *folder, path[4096], temporary[4200];

void saved_begin(void)
{
    folder = temporary_folder_make();
    snprintf(path, sizeof path, "%s/c.safetensors", folder);
    snprintf(temporary, sizeof temporary, "%s.saving", path);
}

void saved_end(void)
{
    temporary_folder_remove(folder);
}
