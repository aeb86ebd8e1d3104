/* access_kernel.c: see access_kernel.h. */
#include "access_kernel.h"

#include <criterion/criterion.h>

#include "device.h"

const access_type access_types[] = {
    {"b8", 1, 'b'},  {"b16", 2, 'b'}, {"b32", 4, 'b'}, {"b64", 8, 'b'}, {"b128", 16, 'b'},
    {"u8", 1, 'u'},  {"u16", 2, 'u'}, {"u32", 4, 'u'}, {"u64", 8, 'u'}, {"s8", 1, 's'},
    {"s16", 2, 's'}, {"s32", 4, 's'}, {"s64", 8, 's'}, {"f32", 4, 'f'}, {"f64", 8, 'f'},
};
const int access_type_count = sizeof access_types / sizeof access_types[0];

static const char *register_prefix(const access_type *type)
{
    return type->bytes == 16 ? "q" : type->class != 'f' ? "rd" : type->bytes == 4 ? "f" : "g";
}

void access_registers(ptx_text *t, const access_type *type, int count)
{
    for (int i = 0; i < count; ++i)
        emit(t, "%s%%%s%d", i ? ", " : count > 1 ? "{" : "", register_prefix(type), 4 + i);
    emit(t, "%s", count > 1 ? "}" : "");
}

void access_store_register(ptx_text *t, const access_type *type, int index, int offset)
{
    if (type->bytes == 16)
        emit(t,
             "mov.b128 {%%rd30, %%rd31}, %%q%d; st.global.v2.b64 [%%out+%d], {%%rd30, %%rd31};\n",
             4 + index, offset);
    else if (type->class == 'f' && type->bytes == 4)
        emit(t,
             "mov.b32 %%r30, %%f%d; cvt.u64.u32 %%rd30, %%r30; st.global.b64 [%%out+%d], %%rd30;\n",
             4 + index, offset);
    else
        emit(t, "st.global.b64 [%%out+%d], %%%s%d;\n", offset, register_prefix(type), 4 + index);
}

void access_load_registers(ptx_text *t, const access_type *type, int count)
{
    for (int i = 0; i < count; ++i) {
        if (type->bytes == 16)
            emit(t,
                 "ld.global.v2.b64 {%%rd30, %%rd31}, [%%rd0+%d]; mov.b128 %%q%d, {%%rd30, "
                 "%%rd31};\n",
                 16 * i, 4 + i);
        else
            emit(t, "ld.global.%s %%%s%d, [%%rd0+%d];\n",
                 type->class != 'f' ? "b64"
                 : type->bytes == 4 ? "f32"
                                    : "f64",
                 register_prefix(type), 4 + i, 8 * i);
    }
}

int access_fits(const access_place *place, const access_type *type, int count)
{
    int most = place->is_wide && (type->bytes == 4 || type->bytes == 8) ? 32 : 16;
    return type->bytes * count <= most;
}

static void write_module(ptx_text *t, const ptx_text *body, const uint8_t *in, size_t in_bytes,
                         size_t out_bytes)
{
    emit(t,
         ".version 9.0\n.target sm_100\n.address_size 64\n.const .align 64 .b8 constant[64] = {");
    for (int i = 0; i < ACCESS_BYTES; ++i)
        emit(t, "%s%d", i ? "," : "", in[i]);
    emit(t,
         "};\n.func (.param .align 64 .b8 result[64]) copy(.param .align 64 .b8 argument[64])\n{\n"
         ".reg .b64 %%w;\n");
    for (int i = 0; i < ACCESS_BYTES; i += 8)
        emit(t, "ld.param.b64 %%w, [argument+%d]; st.param.b64 [result+%d], %%w;\n", i, i);
    emit(t,
         "ret;\n}\n.visible .entry kernel(.param .u64 pin, .param .u64 pout, .param .align 64 .b8 "
         "parameter[64])\n{\n"
         ".shared .align 64 .b8 shared[2048]; .local .align 64 .b8 own[64];\n"
         ".reg .b64 %%rd<32>, %%out; .reg .b32 %%r<32>; .reg .f32 %%f<32>; .reg .f64 %%g<32>;\n"
         ".reg .b128 %%q<16>; .reg .b16 %%h<32>; .reg .pred %%p<4>;\n"
         "ld.param.u64 %%rd0, [pin]; ld.param.u64 %%out, [pout]; mov.u32 %%r0, %%tid.x;\n"
         "mad.wide.u32 %%rd0, %%r0, %zu, %%rd0; mad.wide.u32 %%out, %%r0, %zu, %%out;\n"
         "mov.u64 %%rd2, shared; mad.wide.u32 %%rd2, %%r0, 64, %%rd2;\n"
         "BODY:\n%s\nBODY_END:\nret;\n}\n",
         in_bytes, out_bytes, body->at);
}

void access_run(const char *what, const ptx_text *body, const uint8_t *in, size_t in_bytes,
                uint8_t *out, size_t out_bytes)
{
    ptx_text module_text = {0};
    write_module(&module_text, body, in, in_bytes, out_bytes);
    device_open();
    CUmodule module = device_load(module_text.at, what);
    CUdeviceptr device_in = device_upload(in, ACCESS_LANES * in_bytes);
    CUdeviceptr device_out = device_alloc(ACCESS_LANES * out_bytes);
    cr_assert_eq(cuMemsetD8(device_out, 0, ACCESS_LANES * out_bytes), CUDA_SUCCESS);
    void *arguments[] = {&device_in, &device_out, (void *)(uintptr_t)in};
    device_run(module, "kernel", 1, ACCESS_LANES, 0, arguments, what);
    device_download(out, device_out, ACCESS_LANES * out_bytes);
    cuMemFree(device_in);
    cuMemFree(device_out);
    cuModuleUnload(module);
    device_close();
}
