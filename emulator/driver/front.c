/*
 * front.c: the state behind the Driver API: live handles, live contexts, each thread's stack of
 * current contexts, and faults. Every cu_*.c file uses it; of them it calls cu_queue.c alone.
 */
#include "driver/cu_emulator.h"
#include "driver/queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

front_options front_settings;
pthread_mutex_t front_device_lock = PTHREAD_MUTEX_INITIALIZER;
front_device *front_devices;

static atomic_ullong last_id;

unsigned long long front_new_id(void)
{
    return atomic_fetch_add(&last_id, 1) + 1;
}

/* ---- handles -------------------------------------------------------------------------------- */

#define BUCKETS 1024

static pthread_mutex_t handle_lock = PTHREAD_MUTEX_INITIALIZER;
static front_object *buckets[BUCKETS];
static CUcontext contexts; /* every live context */

static front_object **bucket_of(const void *handle)
{
    uint64_t bits = (uint64_t)(uintptr_t)handle;
    return &buckets[(bits * 0x9e3779b97f4a7c15u) >> 54];
}

/* The link that leads to the handle, or NULL. Needs handle_lock. */
static front_object **find_link(const void *handle, front_kind kind)
{
    for (front_object **link = bucket_of(handle); *link; link = &(*link)->next) {
        if ((const void *)*link == handle)
            return (*link)->kind == kind ? link : NULL;
    }
    return NULL;
}

void front_add(front_object *object)
{
    pthread_mutex_lock(&handle_lock);
    front_object **bucket = bucket_of(object);
    object->next = *bucket;
    *bucket = object;
    pthread_mutex_unlock(&handle_lock);
}

bool front_is(const void *handle, front_kind kind)
{
    pthread_mutex_lock(&handle_lock);
    bool found = find_link(handle, kind) != NULL;
    pthread_mutex_unlock(&handle_lock);
    return found;
}

bool front_remove(void *handle, front_kind kind)
{
    pthread_mutex_lock(&handle_lock);
    front_object **link = find_link(handle, kind);
    if (link)
        *link = (*link)->next;
    pthread_mutex_unlock(&handle_lock);
    return link != NULL;
}

/* Whether another object releases this one: a module its functions, a graph its nodes. */
static bool is_part(const front_object *object)
{
    return object->kind == FRONT_FUNCTION || object->kind == FRONT_GRAPH_NODE;
}

/* Some live object of the context, never the context itself and never a part, taken out of the
 * table; or NULL. */
static front_object *take_one(CUcontext context)
{
    pthread_mutex_lock(&handle_lock);
    front_object *taken = NULL;
    for (int i = 0; i < BUCKETS && !taken; i++) {
        for (front_object **link = &buckets[i]; *link; link = &(*link)->next) {
            front_object *object = *link;
            if (object->context == context && object->kind != FRONT_CONTEXT && !is_part(object)) {
                *link = object->next;
                taken = object;
                break;
            }
        }
    }
    pthread_mutex_unlock(&handle_lock);
    return taken;
}

void front_release_all(CUcontext context)
{
    for (front_object *object; (object = take_one(context)) != NULL;)
        object->release(object);
}

front_host_memory *front_find_host_memory(const void *address)
{
    front_host_memory *found = NULL;
    pthread_mutex_lock(&handle_lock);
    for (int i = 0; i < BUCKETS && !found; i++) {
        for (front_object *object = buckets[i]; object; object = object->next) {
            front_host_memory *memory = (front_host_memory *)object;
            if (object->kind == FRONT_HOST_MEMORY &&
                (uintptr_t)address - (uintptr_t)memory->base < memory->bytes)
                found = memory;
        }
    }
    pthread_mutex_unlock(&handle_lock);
    return found;
}

/* ---- devices and contexts ------------------------------------------------------------------- */

atomic_bool front_forked;

bool front_initialized(void)
{
    if (front_forked)
        return false;
    pthread_mutex_lock(&front_device_lock);
    bool initialized = front_devices != NULL;
    pthread_mutex_unlock(&front_device_lock);
    return initialized;
}

CUresult front_check_device(CUdevice device)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (device < 0 || device >= front_settings.device_count)
        return CUDA_ERROR_INVALID_DEVICE;
    return CUDA_SUCCESS;
}

CUresult front_context_create(CUcontext *out, unsigned flags, CUdevice device)
{
    CUcontext context = calloc(1, sizeof *context);
    if (!context)
        return CUDA_ERROR_OUT_OF_MEMORY;
    emu_config config = {.arch = front_settings.arch,
                         .schedule = front_settings.schedule,
                         .threads = front_settings.threads,
                         .isa = front_settings.isa,
                         .check_races = front_settings.check_races,
                         .numerics = front_settings.numerics};
    CUresult result = emu_machine_create(&context->machine, &config);
    if (result != CUDA_SUCCESS) {
        free(context);
        return result;
    }
    context->object.kind = FRONT_CONTEXT;
    context->object.context = context;
    context->device = device;
    context->flags = flags;
    context->id = front_new_id();
    context->limits[CU_LIMIT_STACK_SIZE] = 1024;
    context->limits[CU_LIMIT_PRINTF_FIFO_SIZE] = 1 << 20;
    context->limits[CU_LIMIT_MALLOC_HEAP_SIZE] = 8 << 20;
    context->limits[CU_LIMIT_MAX_L2_FETCH_GRANULARITY] = 64;
    trace_name_track(context->id, device, "default stream");
    pthread_mutex_init(&context->lock, NULL);
    front_add(&context->object);
    pthread_mutex_lock(&handle_lock);
    context->next = contexts;
    contexts = context;
    pthread_mutex_unlock(&handle_lock);
    *out = context;
    return CUDA_SUCCESS;
}

