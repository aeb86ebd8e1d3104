/* open_counting_driver.c: see counting_driver.h. */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "counting_driver.h"

const counting_driver *open_counting_driver(void)
{
    void *library = dlopen(getenv("MMLP_DRIVER"), RTLD_NOW | RTLD_LOCAL);
    cr_assert_not_null(library, "%s", dlerror());
    void *address = dlsym(library, "counting_driver_get");
    const counting_driver *(*get)(void);
    memcpy(&get, &address, sizeof get);
    return get();
}
