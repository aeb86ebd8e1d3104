/* saved.h: a checkpoint in a folder of its own, for the tests of a program. */
#ifndef CHECKPOINT_SAVED_H
#define CHECKPOINT_SAVED_H

extern char *folder, path[4096]; /* FOLDER/c.safetensors; it does not exist yet */
extern char temporary[4200];     /* where a save writes it */

void saved_begin(void);
void saved_end(void); /* removes the folder */

#endif
