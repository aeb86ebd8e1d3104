// Functions that stay functions: values, structures and pointers in and out.
struct point {
    double x;
    short tag;
    float y[3];
};

__noinline__ __device__ point moved(point p, float by, char tag)
{
    p.x += by;
    p.tag = (short)(p.tag * tag);
    for (int i = 0; i < 3; i++)
        p.y[i] -= by;
    return p;
}

__noinline__ __device__ int count_down(int *steps, int from)
{
    if (from % 7 == 3)
        return -from;
    while (from > 0) {
        ++*steps;
        from = from % 2 ? from - 1 : from / 2;
        if (*steps > 9)
            return from;
    }
    return 0;
}

__noinline__ __device__ float length(const point *p)
{
    return (float)p->x + p->tag + p->y[0] * p->y[1] * p->y[2];
}

extern "C" __global__ void call(float *out, int *steps)
{
    int i = threadIdx.x, own = 0;
    point p = {i * 0.5, (short)i, {1.0f * i, 2.0f, 3.0f}};
    if (i % 3)
        p = moved(moved(p, 1.0f, 2), i % 3, -1);
    out[i] = length(&p) + count_down(&own, i);
    steps[i] = own;
}
