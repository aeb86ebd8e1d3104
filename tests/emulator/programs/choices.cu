// A switch with many cases that fall through, break, return and go round again.
extern "C" __global__ void choose(unsigned *out, const unsigned *in)
{
    unsigned i = threadIdx.x, value = in[i], result = 1, turns = 0;
again:
    switch (value) {
    case 0: result += i; break;
    case 1: result ^= 0x55; // falls through
    case 2: result *= 3; break;
    case 3: value = 7; turns++; goto again;
    case 4: out[i] = 1000 + i; return;
    case 5: result = __popc(i * 77); break;
    case 6: result -= i; // falls through
    case 7: result = ~result; break;
    case 8: if (turns++ < i % 5) { result += 9; goto again; } break;
    case 9: result = result << (i % 7); break;
    case 10: result = i / 3; break;
    case 11: result = i % 3; break;
    case 12: value = i % 12; turns += 100; if (turns > 300) break; goto again;
    case 13: result = 13 * i; break;
    case 14: result = i * i; break;
    case 15: result += 15; break;
    case 16: result = 16 ^ i; break;
    case 17: for (unsigned k = 0; k < i; k++) { if (k == 20) break; result += k; } break;
    case 18: result = i > 9 ? 1 : 2; break;
    case 19: result = 190; break;
    default: result = 77;
    }
    out[i] = result + 65536 * turns;
}
