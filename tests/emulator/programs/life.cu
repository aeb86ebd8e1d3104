// Conway's game of life on a torus of 32 x 16 in one block, until nothing changes or none would be left. The
// barriers count, and find out whether any or all threads agree.
extern "C" __global__ void live(unsigned char *cells, int *generations, int *living, int most)
{
    __shared__ unsigned char now[16][32];
    int x = threadIdx.x, y = threadIdx.y, turn = 0;
    now[y][x] = cells[y * 32 + x];
    __syncthreads();
    while (turn < most) {
        int neighbours = 0;
        for (int i = 15; i <= 17; i++)
            for (int k = 31; k <= 33; k++)
                neighbours += i == 16 && k == 32 ? 0 : now[(y + i) % 16][(x + k) % 32];
        bool next = neighbours == 3 || (neighbours == 2 && now[y][x]);
        bool changes = next != now[y][x];
        if (!__syncthreads_or(changes) || __syncthreads_and(!next))
            break;
        now[y][x] = next;
        int alive = __syncthreads_count(next);
        if (x == 0 && y == 0)
            living[turn] = alive;
        turn++;
    }
    cells[y * 32 + x] = now[y][x];
    if (x == 0 && y == 0)
        *generations = turn;
}
