/* program.c: runs a program of the project and keeps what it printed. */
#include "program.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

program_result program_run(const char *const arguments[])
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        execv(arguments[0], (char *const *)arguments);
        _exit(127);
    }
    close(ends[1]);

    program_result result = {0, NULL};
    size_t length = 0;
    for (;;) {
        char block[4096];
        ssize_t count = read(ends[0], block, sizeof block);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            break;
        result.output = realloc(result.output, length + (size_t)count + 1);
        cr_assert_not_null(result.output);
        memcpy(result.output + length, block, (size_t)count);
        length += (size_t)count;
        result.output[length] = '\0';
    }
    close(ends[0]);
    if (!result.output)
        result.output = strdup("");
    int state = 0;
    waitpid(child, &state, 0);
    result.exit_code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
    return result;
}

void program_result_free(program_result *result)
{
    free(result->output);
    result->output = NULL;
}

void program_expect(const program_result *result, int exit_code, const char *line)
{
    cr_expect(result->exit_code == exit_code, "exit code %d, expected %d; it printed: %s",
              result->exit_code, exit_code, result->output);
    cr_expect(strstr(result->output, line) != NULL, "expected \"%s\"; it printed: %s", line,
              result->output);
}
