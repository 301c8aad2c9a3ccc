// Bytes, with s the size of T: C s a pixel written, and the levels read once, the rest from the
// caches: with VGG's five levels from full size down to 1/16, (1 + 1 + 1/4 + 1/16 + ...) C s, about
// 2.33 C s a pixel in all.
//
// The limit to keep clear of is the number of loads and instructions, not the memory: a thread
// takes a pack of channels of a pixel, which channels-last is one access a corner, and a block
// computes its taps once.
#include "core/channels.cuh"
#include "core/check.cuh"
#include "ops/hypercolumn.h"

namespace trtseg {

const bool kHypercolumnTakesChannelsLast = true;

static constexpr int kThreads = 128, kRows = 4;
// Channels of a thread; value by value four corners of a pack of half would not fit its registers.
template <class T, bool kPacked>
constexpr int kChannels = kPacked ? kPack<T> : 4;

template <class T, bool kPacked>
static __global__ void __launch_bounds__(kThreads)
    hypercolumn_kernel(const __grid_constant__ Levels<const T> levels, View<const T, 3> image,
                       View<const float, 2> image_weight, View<const float, 1> bias, View<T, 3> out,
                       unsigned blocks_across) {
  constexpr int N = kChannels<T, kPacked>;
  const i64 height = out.shape[1], width = out.shape[2];
  const i64 y0 = static_cast<i64>(blockIdx.x / blocks_across) * kRows;
  const i64 x0 = static_cast<i64>(blockIdx.x % blocks_across) * blockDim.y;
  __shared__ Tap columns[kMaxLevels][kThreads];
  __shared__ Tap rows[kMaxLevels][kRows];
  const int taps = kRows + blockDim.y;
  for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < levels.count * taps;
       i += blockDim.x * blockDim.y) {
    const int l = i / taps, at = i % taps;
    const i64* shape = levels.level[l].shape;
    if (at < kRows) {
      rows[l][at] = make_tap(y0 + at, tap_scale(shape[1], height), shape[1]);
    } else {
      columns[l][at - kRows] =
          make_tap(x0 + at - kRows, tap_scale(shape[2], width), shape[2]);
    }
  }
  __syncthreads();

  const i64 x = x0 + threadIdx.y;
  const Channels<kPacked, N> at(out.shape[0]);
  if (at.count == 0 || x >= width) return;
  float start[N], weight[3][N];
#pragma unroll
  for (int k = 0; k < N; ++k) {
    start[k] = bias ? bias(at.channel(k)) : 0.0f;
#pragma unroll
    for (int j = 0; j < 3; ++j) weight[j][k] = image ? image_weight(at.channel(k), j) : 0.0f;
  }
  for (int row = 0; row < kRows && y0 + row < height; ++row) {
    const i64 y = y0 + row;
    float sum[N];
#pragma unroll
    for (int k = 0; k < N; ++k) sum[k] = start[k];
    if (image) {
#pragma unroll
      for (int j = 0; j < 3; ++j) {
        const float pixel = to_float(image(j, y, x));
#pragma unroll
        for (int k = 0; k < N; ++k) sum[k] += weight[j][k] * pixel;
      }
    }
    for (int l = 0; l < levels.count; ++l) {
      const View<const T, 3>& level = levels.level[l];
      if (level.shape[1] == height && level.shape[2] == width) {
        float value[N];
        at.read(level, y, x, value);
#pragma unroll
        for (int k = 0; k < N; ++k) sum[k] += value[k];
        continue;
      }
      const Tap across = columns[l][threadIdx.y], down = rows[l][row];
      float top_left[N], top_right[N], bottom_left[N], bottom_right[N];
      at.read(level, down.first, across.first, top_left);
      at.read(level, down.first, across.second, top_right);
      at.read(level, down.second, across.first, bottom_left);
      at.read(level, down.second, across.second, bottom_right);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        sum[k] += bilinear(top_left[k], top_right[k], bottom_left[k], bottom_right[k], down.weight,
                           across.weight);
      }
    }
    at.write(out, y, x, sum);
  }
}

template <class T, bool kPacked>
static void launch(const Levels<const T>& levels, View<const T, 3> image,
                   View<const float, 2> image_weight, View<const float, 1> bias, View<T, 3> out,
                   cudaStream_t on) {
  constexpr int N = kChannels<T, kPacked>;
  const dim3 block = block_of_packs<kPacked, N>(out.shape[0], kThreads);
  const unsigned across = ceil_div(out.shape[2], block.y);
  const dim3 grid(across * ceil_div(out.shape[1], kRows), ceil_div(out.shape[0], block.x * N));
  hypercolumn_kernel<T, kPacked>
      <<<grid, block, 0, on>>>(levels, image, image_weight, bias, out, across);
  check_cuda(cudaGetLastError(), "hypercolumn");
}

template <class T>
void hypercolumn(Levels<const T> levels, View<const T, 3> image, View<const float, 2> image_weight,
                 View<const float, 1> bias, View<T, 3> out, Stream stream) {
  bool packed = has_packs<kPack<T>>(out);
  for (int l = 0; l < levels.count; ++l) {
    packed = packed && has_packs<kPack<T>>(levels.level[l]);
  }
  const cudaStream_t on = cuda_stream(stream);
  if (packed) {
    launch<T, true>(levels, image, image_weight, bias, out, on);
  } else {
    launch<T, false>(levels, image, image_weight, bias, out, on);
  }
}

TRTSEG_FLOATS(hypercolumn);

}  // namespace trtseg
