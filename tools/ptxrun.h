/*
 * ptxrun.h: what a manifest says (docs/ptxrun.md), as the parts of ptxrun hand it on. The strings
 * belong to the JSON document, which lives as long as the manifest.
 */
#ifndef MMLP_TOOLS_PTXRUN_H
#define MMLP_TOOLS_PTXRUN_H

#include <cuda.h>
#include <jansson.h>

#include "ptxrun_json.h"
#include "ptxrun_number.h"

enum {
    PTXRUN_MOST_BUFFERS = 64,
    PTXRUN_MOST_PARAMETERS = 256,
    PTXRUN_PARAMETER_BYTES = 32764, /* of all parameters of a kernel */
    PTXRUN_MOST_SIZES = 3           /* of an oracle */
};

/* ---- buffers (ptxrun_fill.c) ---------------------------------------------------------------- */

typedef struct fill {
    int generator; /* an index of the table in ptxrun_fill.c */
    uint64_t seed;
    number first, second; /* what the generator's two values are is its own affair */
    unsigned char *bytes; /* of hex and file (owned) */
    size_t byte_count;
} fill;

typedef struct buffer {
    const char *name;
    number_type type;
    size_t count, bytes;
    fill fill;
} buffer;

/* `folder` is where the paths of a manifest start. */
int fill_read(fill *out, const json_path *at, const json_t *json, const buffer *of,
              const char *folder);
void fill_free(fill *f);
/* Whether there is anything to write: else the memory stays uninitialised. */
bool fill_is_made(const fill *f);
/* Writes the buffer's `bytes`. */
void fill_make(unsigned char *bytes, const buffer *of);

/* ---- parameters (ptxrun_parameters.c) ------------------------------------------------------- */

/* The arguments of cuTensorMapEncodeTiled. */
typedef struct tensor_map {
    CUtensorMapDataType type;
    cuuint32_t rank, box[5], element_strides[5];
    cuuint64_t dimensions[5], strides[4];
    CUtensorMapInterleave interleave;
    CUtensorMapSwizzle swizzle;
    CUtensorMapL2promotion l2_promotion;
    CUtensorMapFloatOOBfill oob_fill;
} tensor_map;

/* A place in a parameter for what only a device knows: an address, or a tensor map. */
typedef struct parameter_slot {
    size_t at;
    int buffer;
    uint64_t offset; /* bytes, from the buffer's start */
    tensor_map *map; /* NULL: the address itself (owned) */
} parameter_slot;

typedef struct parameter {
    unsigned char *bytes;
    size_t count, align;
    parameter_slot *slots;
    size_t slot_count;
} parameter;

int parameter_read(parameter *out, const json_path *at, const json_t *json, const buffer *buffers,
                   size_t buffer_count);
void parameter_free(parameter *p);

/* ---- what is expected (ptxrun_oracle.c) ----------------------------------------------------- */

typedef enum tolerance_kind { TOLERANCE_EXACT, TOLERANCE_ULP, TOLERANCE_RELATIVE } tolerance_kind;

typedef struct expected_buffer {
    int oracle;     /* an index of the table in ptxrun_oracle.c */
    int buffers[3]; /* the first one is what the kernel wrote */
    size_t sizes[PTXRUN_MOST_SIZES];
    number alpha;
    unsigned char *literal; /* of equals and file: what the buffer must hold (owned) */
    tolerance_kind tolerance;
    double limit;
} expected_buffer;

int expected_buffer_read(expected_buffer *out, const json_path *at, const json_t *json,
                         const buffer *buffers, size_t buffer_count, const char *folder);
void expected_buffer_free(expected_buffer *e);

/*
 * Compares what the kernel wrote (`got`) with what the oracle makes of the buffers as they were
 * before (`before`, by the index of a buffer). *report is NULL if all is within the tolerance, else
 * lines about the first elements that differ (malloc). Returns 0, or the exit code after printing
 * why it could not compare.
 */
int expected_buffer_compare(char **report, const expected_buffer *e, const buffer *buffers,
                            unsigned char *const *before, const unsigned char *got);

/* ---- the manifest (ptxrun_manifest.c) ------------------------------------------------------- */

typedef struct run {
    const char *entry;
    unsigned grid[3], block[3], cluster[3]; /* cluster[0] 0: none */
    unsigned shared_bytes;
    parameter *parameters;
    size_t parameter_count;
    const char *result;                 /* "CUDA_SUCCESS" and its like */
    const json_t *diagnostic, *printed; /* arrays of strings, or NULL */
    expected_buffer *expected;
    size_t expected_count;
} run;

typedef struct manifest {
    json_t *document;
    json_path root;       /* its key is the file's name */
    char *folder;         /* where its paths start: "" or with a final slash */
    const char *device;   /* NULL: any */
    char *ptx, *cuda;     /* the text of one of them (owned) */
    const char *source;   /* its name */
    const char *target;   /* of cuda: NULL: the device's */
    const char **options; /* of cuda, NULL-terminated */
    buffer *buffers;
    size_t buffer_count;
    run *runs;
    size_t run_count;
} manifest;

/* All of it is read, and checked as far as that needs no device. Returns 0 or the exit code; free
 * in any case. */
int ptxrun_read(manifest *out, const char *path);
void ptxrun_free(manifest *m);

/* The index of a buffer of that name. */
int buffer_find(int *out, const json_path *at, const json_t *name, const buffer *buffers,
                size_t count);
/* The bytes of a file, a NUL behind them (malloc); `name` starts at the manifest's folder. */
int ptxrun_read_file(char **out, size_t *bytes, const json_path *at, const json_t *name,
                     const char *folder);

/* ---- the device (ptxrun_device.c) ----------------------------------------------------------- */

typedef struct device device;

/* What came of a run. */
typedef struct outcome {
    CUresult result;  /* of the first call that failed */
    const char *call; /* its name */
    char *diagnostic; /* the emulator's report, or the log of what compiles PTX; NULL: none */
    char *printed;    /* what the kernel wrote to stdout */
    char *complaints; /* what the driver wrote to stderr */
} outcome;

/* `which`: --device. Returns 0, or the exit code after printing why. */
int device_open(device **out, const char *which, const manifest *m);
void device_close(device *d); /* NULL allowed */
/* Whether a fault comes with a report. */
bool device_has_reports(const device *d);
/* Whether a fault has made the device useless for this process, as it does on a GPU. */
bool device_is_lost(const device *d);
const char *device_result_name(const device *d, CUresult result);

/*
 * Runs one entry in a fresh context: allocates and fills the buffers, launches, waits. `bytes`, by
 * the index of a buffer, are uploaded where they are not NULL; after success `got` has what
 * the buffers of `expected` hold. Returns 0 if there is an outcome, else the exit code after
 * printing why.
 */
int device_run(outcome *out, unsigned char **got, device *d, const manifest *m, size_t run_index,
               unsigned char *const *bytes);
void outcome_free(outcome *o);

#endif
