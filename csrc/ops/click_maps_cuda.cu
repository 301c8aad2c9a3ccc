#include "core/check.cuh"
#include "ops/click_maps.h"

namespace trtseg {

template <class T>
static __global__ void click_maps_kernel(View<const float, 3> points, ClickMaps with,
                                         View<T, 3> out) {
  const i64 x = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  const i64 height = out.shape[1], width = out.shape[2], kind = blockIdx.z;
  if (x >= width) return;
  const View<const float, 2> clicks = clicks_of(points, kind);
  for (i64 y = static_cast<i64>(blockIdx.y) * blockDim.y + threadIdx.y; y < height;
       y += static_cast<i64>(gridDim.y) * blockDim.y) {
    const float distance = nearest(clicks, y, x, with.limit);
    out(kind, y, x) = from_float<T>(click_value(clicks, distance, y, x, height, width, with));
    out(2 + kind, y, x) = from_float<T>(distance / with.limit);
  }
}

template <class T>
void cuda::click_maps(View<const float, 3> points, ClickMaps with, View<T, 3> out, Stream stream) {
  const dim3 block(32, 8), grid(ceil_div(out.shape[2], 32), row_blocks(out.shape[1], 8), 2);
  click_maps_kernel<T><<<grid, block, 0, cuda_stream(stream)>>>(points, with, out);
  check_cuda(cudaGetLastError(), "click_maps");
}

template void cuda::click_maps<float>(View<const float, 3>, ClickMaps, View<float, 3>, Stream);
template void cuda::click_maps<half>(View<const float, 3>, ClickMaps, View<half, 3>, Stream);

}  // namespace trtseg
