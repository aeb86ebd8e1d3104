/* fixture.h: a context on the emulated device, and a module with kernels that tests launch. */
#ifndef DRIVER_FIXTURE_H
#define DRIVER_FIXTURE_H

#include <criterion/criterion.h>
#include <cuda.h>

/* Fails the test with the call's text and the result's name when it is another than wanted. */
#define EXPECT_RESULT(wanted, call) expect_result((wanted), (call), #call, __LINE__)
#define EXPECT_OK(call)             EXPECT_RESULT(CUDA_SUCCESS, call)
void expect_result(CUresult wanted, CUresult found, const char *call, int line);

/* add(out, in, value, count): out[i] = in[i] + value; store_at(address): writes one word;
 * spend(pointer): 40000 bytes of static shared memory; limited(): .maxntid 64; a variable `table`.
 */
extern const char fixture_ptx[];

/* cuInit and a created context on device 0. */
CUcontext open_device(void);
CUmodule load_fixture(void);
CUfunction get_kernel(CUmodule module, const char *name);
/* store_at with one thread. */
CUresult launch_store(CUfunction store_at, CUdeviceptr address, CUstream stream);

#endif
