// Bit operations, byte permutation, dot products of bytes, saturation.
extern "C" __global__ void bits(unsigned *out, const unsigned *a, const unsigned *b)
{
    int i = threadIdx.x;
    unsigned x = a[i], y = b[i], *row = out + 16 * i;
    unsigned long long wide = (unsigned long long)x << 32 | y;
    row[0] = __popc(x);
    row[1] = __clz(x);
    row[2] = __ffs(x);
    row[3] = __brev(x);
    row[4] = __funnelshift_l(x, y, y);
    row[5] = __funnelshift_rc(x, y, y & 63);
    row[6] = __byte_perm(x, y, 0x5142);
    row[7] = __popcll(wide);
    row[8] = __clzll(wide);
    row[9] = __ffsll(wide);
    row[10] = (unsigned)(__brevll(wide) >> 16);
    row[11] = __dp4a((int)x, (int)y, 100);
    row[12] = __dp4a(x, y, 100u);
    row[13] = __usad(x, y, 5);
    row[14] = __float2uint_rz(__uint_as_float(x & 0x7fffffff));
    row[15] = __vadd4(x, y) ^ __vmaxu2(x, y);
}
