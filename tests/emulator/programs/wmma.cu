// One 16 x 16 x 16 product with the fragments of mma.h.
#include <mma.h>
using namespace nvcuda;
extern "C" __global__ void product(float *c, const __half *a, const __half *b)
{
    wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> x;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::row_major> y;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> d;
    wmma::fill_fragment(d, 0.0f);
    wmma::load_matrix_sync(x, a, 16);
    wmma::load_matrix_sync(y, b, 16);
    wmma::mma_sync(d, x, y, d);
    wmma::store_matrix_sync(c, d, 16, wmma::mem_row_major);
}
