// Bytes, with s the size of T: C s a pixel written, and the levels read once, the rest from the
// caches: with VGG's five levels from full size down to 1/16, (1 + 1 + 1/4 + 1/16 + ...) C s, about
// 2.33 C s a pixel in all.
//
// The limit to keep clear of is the number of loads and instructions, not the memory: a thread
// takes kPixels neighbours in a row of kChannels channels, computes each tap once for all of them,
// and walks along the source row, where most steps need no new column.
#include "core/check.cuh"
#include "core/pack.cuh"
#include "ops/hypercolumn.h"

namespace trtseg {

static constexpr int kChannels = 4;

template <class T>
constexpr int kPixels = kPack<T>;

// Where a thread works: pixels (y, x0 ...), channels c0 ...; clamped positions are read, not
// written.
struct Place {
  i64 c0, channels, y, x0, width, height;
  __device__ i64 channel(int k) const { return c0 + k < channels ? c0 + k : channels - 1; }
};

// A level of the output's own size: no interpolation, one pack a channel.
template <class T, int N>
static __device__ void add_equal(View<const T, 3> level, const Place& at, bool packed,
                                 float (&sum)[kChannels][N]) {
#pragma unroll
  for (int k = 0; k < kChannels; ++k) {
    const T* row = level.row(at.channel(k), at.y);
    if (packed && at.x0 + N <= at.width) {
      const Pack<T, N> pack = load_pack<N>(row + at.x0);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[k][i] += to_float(pack.value[i]);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if (at.x0 + i < at.width) sum[k][i] += to_float(row[at.x0 + i]);
      }
    }
  }
}

// The column pair under a pixel, for one channel: values of the left column, and what the right
// one adds to them.
struct Window {
  float top, bottom, top_step, bottom_step;
};

template <class T, int N>
static __device__ void add_resampled(View<const T, 3> level, const Place& at,
                                     float (&sum)[kChannels][N]) {
  const Tap row = make_tap(at.y, tap_scale(level.shape[1], at.height), level.shape[1]);
  const float scale = tap_scale(level.shape[2], at.width);
  Window window[kChannels] = {};
  int first = -1;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const i64 x = at.x0 + i < at.width ? at.x0 + i : at.width - 1;
    const Tap column = make_tap(x, scale, level.shape[2]);
    if (column.first != first) {
#pragma unroll
      for (int k = 0; k < kChannels; ++k) {
        const T* upper = level.row(at.channel(k), row.first);
        const T* lower = level.row(at.channel(k), row.second);
        Window& w = window[k];
        // The left column is often the last right one: to load it again is a hit in the cache, to
        // keep it would be two more registers a channel.
        w.top = to_float(upper[column.first]);
        w.bottom = to_float(lower[column.first]);
        w.top_step = to_float(upper[column.second]) - w.top;
        w.bottom_step = to_float(lower[column.second]) - w.bottom;
      }
      first = column.first;
    }
#pragma unroll
    for (int k = 0; k < kChannels; ++k) {
      // bilinear() with both differences at hand.
      const Window& w = window[k];
      sum[k][i] += lerp(w.top + column.weight * w.top_step,
                        w.bottom + column.weight * w.bottom_step, row.weight);
    }
  }
}

template <class T>
static __global__ void __launch_bounds__(128, 4)  // else the compiler spills for a fifth block
    forward_kernel(const __grid_constant__ Levels<const T> levels, View<const T, 3> image,
                   View<const float, 2> image_weight, View<const float, 1> bias, View<T, 3> out,
                   bool packed) {
  constexpr int N = kPixels<T>;
  Place at;
  at.c0 = static_cast<i64>(blockIdx.z) * kChannels;
  at.channels = out.shape[0];
  at.height = out.shape[1];
  at.width = out.shape[2];
  at.x0 = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (at.x0 >= at.width) return;
  for (at.y = static_cast<i64>(blockIdx.y) * blockDim.y + threadIdx.y; at.y < at.height;
       at.y += static_cast<i64>(gridDim.y) * blockDim.y) {
    float sum[kChannels][N];
#pragma unroll
    for (int k = 0; k < kChannels; ++k) {
#pragma unroll
      for (int i = 0; i < N; ++i) sum[k][i] = bias ? bias(at.channel(k)) : 0.0f;
    }
    if (image) {
#pragma unroll
      for (int j = 0; j < 3; ++j) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          if (at.x0 + i >= at.width) continue;
          const float pixel = to_float(image(j, at.y, at.x0 + i));
#pragma unroll
          for (int k = 0; k < kChannels; ++k) sum[k][i] += image_weight(at.channel(k), j) * pixel;
        }
      }
    }
    for (int l = 0; l < levels.count; ++l) {
      const View<const T, 3>& level = levels.level[l];
      if (level.shape[1] == at.height && level.shape[2] == at.width) {
        add_equal(level, at, packed, sum);
      } else {
        add_resampled(level, at, sum);
      }
    }
#pragma unroll
    for (int k = 0; k < kChannels; ++k) {
      if (at.c0 + k >= at.channels) continue;
      T* row = out.row(at.c0 + k, at.y);
      if (packed && at.x0 + N <= at.width) {
        Pack<T, N> pack;
#pragma unroll
        for (int i = 0; i < N; ++i) pack.value[i] = from_float<T>(sum[k][i]);
        store_pack(row + at.x0, pack);
      } else {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          if (at.x0 + i < at.width) row[at.x0 + i] = from_float<T>(sum[k][i]);
        }
      }
    }
  }
}

template <class T>
void hypercolumn(Levels<const T> levels, View<const T, 3> image,
                       View<const float, 2> image_weight, View<const float, 1> bias,
                       View<T, 3> out, Stream stream) {
  constexpr int N = kPixels<T>;
  bool packed = is_packable<N>(out);
  for (int l = 0; l < levels.count; ++l) {
    const View<const T, 3>& level = levels.level[l];
    const bool equal = level.shape[1] == out.shape[1] && level.shape[2] == out.shape[2];
    packed = packed && (!equal || is_packable<N>(level));
  }
  const dim3 block(32, 4);
  const dim3 grid(ceil_div(out.shape[2], 32 * N), row_blocks(out.shape[1], 4),
                  ceil_div(out.shape[0], kChannels));
  forward_kernel<T><<<grid, block, 0, cuda_stream(stream)>>>(levels, image, image_weight, bias, out,
                                                             packed);
  check_cuda(cudaGetLastError(), "hypercolumn");
}

template void hypercolumn<float>(Levels<const float>, View<const float, 3>, View<const float, 2>,
                                 View<const float, 1>, View<float, 3>, Stream);
template void hypercolumn<half>(Levels<const half>, View<const half, 3>, View<const float, 2>,
                                View<const float, 1>, View<half, 3>, Stream);

}  // namespace trtseg
