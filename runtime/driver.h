/*
 * driver.h: libcuda behind one table of function pointers (driver.def), opened with dlopen.
 */
#ifndef MMLP_DRIVER_H
#define MMLP_DRIVER_H

#include <cuda.h>
#include <stdbool.h>

#include "base/error.h"

typedef struct driver {
    char *path;                       /* what dlopen was given */
    bool is_emulator;                 /* the library is this project's emulator */
    int version;                      /* 13000 is CUDA 13.0 */
    const char *(*last_report)(void); /* the emulator's text about the last fault, else NULL */
#define DRIVER_FUNCTION(name, symbol) __typeof__(name) *name;
#include "driver.def"
#undef DRIVER_FUNCTION
} driver;

/* What a driver must be: NVRTC 13.0's PTX and cubins need a driver of the same major version. */
enum { DRIVER_VERSION_NEEDED = 13000 };

/*
 * name: "cuda" (libcuda.so.1 of the loader), "emulator", or a path; never another driver than the
 * one named. The library is initialised with cuInit, and is not unloaded again by driver_close.
 * ERROR_DRIVER: not found, a function missing, too old, or no device.
 */
mmlp_status driver_open(driver *out, const char *name);
void driver_close(driver *d); /* of a zeroed driver: nothing */

/*
 * The status of a driver call: OK, or a failure whose line says "WHAT: CUDA_ERROR_...: text", with
 * the emulator's whole report when a kernel faulted. WHAT is a printf format.
 */
mmlp_status driver_check(const driver *d, CUresult result, const char *what, ...)
    __attribute__((format(printf, 3, 4)));

#endif
