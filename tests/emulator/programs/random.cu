// Random numbers: a counter-based generator of 32-bit words and a shift register of 64 bits.
__device__ uint4 philox(uint4 x, uint2 key)
{
    for (int round = 0; round < 10; round++) {
        unsigned long long p = 0xD2511F53ull * x.x, q = 0xCD9E8D57ull * x.z;
        x = make_uint4((unsigned)(q >> 32) ^ x.y ^ key.x, (unsigned)q, (unsigned)(p >> 32) ^ x.w ^ key.y,
                       (unsigned)p);
        key.x += 0x9E3779B9u;
        key.y += 0xBB67AE85u;
    }
    return x;
}

extern "C" __global__ void draw(uint4 *words, unsigned long long *states, uint2 key, int turns)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    words[i] = philox(make_uint4(i, 7, i * i, 0xffffffff), key);
    unsigned long long state = i + 1, sum = 0;
    for (int turn = 0; turn < turns; turn++) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        sum += state * 0x2545F4914F6CDD1Dull;
    }
    states[i] = sum;
}
