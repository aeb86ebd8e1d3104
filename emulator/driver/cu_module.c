/*
 * cu_module.c: modules. Only PTX text can be loaded: a cubin or fatbin is NO_BINARY_FOR_GPU, as it
 * is on a GPU of another architecture, and a program that also has PTX then offers that.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/queue.h"

/* The words of a binary image: ELF, a fatbin, and the wrapper that nvcc puts around a fatbin. */
#define MAGIC_ELF            0x464c457fu
#define MAGIC_FATBIN         0xba55ed50u
#define MAGIC_FATBIN_WRAPPER 0x466243b1u

#define LOG_BYTES 4096

/* ---- JIT options ---------------------------------------------------------------------------- */

typedef struct log_buffer {
    char *chars;
    size_t capacity;
    void **written; /* where the number of bytes written goes: the size option's own value */
} log_buffer;

typedef struct jit_options {
    log_buffer error, info;
    void **wall_time;
} jit_options;

static CUresult read_options(jit_options *out, unsigned count, CUjit_option *options, void **values)
{
    *out = (jit_options){0};
    if (count && (!options || !values))
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < count; i++) {
        switch ((int)options[i]) {
        case CU_JIT_ERROR_LOG_BUFFER:
            out->error.chars = values[i];
            break;
        case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
            out->error.capacity = (unsigned)(uintptr_t)values[i];
            out->error.written = &values[i];
            break;
        case CU_JIT_INFO_LOG_BUFFER:
            out->info.chars = values[i];
            break;
        case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
            out->info.capacity = (unsigned)(uintptr_t)values[i];
            out->info.written = &values[i];
            break;
        case CU_JIT_WALL_TIME:
            out->wall_time = &values[i];
            break;
        default:
            if ((int)options[i] < 0 || options[i] >= CU_JIT_NUM_OPTIONS)
                return CUDA_ERROR_INVALID_VALUE;
            break; /* register and optimisation limits mean nothing to an interpreter */
        }
    }
    return CUDA_SUCCESS;
}

static void fill_log(const log_buffer *buffer, const char *line)
{
    size_t length = 0;
    if (buffer->chars && buffer->capacity) {
        int wanted = snprintf(buffer->chars, buffer->capacity, "%s", line);
        length = wanted < 0 ? 0 : (size_t)wanted;
        if (length >= buffer->capacity)
            length = buffer->capacity - 1;
    }
    if (buffer->written)
        *buffer->written = (void *)(uintptr_t)length;
}

/* ---- loading -------------------------------------------------------------------------------- */

static void release_module(front_object *object)
{
    CUmodule module = (CUmodule)object;
    for (int i = 0; i < module->function_count; i++) {
        if (module->functions[i])
            front_remove(module->functions[i], FRONT_FUNCTION);
        free(module->functions[i]);
    }
    free(module->functions);
    if (module->module)
        emu_module_unload(object->context->machine, module->module);
    free(module);
}

