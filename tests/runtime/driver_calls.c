/* driver_calls.c: which driver calls the passes make, who may be inside, and launches that fail. */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "counting_driver.h"
#include "made_step.h"

/* The counting driver, which $MMLP_DRIVER names to the runtime too. */
static const counting_driver *open_driver(void)
{
    void *library = dlopen(getenv("MMLP_DRIVER"), RTLD_NOW | RTLD_LOCAL);
    cr_assert_not_null(library, "%s", dlerror());
    void *address = dlsym(library, "counting_driver_get");
    const counting_driver *(*get)(void);
    memcpy(&get, &address, sizeof get);
    return get();
}

Test(calls, passes_neither_allocate_nor_synchronise)
{
    const counting_driver *driver = open_driver();
    made_step *s = step_start_backward(true, 0);
    driver->reset();
    step_forward(s);
    step_dgrad(s);
    step_backward_dw(s);
    cr_expect_eq(driver->count("cuCtxPushCurrent"), 3);
    cr_expect_eq(driver->count("cuCtxPopCurrent"), 3);
    cr_expect_eq(driver->count("cuLaunchKernel"), 2 + 6 + 2);
    cr_expect_eq(driver->count("cuPointerGetAttribute"), 2 + 3);
    cr_expect_eq(driver->total(), 3 + 3 + 10 + 5);
    step_finish(s);
}

static void set_waits(const made_bundle *made, size_t kernel)
{
    json_t *kernels = json_object_get(made->manifest, "kernels");
    json_object_set_new(json_array_get(kernels, kernel), "waits_for_previous", json_true());
}

Test(calls, a_kernel_that_waits_may_begin_before_the_one_before_it_ends)
{
    enum { FC1, FC2, KERNELS = 3 };
    const counting_driver *driver = open_driver();
    double ms[KERNELS];
    made_bundle made = made_start();
    set_waits(&made, FC1); /* the first: nothing of the call is before it */
    set_waits(&made, FC2);
    made_step *s = step_start(made, 0);
    for (int timed = 0; timed < 2; timed++) {
        driver->reset();
        step_forward(s);
        cr_expect_eq(driver->count("cuLaunchKernelEx"), timed ? 0 : 1);
        cr_expect_eq(driver->count("cuLaunchKernel"), timed ? 2 : 1);
        cr_assert_eq(mmlp_mlp_time_kernels(s->mlp, ms, KERNELS), MMLP_OK, "%s", mmlp_last_error());
    }
    step_finish(s);
}

Test(calls, what_is_refused_launches_nothing)
{
    const counting_driver *driver = open_driver();
    made_step *s = step_start_backward(true, 0);
    driver->reset();
    cr_expect_eq(mmlp_mlp_dgrad(s->mlp, &s->dgrad, NULL), MMLP_ERROR_ORDER);
    cr_expect_eq(mmlp_mlp_backward_dw(s->mlp, NULL), MMLP_ERROR_RING_EMPTY);
    s->forward.hidden_states = NULL;
    cr_expect_eq(mmlp_mlp_forward(s->mlp, &s->forward, NULL), MMLP_ERROR_ARGUMENT);
    cr_expect_eq(driver->count("cuLaunchKernel"), 0);
    cr_expect_eq(driver->count("cuCtxPushCurrent"), driver->count("cuCtxPopCurrent"));
    step_finish(s);
}

/* ---- one thread at a time ------------------------------------------------------------------- */

enum { FUNCTIONS = 6 };
static const char *const functions[FUNCTIONS] = {"mmlp_mlp_forward",      "mmlp_mlp_dgrad",
                                                 "mmlp_mlp_backward_dw",  "mmlp_mlp_time_kernels",
                                                 "mmlp_mlp_init_weights", "mmlp_mlp_fill_normal"};

typedef struct intrusion {
    made_step *step;
    int times;
    mmlp_status statuses[FUNCTIONS];
    char lines[FUNCTIONS][256];
} intrusion;

