// A 5 x 5 filter from constant memory over an image, with a border of zeros; tiles of 16 x 8 with their
// halo in shared memory.
constexpr int radius = 2, tile_x = 16, tile_y = 8;
__constant__ float weights[5][5];

extern "C" __global__ void filter(float *out, const float *in, int width, int height)
{
    __shared__ float tile[tile_y + 2 * radius][tile_x + 2 * radius];
    int left = blockIdx.x * tile_x - radius, top = blockIdx.y * tile_y - radius;
    for (int y = threadIdx.y; y < tile_y + 2 * radius; y += tile_y)
        for (int x = threadIdx.x; x < tile_x + 2 * radius; x += tile_x) {
            bool inside = left + x >= 0 && left + x < width && top + y >= 0 && top + y < height;
            tile[y][x] = inside ? in[(top + y) * width + left + x] : 0.0f;
        }
    __syncthreads();
    int x = blockIdx.x * tile_x + threadIdx.x, y = blockIdx.y * tile_y + threadIdx.y;
    if (x >= width || y >= height)
        return;
    float sum = 0;
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 5; k++)
            sum = fmaf(weights[i][k], tile[threadIdx.y + i][threadIdx.x + k], sum);
    out[y * width + x] = sum;
}
