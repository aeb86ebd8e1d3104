/*
 * made_bundle.h: small bundles written by hand, for tests of the runtime alone: a plain MLP with
 * one thread per output, fp32, and manifests that a test changes before they are written.
 */
#ifndef MADE_BUNDLE_H
#define MADE_BUNDLE_H

#include <jansson.h>
#include <megamlp/megamlp.h>
#include <stdbool.h>

enum { MADE_HIDDEN = 24, MADE_FFN = 40 };

/* What a bundle is made of. Free with made_free. */
typedef struct made_bundle {
    char *folder;     /* NAME.mlp inside `root` */
    char *root;       /* a new folder below the temporary folder */
    json_t *manifest; /* without hashes */
} made_bundle;

/* A gated MLP, silu(gate) * up, with biases and a per-token scale; nothing is written yet. */
made_bundle made_start(void);
/* Adds the kernels of dgrad and backward_dw. */
void made_add_backward(made_bundle *made, bool delayed);
/* With a backward pass: activation_output is saved, and backward_dw reads it there. */
void made_save_activation(made_bundle *made);
/* Writes sources and manifest with their hashes. */
void made_write(const made_bundle *made);
/* Writes manifest.json as this text, with the digits of its hash put in where it has a "hash". */
void made_write_manifest_text(const made_bundle *made, const char *text);
/* Replaces a source; call made_write afterwards. The text is copied. */
void made_set_source(made_bundle *made, const char *file, const char *text);
void made_free(made_bundle *made); /* removes the folder too */

/* made_start, made_write, mmlp_bundle_open; the test fails when that fails. */
mmlp_bundle *made_open(made_bundle *made);

/* Writes a whole file; the test fails when that fails. */
void write_file(const char *folder, const char *name, const void *bytes, size_t count);
/* Its bytes, with a NUL behind (malloc). */
char *read_whole_file(const char *folder, const char *name, size_t *count);

/* A context on the emulator with this cache, whose log lines are counted and kept. */
typedef struct log_lines {
    char *text;
    size_t length;
    int count;
} log_lines;
mmlp_context *open_context(log_lines *lines, const char *cache_dir, const char *readonly_dir);
void free_lines(log_lines *lines);

#endif
