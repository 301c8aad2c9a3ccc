#include "core/check.cuh"
#include "core/pack.cuh"
#include "ops/compose_mask.h"

namespace trtseg {

// Output pixels of one thread, neighbours in a row.
static constexpr int kPixels = 4;

struct Compose {
  float threshold;
  float scale_y, scale_x;  // source pixels per output pixel
  bool packed;             // rows of `out` and `out_probability` begin where packs may
};

// A thread composes kPixels of a row.
template <class T>
static __global__ void compose_kernel(View<const T, 2> probability, Compose with,
                                      View<std::uint8_t, 2> out, View<float, 2> out_probability) {
  const i64 height = out.shape[0], width = out.shape[1];
  const i64 x0 = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) * kPixels;
  for (i64 y = static_cast<i64>(blockIdx.y) * blockDim.y + threadIdx.y; y < height;
       y += static_cast<i64>(gridDim.y) * blockDim.y) {
    const Tap row = make_tap(y, with.scale_y, probability.shape[0]);
    Pack<std::uint8_t, kPixels> mask;
    Pack<float, kPixels> upscaled;
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      const i64 x = x0 + i < width ? x0 + i : width - 1;
      const Tap column = make_tap(x, with.scale_x, probability.shape[1]);
      upscaled.value[i] = bilinear_at(probability.data, probability.stride[0], row, column);
      mask.value[i] = mask_value(upscaled.value[i], with.threshold);
    }
    if (with.packed && x0 + kPixels <= width) {
      store_pack(out.row(y) + x0, mask);
      if (out_probability) store_pack(out_probability.row(y) + x0, upscaled);
      continue;
    }
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      if (x0 + i >= width) continue;
      out(y, x0 + i) = mask.value[i];
      if (out_probability) out_probability(y, x0 + i) = upscaled.value[i];
    }
  }
}

template <class T>
void compose_mask(View<const T, 2> probability, float threshold, View<std::uint8_t, 2> out,
                  View<float, 2> out_probability, Stream stream) {
  const i64 height = out.shape[0], width = out.shape[1];
  Compose with;
  with.threshold = threshold;
  with.scale_y = tap_scale(probability.shape[0], height);
  with.scale_x = tap_scale(probability.shape[1], width);
  with.packed = is_packable<kPixels>(out) &&
                (!out_probability || is_packable<kPixels>(out_probability));
  const dim3 block(32, 8), grid(ceil_div(width, 32 * kPixels), row_blocks(height, 8));
  compose_kernel<T><<<grid, block, 0, cuda_stream(stream)>>>(probability, with, out,
                                                             out_probability);
  check_cuda(cudaGetLastError(), "compose_mask");
}

TRTSEG_FLOATS(compose_mask);

}  // namespace trtseg
