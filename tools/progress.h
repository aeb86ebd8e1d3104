/* progress.h: a line on stderr about whatever takes longer than two seconds. */
#ifndef MMLP_TOOLS_PROGRESS_H
#define MMLP_TOOLS_PROGRESS_H

/* What the program does from now on. After two seconds it is printed, once: "PROGRAM: WHAT ...".
 * The text is copied. One activity at a time. */
void progress_begin(const char *what);
void progress_end(void);

#endif
