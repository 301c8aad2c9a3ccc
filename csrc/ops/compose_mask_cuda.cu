#include <climits>

#include "core/check.cuh"
#include "core/pack.cuh"
#include "core/reduce.cuh"
#include "ops/compose_mask.h"

namespace trtseg {

// Output pixels of one thread, neighbours in a row.
static constexpr int kPixels = 4;

struct Compose {
  float threshold;
  float scale_y, scale_x;  // source pixels per output pixel
  bool packed;             // rows of `out` and `out_probability` begin where packs may
};

// While the mask is composed `box` holds (smallest y, smallest x, largest y, largest x).
static __global__ void start_box(View<std::int32_t, 1> box) {
  box(0) = box(1) = INT_MAX;
  box(2) = box(3) = -1;
}

static __global__ void finish_box(View<std::int32_t, 1> box) {
  const bool empty = box(2) < 0;
  for (int i = 0; i < 2; ++i) {
    box(i) = empty ? 0 : box(i);
    box(i + 2) = empty ? 0 : box(i + 2) + 1;
  }
}

static __device__ int warp_min(int value) {
  for (int step = 16; step > 0; step /= 2) {
    const int other = __shfl_xor_sync(kWholeWarp, value, step);
    value = other < value ? other : value;
  }
  return value;
}

// The minimum of integers does not depend on the order in which atomics arrive. Most warps find the
// box wide enough already, and an outdated value only costs an atomic more.
static __device__ void widen_box(std::int32_t* box, int y0, int x0, int y1, int x1) {
  const volatile std::int32_t* now = box;
  if (y0 < now[0]) atomicMin(box, y0);
  if (x0 < now[1]) atomicMin(box + 1, x0);
  if (y1 > now[2]) atomicMax(box + 2, y1);
  if (x1 > now[3]) atomicMax(box + 3, x1);
}

template <class T>
static __device__ float upsampled(View<const T, 2> map, const Tap& row, const Tap& column) {
  return bilinear(to_float(map(row.first, column.first)), to_float(map(row.first, column.second)),
                  to_float(map(row.second, column.first)),
                  to_float(map(row.second, column.second)), row.weight, column.weight);
}

// A thread composes kPixels of a row, then its warp joins what changed. `previous` may be `out`:
// each pixel is read before it is written, by the same thread.
template <class T>
static __global__ void compose_kernel(View<const T, 2> probability, Compose with,
                                      View<std::uint8_t, 2> out, View<float, 2> out_probability,
                                      View<const std::uint8_t, 2> previous,
                                      View<std::int32_t, 1> box) {
  const i64 height = out.shape[0], width = out.shape[1];
  const i64 x0 = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) * kPixels;
  int top = INT_MAX, left = INT_MAX, bottom = -1, right = -1;
  for (i64 y = static_cast<i64>(blockIdx.y) * blockDim.y + threadIdx.y; y < height;
       y += static_cast<i64>(gridDim.y) * blockDim.y) {
    const Tap row = make_tap(y, with.scale_y, probability.shape[0]);
    Pack<std::uint8_t, kPixels> mask;
    Pack<float, kPixels> upscaled;
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      const i64 x = x0 + i < width ? x0 + i : width - 1;
      const Tap column = make_tap(x, with.scale_x, probability.shape[1]);
      upscaled.value[i] = upsampled(probability, row, column);
      mask.value[i] = mask_value(upscaled.value[i], with.threshold);
      if (previous && x0 + i < width && previous(y, x) != mask.value[i]) {
        const int px = static_cast<int>(x), py = static_cast<int>(y);
        top = py < top ? py : top;
        bottom = py;
        left = px < left ? px : left;
        right = px > right ? px : right;
      }
    }
    if (with.packed && x0 + kPixels <= width) {
      store_pack(out.row(y) + x0, mask);
      if (out_probability) store_pack(out_probability.row(y) + x0, upscaled);
    } else {
#pragma unroll
      for (int i = 0; i < kPixels; ++i) {
        if (x0 + i >= width) continue;
        out(y, x0 + i) = mask.value[i];
        if (out_probability) out_probability(y, x0 + i) = upscaled.value[i];
      }
    }
  }
  // The whole warp arrives here, also the threads beyond the map.
  if (!previous || __ballot_sync(kWholeWarp, bottom >= 0) == 0) return;
  top = warp_min(top);
  left = warp_min(left);
  bottom = -warp_min(-bottom);
  right = -warp_min(-right);
  if (threadIdx.x % 32 == 0) widen_box(box.data, top, left, bottom, right);
}

template <class T>
void compose_mask(View<const T, 2> probability, float threshold, View<std::uint8_t, 2> out,
                        View<float, 2> out_probability, View<const std::uint8_t, 2> previous,
                        View<std::int32_t, 1> box, Stream stream) {
  const cudaStream_t on = cuda_stream(stream);
  const i64 height = out.shape[0], width = out.shape[1];
  Compose with;
  with.threshold = threshold;
  with.scale_y = tap_scale(probability.shape[0], height);
  with.scale_x = tap_scale(probability.shape[1], width);
  with.packed = is_packable<kPixels>(out) &&
                (!out_probability || is_packable<kPixels>(out_probability));
  if (previous) {
    start_box<<<1, 1, 0, on>>>(box);
    check_cuda(cudaGetLastError(), "compose_mask");
  }
  const dim3 block(32, 8), grid(ceil_div(width, 32 * kPixels), row_blocks(height, 8));
  compose_kernel<T><<<grid, block, 0, on>>>(probability, with, out, out_probability, previous, box);
  check_cuda(cudaGetLastError(), "compose_mask");
  if (previous) {
    finish_box<<<1, 1, 0, on>>>(box);
    check_cuda(cudaGetLastError(), "compose_mask");
  }
}

template void compose_mask<float>(View<const float, 2>, float, View<std::uint8_t, 2>,
                                        View<float, 2>, View<const std::uint8_t, 2>,
                                        View<std::int32_t, 1>, Stream);
template void compose_mask<half>(View<const half, 2>, float, View<std::uint8_t, 2>,
                                       View<float, 2>, View<const std::uint8_t, 2>,
                                       View<std::int32_t, 1>, Stream);

}  // namespace trtseg
