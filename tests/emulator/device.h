/* device.h: the few driver calls that emulator tests need; any failure fails the test with its
 * context. */
#ifndef MMLP_TESTS_DEVICE_H
#define MMLP_TESTS_DEVICE_H

#include <cuda.h>
#include <stddef.h>

void device_open(void);
void device_close(void);
CUdeviceptr device_alloc(size_t bytes);
CUdeviceptr device_upload(const void *bytes, size_t count);
void device_download(void *to, CUdeviceptr from, size_t bytes);
/* `what` is named when loading fails, with the driver's log. PTX for sm_100 is loaded as PTX for
 * the device that there is; what an older one does not know skips the test. */
CUmodule device_load(const char *ptx, const char *what);
/* The same, but NULL in place of skipping, with a line on stderr. */
CUmodule device_load_known(const char *ptx, const char *what);
/* Launches and waits. */
void device_run(CUmodule module, const char *entry, unsigned blocks, unsigned threads,
                unsigned shared_bytes, void **arguments, const char *what);
/* Launches, waits, and returns what the synchronising call said. */
CUresult device_try(CUmodule module, const char *entry, unsigned blocks, unsigned threads,
                    unsigned shared_bytes, void **arguments);
/* The same, in a programmatic dependent launch. */
CUresult device_try_dependent(CUmodule module, const char *entry, unsigned blocks, unsigned threads,
                              unsigned shared_bytes, void **arguments);
/* The module that was loaded last counts as tested from now on (coverage.c), where
 * MMLP_TEST_COVERAGE names a folder. device_run and device_try say it of launches without a fault.
 */
void device_has_run(void);
/* Whether the driver is the emulator. Where it is a GPU's, tests expect what is documented. */
int device_is_emulated(void);
/* The emulator's text about the last fault, "" when there was none. */
const char *device_last_report(void);

#endif
