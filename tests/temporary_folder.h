/* temporary_folder.h: folders for what a test writes. The test fails when one cannot be made. */
#ifndef TEMPORARY_FOLDER_H
#define TEMPORARY_FOLDER_H

/* A new empty folder below $TMPDIR, or where the system keeps such (malloc). */
char *temporary_folder_make(void);
/* Removes the folder with all that is in it, and frees its name. */
void temporary_folder_remove(char *folder);

#endif
