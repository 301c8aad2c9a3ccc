#include "core/check.cuh"
#include "ops/distance_map.h"

namespace trtseg {

template <class T>
static __global__ void distance_map_kernel(View<const float, 2> points, View<T, 2> out, float limit,
                                           bool accumulate) {
  const i64 x = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (x >= out.shape[1]) return;
  for (i64 y = static_cast<i64>(blockIdx.y) * blockDim.y + threadIdx.y; y < out.shape[0];
       y += static_cast<i64>(gridDim.y) * blockDim.y) {
    float distance = nearest(points, y, x, limit);
    if (accumulate) {
      const float old = to_float(out(y, x));
      distance = old < distance ? old : distance;
    }
    out(y, x) = from_float<T>(distance);
  }
}

template <class T>
void cuda::distance_map(View<const float, 2> points, View<T, 2> out, float limit, bool accumulate,
                        Stream stream) {
  const dim3 block(32, 8), grid(ceil_div(out.shape[1], 32), row_blocks(out.shape[0], 8));
  distance_map_kernel<T><<<grid, block, 0, cuda_stream(stream)>>>(points, out, limit, accumulate);
  check_cuda(cudaGetLastError(), "distance_map");
}

template void cuda::distance_map<float>(View<const float, 2>, View<float, 2>, float, bool, Stream);
template void cuda::distance_map<half>(View<const float, 2>, View<half, 2>, float, bool, Stream);

}  // namespace trtseg