static CUresult make_functions(CUmodule module)
{
    module->function_count = emu_module_function_count(module->module);
    module->functions = calloc((size_t)module->function_count + 1, sizeof(CUfunction));
    if (!module->functions) {
        module->function_count = 0;
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    for (int i = 0; i < module->function_count; i++) {
        CUfunction function = calloc(1, sizeof *function);
        if (!function)
            return CUDA_ERROR_OUT_OF_MEMORY;
        function->object.kind = FRONT_FUNCTION;
        function->object.context = module->object.context;
        function->module = module;
        function->function = emu_module_function_at(module->module, i);
        emu_function_get(function->function, &function->attributes);
        int room =
            front_settings.arch->shared_per_block - (int)function->attributes.static_shared_bytes;
        function->max_dynamic_shared = room > 0 ? room : 0;
        function->carveout = -1;
        module->functions[i] = function;
        front_add(&function->object);
    }
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int numOptions,
                                    CUjit_option *options, void **optionValues)
{
    CUcontext context;
    FRONT_TRY(capture_enter_unsafe(&context));
    if (!module || !image)
        return CUDA_ERROR_INVALID_VALUE;
    *module = NULL;
    jit_options jit;
    FRONT_TRY(read_options(&jit, numOptions, options, optionValues));

    uint32_t magic = 0;
    size_t bytes = strnlen(image, sizeof magic);
    memcpy(&magic, image, bytes);
    if (magic == MAGIC_ELF || magic == MAGIC_FATBIN || magic == MAGIC_FATBIN_WRAPPER) {
        fill_log(&jit.error, "a binary image was found where this device runs PTX only");
        fill_log(&jit.info, "");
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    }

    char log[LOG_BYTES] = "";
    CUmodule loaded = calloc(1, sizeof *loaded);
    if (!loaded)
        return CUDA_ERROR_OUT_OF_MEMORY;
    loaded->object.kind = FRONT_MODULE;
    loaded->object.context = context;
    loaded->object.release = release_module;
    CUresult result =
        emu_module_load(context->machine, &loaded->module, image, strlen(image), log, sizeof log);
    if (result == CUDA_SUCCESS)
        result = make_functions(loaded);
    fill_log(&jit.error, result == CUDA_SUCCESS ? "" : log);
    fill_log(&jit.info, "");
    if (jit.wall_time)
        *jit.wall_time = NULL; /* 0.0f milliseconds: nothing is compiled */
    if (result != CUDA_SUCCESS) {
        release_module(&loaded->object);
        return result;
    }
    front_add(&loaded->object);
    *module = loaded;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleLoadData(CUmodule *module, const void *image)
{
    return cuModuleLoadDataEx(module, image, 0, NULL, NULL);
}

CUresult CUDAAPI cuModuleLoadFatBinary(CUmodule *module, const void *fatCubin)
{
    CUcontext context;
    FRONT_TRY(front_enter(&context));
    if (!module || !fatCubin)
        return CUDA_ERROR_INVALID_VALUE;
    *module = NULL;
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
}

static CUresult read_file(char **out, const char *path)
{
    *out = NULL;
    FILE *file = fopen(path, "rb");
    if (!file)
        return CUDA_ERROR_FILE_NOT_FOUND;
    CUresult result = CUDA_ERROR_FILE_NOT_FOUND;
    long size = -1;
    if (fseek(file, 0, SEEK_END) == 0)
        size = ftell(file);
    char *text = size >= 0 ? malloc((size_t)size + 1) : NULL;
    if (size >= 0 && !text)
        result = CUDA_ERROR_OUT_OF_MEMORY;
    if (text && fseek(file, 0, SEEK_SET) == 0 &&
        fread(text, 1, (size_t)size, file) == (size_t)size) {
        text[size] = '\0';
        *out = text;
        text = NULL;
        result = CUDA_SUCCESS;
    }
    free(text);
    fclose(file);
    return result;
}

CUresult CUDAAPI cuModuleLoad(CUmodule *module, const char *fname)
{
    CUcontext context;
    FRONT_TRY(front_enter(&context));
    if (!module || !fname)
        return CUDA_ERROR_INVALID_VALUE;
    *module = NULL;
    char *image;
    FRONT_TRY(read_file(&image, fname));
    CUresult result = cuModuleLoadDataEx(module, image, 0, NULL, NULL);
    free(image);
    return result;
}

CUresult CUDAAPI cuModuleUnload(CUmodule hmod)
{
    CUcontext context;
    FRONT_TRY(capture_enter_unsafe(&context));
    if (!front_remove(hmod, FRONT_MODULE))
        return CUDA_ERROR_INVALID_HANDLE;
    queue_wait_context(hmod->object.context);
    release_module(&hmod->object);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
    if (!mode)
        return CUDA_ERROR_INVALID_VALUE;
    *mode = CU_MODULE_EAGER_LOADING;
    return CUDA_SUCCESS;
}

/* ---- what is in a module -------------------------------------------------------------------- */

static CUresult enter_module(CUmodule module)
{
    CUcontext context;
    FRONT_TRY(front_current(&context));
    return front_is(module, FRONT_MODULE) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult CUDAAPI cuModuleGetFunction(CUfunction *hfunc, CUmodule hmod, const char *name)
{
    FRONT_TRY(enter_module(hmod));
    if (!hfunc || !name)
        return CUDA_ERROR_INVALID_VALUE;
    *hfunc = NULL;
    for (int i = 0; i < hmod->function_count; i++) {
        if (strcmp(hmod->functions[i]->attributes.name, name) == 0) {
            *hfunc = hmod->functions[i];
            return CUDA_SUCCESS;
        }
    }
    return CUDA_ERROR_NOT_FOUND;
}

CUresult CUDAAPI cuModuleGetFunctionCount(unsigned int *count, CUmodule mod)
{
    FRONT_TRY(enter_module(mod));
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    *count = (unsigned)mod->function_count;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleEnumerateFunctions(CUfunction *functions, unsigned int numFunctions,
                                            CUmodule mod)
{
    FRONT_TRY(enter_module(mod));
    if (!functions)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < numFunctions && i < (unsigned)mod->function_count; i++)
        functions[i] = mod->functions[i];
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleGetGlobal(CUdeviceptr *dptr, size_t *bytes, CUmodule hmod,
                                   const char *name)
{
    FRONT_TRY(enter_module(hmod));
    if (!name || (!dptr && !bytes))
        return CUDA_ERROR_INVALID_VALUE;
    CUdeviceptr address = 0;
    size_t size = 0;
    FRONT_TRY(emu_module_global(hmod->module, name, &address, &size));
    if (dptr)
        *dptr = address;
    if (bytes)
        *bytes = size;
    return CUDA_SUCCESS;
}
