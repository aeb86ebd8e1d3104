/* old_nccl.c: a libnccl of yesterday. */
__attribute__((visibility("default"))) int ncclGetVersion(int *version);

int ncclGetVersion(int *version)
{
    *version = 21701;
    return 0;
}
