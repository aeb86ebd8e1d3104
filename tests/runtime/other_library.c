/* other_library.c: a library that is no driver at all. */
__attribute__((visibility("default"))) int other_library_answer(void);

int other_library_answer(void)
{
    return 42;
}
