// Double precision: the basic operations and functions of the device library.
extern "C" __global__ void doubles(double *out, const double *in, int count)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    double x = in[i], *row = out + 12 * i;
    row[0] = sqrt(x);
    row[1] = 1.0 / x;
    row[2] = fma(x, x, -1.0 / 3.0);
    row[3] = rint(x);
    row[4] = exp(fmin(x, 700.0));
    row[5] = log(x);
    row[6] = sin(x);
    row[7] = cos(x);
    row[8] = cbrt(x);
    row[9] = erf(x);
    row[10] = pow(x, 0.37);
    row[11] = atan2(x, 2.0);
}
