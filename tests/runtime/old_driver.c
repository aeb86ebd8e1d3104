/* old_driver.c: a libcuda of CUDA 12.4, as far as anybody asks. */
__attribute__((visibility("default"))) int cuDriverGetVersion(int *version);

int cuDriverGetVersion(int *version)
{
    *version = 12040;
    return 0;
}
