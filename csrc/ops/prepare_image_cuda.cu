#include "core/check.cuh"
#include "ops/prepare_image.h"

namespace trtseg {

template <class S, class T>
static __global__ void prepare_image_kernel(View<const S, 3> pixels, Preparation with,
                                            View<T, 3> out) {
  const i64 x = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  const i64 height = out.shape[1], width = out.shape[2];
  if (x >= width) return;
  const Window columns = make_window(x, pixels.shape[1], width);
  for (i64 y = static_cast<i64>(blockIdx.y) * blockDim.y + threadIdx.y; y < height;
       y += static_cast<i64>(gridDim.y) * blockDim.y) {
    const Window rows = make_window(y, pixels.shape[0], height);
    const Colour colour = prepared(pixels, with, rows, columns);
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

TRTSEG_INSTANCE(prepare_image<std::uint8_t, float>);
TRTSEG_INSTANCE(prepare_image<std::uint8_t, half>);
TRTSEG_INSTANCE(prepare_image<std::uint16_t, float>);
TRTSEG_INSTANCE(prepare_image<std::uint16_t, half>);
TRTSEG_INSTANCE(prepare_image<float, float>);
TRTSEG_INSTANCE(prepare_image<float, half>);
TRTSEG_INSTANCE(prepare_image<half, float>);
TRTSEG_INSTANCE(prepare_image<half, half>);

}  // namespace trtseg
