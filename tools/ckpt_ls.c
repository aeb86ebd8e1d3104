/* ckpt_ls.c: megamlp-ckpt ls, the tensors of a safetensors file. No tensor is read. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt.h"
#include "safetensors.h"
#include "tool.h"

static void print_tensor(const safetensor *tensor, int name_width)
{
    printf("%-*s  %-4s %16zu  [", name_width, tensor->name, safetensors_dtype(&tensor->view),
           tensor->bytes);
    for (int i = 0; i < tensor->view.ndim; i++)
        printf("%s%" PRId64, i ? ", " : "", tensor->shape[i]);
    printf("]\n");
}

int ckpt_ls(const char *path)
{
    safetensors file;
    char *error;
    if (!safetensors_open(&file, path, &error)) {
        int code = tool_fail(EXIT_INPUT, "%s", error ? error : "out of memory");
        free(error);
        return code;
    }
    size_t width = strlen("tensor"), bytes = 0;
    for (size_t i = 0; i < file.count; i++) {
        size_t length = strlen(file.tensors[i].name);
        width = length > width ? length : width;
        bytes += file.tensors[i].bytes;
    }
    printf("%-*s  %-4s %16s  %s\n", (int)width, "tensor", "type", "bytes", "shape");
    for (size_t i = 0; i < file.count; i++)
        print_tensor(&file.tensors[i], (int)width);
    printf("%zu tensor%s, %zu bytes\n", file.count, file.count == 1 ? "" : "s", bytes);
    safetensors_close(&file);
    return 0;
}
