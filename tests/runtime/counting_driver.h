/*
 * counting_driver.h: a libcuda that hands every call to the one that $MMLP_TEST_LIBCUDA names, and
 * counts them. A test opens it by its path, as the runtime does.
 */
#ifndef COUNTING_DRIVER_H
#define COUNTING_DRIVER_H

typedef struct counting_driver {
    void (*reset)(void);
    int (*count)(const char *name); /* "cuLaunchKernel"; since the last reset */
    int (*total)(void);             /* of all functions */
    /* Called inside every cuLaunchKernel, before the kernel; NULL: nothing is. */
    void (*set_hook)(void (*hook)(void *user), void *user);
    /* The launch after `launches` more fails; below zero: none does. */
    void (*fail_launch)(int launches);
} counting_driver;

/* The library's one symbol of its own. */
const counting_driver *counting_driver_get(void);

#endif