void front_context_destroy(CUcontext context)
{
    queue_wait_context(context);
    front_release_all(context);
    front_remove(context, FRONT_CONTEXT);
    pthread_mutex_lock(&handle_lock);
    CUcontext *link = &contexts;
    while (*link != context)
        link = &(*link)->next;
    *link = context->next;
    pthread_mutex_unlock(&handle_lock);
    emu_machine_destroy(context->machine);
    pthread_mutex_destroy(&context->lock);
    free(context);
}

CUcontext front_find_memory(CUdeviceptr address)
{
    CUcontext top = front_top();
    CUcontext found = NULL;
    pthread_mutex_lock(&handle_lock);
    for (CUcontext context = contexts; context; context = context->next) {
        if ((!found || context == top) &&
            emu_memory_range(context->machine, address, NULL, NULL) == CUDA_SUCCESS)
            found = context;
    }
    pthread_mutex_unlock(&handle_lock);
    return found;
}

/* ---- the thread's stack --------------------------------------------------------------------- */

typedef struct context_stack {
    size_t depth, capacity;
    CUcontext items[];
} context_stack;

static pthread_key_t stack_key;
static pthread_once_t stack_once = PTHREAD_ONCE_INIT;

static void make_stack_key(void)
{
    if (pthread_key_create(&stack_key, free) != 0)
        abort(); /* only when the process has used up its keys */
}

static context_stack *thread_stack(void)
{
    pthread_once(&stack_once, make_stack_key);
    return pthread_getspecific(stack_key);
}

CUcontext front_top(void)
{
    context_stack *stack = thread_stack();
    return stack && stack->depth ? stack->items[stack->depth - 1] : NULL;
}

CUresult front_push(CUcontext context)
{
    context_stack *stack = thread_stack();
    if (!stack || stack->depth == stack->capacity) {
        size_t capacity = stack ? 2 * stack->capacity : 8;
        context_stack *grown = realloc(stack, sizeof *grown + capacity * sizeof(CUcontext));
        if (!grown)
            return CUDA_ERROR_OUT_OF_MEMORY;
        if (!stack)
            grown->depth = 0;
        grown->capacity = capacity;
        stack = grown;
        pthread_setspecific(stack_key, stack);
    }
    stack->items[stack->depth++] = context;
    return CUDA_SUCCESS;
}

bool front_pop(CUcontext *out)
{
    context_stack *stack = thread_stack();
    if (!stack || stack->depth == 0)
        return false;
    *out = stack->items[--stack->depth];
    return true;
}

CUresult front_set_top(CUcontext context)
{
    context_stack *stack = thread_stack();
    if (stack && stack->depth) {
        stack->items[stack->depth - 1] = context;
        return CUDA_SUCCESS;
    }
    return context ? front_push(context) : CUDA_SUCCESS;
}

/* ---- entering a call ------------------------------------------------------------------------ */

CUresult front_current(CUcontext *out)
{
    *out = NULL;
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    CUcontext context = front_top();
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!front_is(context, FRONT_CONTEXT))
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    *out = context;
    return CUDA_SUCCESS;
}

CUresult front_check_fault(CUcontext context)
{
    pthread_mutex_lock(&context->lock);
    CUresult fault = context->fault;
    if (fault != CUDA_SUCCESS)
        context->fault_seen = true;
    pthread_mutex_unlock(&context->lock);
    return fault;
}

CUresult front_enter(CUcontext *out)
{
    FRONT_TRY(front_current(out));
    return front_check_fault(*out);
}

CUresult front_check_enqueue(CUcontext context, bool *skip)
{
    pthread_mutex_lock(&context->lock);
    CUresult result = context->fault_seen ? context->fault : CUDA_SUCCESS;
    *skip = context->fault != CUDA_SUCCESS;
    pthread_mutex_unlock(&context->lock);
    return result;
}

CUresult front_stream_context(CUcontext *out, CUstream stream)
{
    FRONT_TRY(front_current(out));
    if (stream == NULL || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD)
        return CUDA_SUCCESS;
    if (!front_is(stream, FRONT_STREAM))
        return CUDA_ERROR_INVALID_HANDLE;
    *out = stream->object.context;
    return CUDA_SUCCESS;
}

/* ---- faults --------------------------------------------------------------------------------- */

static pthread_mutex_t report_lock = PTHREAD_MUTEX_INITIALIZER;
static char *last_report;
static pthread_key_t report_key;
static pthread_once_t report_once = PTHREAD_ONCE_INIT;

static void make_report_key(void)
{
    if (pthread_key_create(&report_key, free) != 0)
        abort(); /* only when the process has used up its keys */
}

void front_record_fault(CUcontext context, CUresult fault, const char *report)
{
    pthread_mutex_lock(&context->lock);
    bool first = context->fault == CUDA_SUCCESS;
    if (first)
        context->fault = fault;
    pthread_mutex_unlock(&context->lock);
    if (!first)
        return;
    fprintf(stderr, "%s\n", report);
    char *copy = strdup(report);
    pthread_mutex_lock(&report_lock);
    free(last_report);
    last_report = copy;
    pthread_mutex_unlock(&report_lock);
}

const char *cuEmulatorLastReport(void)
{
    pthread_once(&report_once, make_report_key);
    pthread_mutex_lock(&report_lock);
    char *copy = last_report ? strdup(last_report) : NULL;
    pthread_mutex_unlock(&report_lock);
    free(pthread_getspecific(report_key));
    pthread_setspecific(report_key, copy);
    return copy ? copy : "";
}
