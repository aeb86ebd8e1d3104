// 64-bit integers: loops of divisions, products of 128 bits, shifts and rotations by computed amounts.

static __device__ unsigned long long gcd(unsigned long long a, unsigned long long b)
{
    while (b) {
        unsigned long long rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

// base^exponent modulo a number below 2^63, by products of 128 bits reduced bit by bit.
static __device__ unsigned long long multiply_modulo(unsigned long long a, unsigned long long b,
                                                     unsigned long long modulus)
{
    unsigned long long high = __umul64hi(a, b), low = a * b, rest = high % modulus;
    for (int bit = 63; bit >= 0; bit--) {
        rest = rest << 1 | (low >> bit & 1);
        if (rest >= modulus)
            rest -= modulus;
    }
    return rest;
}

static __device__ unsigned long long power_modulo(unsigned long long base, unsigned exponent,
                                                  unsigned long long modulus)
{
    unsigned long long result = 1 % modulus;
    for (base %= modulus; exponent; exponent >>= 1) {
        if (exponent & 1)
            result = multiply_modulo(result, base, modulus);
        base = multiply_modulo(base, base, modulus);
    }
    return result;
}

static __device__ unsigned long long square_root(unsigned long long value)
{
    unsigned long long root = 0;
    for (unsigned long long bit = 1ull << 31; bit; bit >>= 1)
        if ((root | bit) * (root | bit) <= value)
            root |= bit;
    return root;
}

extern "C" __global__ void compute(unsigned long long *out, const unsigned long long *a,
                                   const unsigned long long *b)
{
    int i = threadIdx.x;
    unsigned long long x = a[i], y = b[i], *row = out + 12 * i;
    unsigned amount = y & 63;
    long long sx = (long long)x, sy = (long long)y;
    unsigned __int128 sum = ((unsigned __int128)x << 64 | y) + ((unsigned __int128)y << 64 | x);
    row[0] = gcd(x, y);
    row[1] = power_modulo(x, (unsigned)y, (y >> 1) + 3);
    row[2] = square_root(x);
    row[3] = x << amount;
    row[4] = (unsigned long long)(sx >> amount);
    row[5] = x << amount | x >> (-amount & 63);
    row[6] = (unsigned long long)(sum >> 64);
    row[7] = (unsigned long long)sum;
    row[8] = (unsigned long long)min(sx, sy) ^ max(x, y);
    row[9] = (unsigned long long)__mul64hi(sx, sy);
    row[10] = (unsigned long long)(long long)((double)sx * 0.5);
    row[11] = (unsigned long long)__double_as_longlong((double)x) + (unsigned)__popcll(x & ~y);
}
