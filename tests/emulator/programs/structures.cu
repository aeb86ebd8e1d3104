// Structures as kernel parameters: padding, alignment, arrays with a computed index.
struct inner {
    char c;
    double d;
    short s[3];
};
struct __align__(16) outer {
    char first;
    inner nested[2];
    int4 vector;
    float tail;
};
struct table {
    int rows[64];
};

extern "C" __global__ void unpack(double *out, char lead, outer o, short between, table t,
                                  const __grid_constant__ table fixed, unsigned char last)
{
    int i = threadIdx.x;
    const int *through = fixed.rows;
    double values[8] = {(double)lead, (double)o.first, o.nested[i & 1].d,
                        (double)o.nested[1].s[i % 3], (double)(&o.vector.x)[i & 3],
                        (double)o.tail + between, (double)t.rows[i * 7 % 64],
                        (double)through[(i * 5 + 1) % 64] + last};
    for (int k = 0; k < 8; k++)
        out[8 * i + k] = values[k];
}
