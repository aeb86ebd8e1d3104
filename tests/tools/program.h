/* program.h: runs a program of the project and keeps what it printed. */
#ifndef MMLP_TESTS_PROGRAM_H
#define MMLP_TESTS_PROGRAM_H

typedef struct program_result {
    int exit_code; /* 128 + n after signal n */
    char *output;  /* stdout and stderr together (malloc) */
} program_result;

/* arguments: NULL-terminated, the program's path first. */
program_result program_run(const char *const arguments[]);
void program_result_free(program_result *result);
/* The run has ended with exit_code, and its output has the line. */
void program_expect(const program_result *result, int exit_code, const char *line);

#endif
