// Single precision functions of the device library and their fast forms.
extern "C" __global__ void singles(float *out, const float *in, int count)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    float x = in[i], *row = out + 10 * i;
    row[0] = sqrtf(x);
    row[1] = 3.0f / x;
    row[2] = expf(fminf(x, 80.0f));
    row[3] = logf(x);
    row[4] = sinf(x);
    row[5] = tanhf(x);
    row[6] = erff(x);
    row[7] = powf(x, 0.37f);
    row[8] = __expf(fminf(x, 10.0f));
    row[9] = rsqrtf(x);
}
