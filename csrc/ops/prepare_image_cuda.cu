#include "core/check.cuh"
#include "ops/prepare_image.h"

namespace trtseg {

template <class S, class T>
static __global__ void prepare_image_kernel(View<const S, 3> pixels, Preparation with,
                                            View<T, 3> out) {
  const i64 x = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  const i64 height = out.shape[1], width = out.shape[2];
  if (x >= width) return;
  for (i64 y = static_cast<i64>(blockIdx.y) * blockDim.y + threadIdx.y; y < height;
       y += static_cast<i64>(gridDim.y) * blockDim.y) {
    const Colour colour = prepared(pixels, with, y, x, height, width);
#pragma unroll
    for (int c = 0; c < 3; ++c) out(c, y, x) = from_float<T>(colour.channel[c]);
  }
}

template <class S, class T>
void prepare_image(View<const S, 3> pixels, Preparation with, View<T, 3> out, Stream stream) {
  const dim3 block(32, 8), grid(ceil_div(out.shape[2], 32), row_blocks(out.shape[1], 8));
  prepare_image_kernel<S, T><<<grid, block, 0, cuda_stream(stream)>>>(pixels, with, out);
  check_cuda(cudaGetLastError(), "prepare_image");
}

template void prepare_image<std::uint8_t, float>(View<const std::uint8_t, 3>, Preparation,
                                  View<float, 3>, Stream);
template void prepare_image<std::uint8_t, half>(View<const std::uint8_t, 3>, Preparation,
                                  View<half, 3>, Stream);
template void prepare_image<float, float>(View<const float, 3>, Preparation,
                                  View<float, 3>, Stream);
template void prepare_image<float, half>(View<const float, 3>, Preparation,
                                  View<half, 3>, Stream);
template void prepare_image<half, float>(View<const half, 3>, Preparation,
                                  View<float, 3>, Stream);
template void prepare_image<half, half>(View<const half, 3>, Preparation,
                                  View<half, 3>, Stream);

}  // namespace trtseg
