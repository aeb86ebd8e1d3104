// Variables of the module: constant memory, initial values, pointers from one to another.
struct entry {
    const char *name;
    int *where;
    short weight;
};
__constant__ float factors[8] = {1, 2, 3};
__constant__ struct { char tag; double value; } mixed = {'m', 2.5};
static __device__ int counter = 42;
__device__ int row[6] = {10, 20, 30, 40, 50, 60};
__device__ int *middle = row + 3;
__device__ entry entries[3] = {{"first", &row[1], -1}, {"second", row + 5, -2}, {0, 0, -3}};
__device__ double zeros[100];

extern "C" __global__ void read(double *out)
{
    int i = threadIdx.x;
    double result = factors[i % 8] * mixed.value + mixed.tag + zeros[i];
    result += middle[i % 3] + middle[-1];
    const entry *e = &entries[i % 3];
    result += 1000 * e->weight;
    if (e->name)
        for (const char *c = e->name; *c; c++)
            result += *c;
    if (e->where)
        result += 0.25 * *e->where;
    out[i] = result;
}

extern "C" __global__ void count(int *out)
{
    atomicAdd(&counter, 1);
    __syncthreads();
    *out = counter;
}
