// A private array with computed indices: sorted by insertion, each thread its own.
extern "C" __global__ void sort_digits(int *out, const int *in)
{
    int own[24];
    for (int i = 0; i < 24; i++)
        own[i] = in[(threadIdx.x * 24 + i * 5) % 768];
    for (int i = 1; i < 24; i++) {
        int value = own[i], at = i;
        for (; at > 0 && own[at - 1] > value; at--)
            own[at] = own[at - 1];
        own[at] = value;
    }
    int sum = 0;
    for (int i = 0; i < 24; i++)
        sum = sum * 31 + own[(i + threadIdx.x) % 24];
    out[threadIdx.x] = sum;
}
