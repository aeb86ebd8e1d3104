/* ptxrun_capture.c: see ptxrun_capture.h; an unnamed temporary file takes the descriptor's place.
 */
#include "ptxrun_capture.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void capture_begin(capture *c, FILE *stream)
{
    fflush(stream);
    *c = (capture){.stream = stream, .number = fileno(stream), .saved = -1, .file = tmpfile()};
    if (!c->file)
        return;
    c->saved = dup(c->number);
    if (c->saved >= 0)
        dup2(fileno(c->file), c->number);
}

char *capture_end(capture *c)
{
    char *text = NULL;
    size_t capacity = 0;
    fflush(c->stream);
    if (c->saved >= 0) {
        dup2(c->saved, c->number);
        close(c->saved);
    }
    if (c->file) {
        rewind(c->file);
        if (getdelim(&text, &capacity, '\0', c->file) <= 0) {
            free(text);
            text = NULL;
        }
        fclose(c->file);
    }
    return text ? text : strdup("");
}
