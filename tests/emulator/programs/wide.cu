// Vectors of all widths, in global and dynamic shared memory that begins behind static memory.
extern "C" __global__ void move(int4 *a, double2 *b, uchar4 *c, short2 *d, float *e)
{
    extern __shared__ __align__(16) unsigned char dynamic[];
    __shared__ char small[3];
    int i = threadIdx.x;
    if (i < 3)
        small[i] = (char)(i + 1);
    int4 *ints = (int4 *)dynamic;
    double2 *doubles = (double2 *)(ints + blockDim.x);
    ints[i] = __ldg(&a[i]);
    doubles[i] = b[i];
    __syncthreads();
    int other = blockDim.x - 1 - i;
    a[i] = ints[other];
    b[i] = make_double2(doubles[other].y, doubles[other].x);
    c[i] = make_uchar4(c[i].w, c[i].z, c[i].y, c[i].x + small[i % 3]);
    d[i] = make_short2(d[i].y, -d[i].x);
    __stcg(&e[i], __ldcs(&e[i]) * 2);
}
