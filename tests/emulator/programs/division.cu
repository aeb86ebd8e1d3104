// Integer division of 64 and 32 bits, signed and not, and the high halves of products.
extern "C" __global__ void division(long long *out, const long long *a, const long long *b)
{
    int i = threadIdx.x;
    long long x = a[i], y = b[i], *row = out + 10 * i;
    unsigned long long ux = x, uy = y;
    unsigned vx = (unsigned)x, vy = (unsigned)y ? (unsigned)y : 1u;
    int sx = (int)vx, sy = vy == 0xffffffffu ? 7 : (int)vy;
    row[0] = x / y;
    row[1] = x % y;
    row[2] = ux / uy;
    row[3] = ux % uy;
    row[4] = vx / vy;
    row[5] = vx % vy;
    row[6] = sx / sy;
    row[7] = sx % sy;
    row[8] = __umul64hi(ux, uy);
    row[9] = ux / 1000003u + (unsigned long long)__mulhi(sx, sy);
}