static mmlp_status call_function(made_step *s, int function)
{
    mmlp_init_args init = MMLP_INIT_ARGS_INIT;
    switch (function) {
    case 0:
        return mmlp_mlp_forward(s->mlp, &s->forward, NULL);
    case 1:
        return mmlp_mlp_dgrad(s->mlp, &s->dgrad, NULL);
    case 2:
        return mmlp_mlp_backward_dw(s->mlp, NULL);
    case 3:
        return mmlp_mlp_time_kernels(s->mlp, NULL, 0);
    case 4:
        return mmlp_mlp_init_weights(s->mlp, &init, NULL);
    default:
        return mmlp_mlp_fill_normal(s->mlp, &s->tensors[X], 1, 1, NULL);
    }
}

static void *intrude(void *user)
{
    intrusion *in = user;
    for (int i = 0; i < FUNCTIONS; i++) {
        in->statuses[i] = call_function(in->step, i);
        snprintf(in->lines[i], sizeof in->lines[i], "%s", mmlp_last_error());
    }
    return NULL;
}

static void intrude_in_a_thread(void *user)
{
    pthread_t thread;
    ((intrusion *)user)->times++;
    pthread_create(&thread, NULL, intrude, user);
    pthread_join(thread, NULL);
}

Test(calls, a_second_thread_is_told_that_the_mlp_is_busy)
{
    const counting_driver *driver = open_driver();
    made_step *s = step_start_backward(true, 0);
    intrusion in = {.step = s};
    step_forward(s);
    for (int outer = 0; outer < 3; outer++) {
        in.times = 0;
        driver->set_hook(intrude_in_a_thread, &in);
        cr_expect_eq(call_function(s, outer), MMLP_OK, "%s", mmlp_last_error());
        driver->set_hook(NULL, NULL);
        cr_expect_gt(in.times, 0);
        for (int i = 0; i < FUNCTIONS; i++) {
            char line[256];
            snprintf(line, sizeof line,
                     "%s: another thread is inside %s with this mlp, which is used by one thread "
                     "at a time",
                     functions[i], functions[outer]);
            cr_expect_eq(in.statuses[i], MMLP_ERROR_BUSY);
            cr_expect_str_eq(in.lines[i], line);
        }
    }
    pthread_t thread; /* alone, the other thread may use it */
    pthread_create(&thread, NULL, intrude, &in);
    pthread_join(thread, NULL);
    cr_expect_eq(in.statuses[0], MMLP_OK);
    cr_expect_eq(in.statuses[1], MMLP_OK);
    cr_expect_eq(in.statuses[2], MMLP_OK);
    step_finish(s);
}

/* ---- launches that fail --------------------------------------------------------------------- */

Test(calls, a_dgrad_whose_launch_fails_does_not_wait)
{
    const counting_driver *driver = open_driver();
    made_step *s = step_start_backward(true, 0);
    step_forward(s);
    driver->fail_launch(5);
    step_expect_dgrad(s, MMLP_ERROR_DEVICE,
                      "kernel made_fc1_dgrad: CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES: too many "
                      "resources requested for launch");
    cr_expect_eq(mmlp_mlp_backward_dw(s->mlp, NULL), MMLP_ERROR_RING_EMPTY);
    step_dgrad(s);
    driver->fail_launch(1);
    cr_expect_eq(mmlp_mlp_backward_dw(s->mlp, NULL), MMLP_ERROR_DEVICE);
    cr_expect_eq(mmlp_mlp_backward_dw(s->mlp, NULL), MMLP_ERROR_RING_EMPTY);
    step_dgrad(s);
    step_backward_dw(s);
    step_finish(s);
}

Test(calls, a_forward_whose_launch_fails_has_not_saved)
{
    const counting_driver *driver = open_driver();
    made_step *s = step_start_backward(false, 0);
    step_forward(s);
    driver->fail_launch(1);
    cr_expect_eq(mmlp_mlp_forward(s->mlp, &s->forward, NULL), MMLP_ERROR_DEVICE);
    cr_expect_eq(mmlp_mlp_dgrad(s->mlp, &s->dgrad, NULL), MMLP_ERROR_ORDER);
    step_forward(s);
    step_dgrad(s);
    step_finish(s);
}
