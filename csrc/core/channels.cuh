// Several channels of a pixel a thread: channels-last they are one access.
#pragma once

#include <cuda_runtime.h>

#include "core/pack.cuh"

namespace trtseg {

// Whether maps [C, H, W] are channels-last, with all channels of a pixel in whole packs of N.
template <int N, class T>
inline bool has_packs(View<T, 3> maps) {
  return maps.stride[0] == 1 && maps.stride[1] % N == 0 && maps.stride[2] % N == 0 &&
         maps.shape[0] % N == 0 && is_packable<N>(maps.data);
}

// Blocks over maps [C, H, W]: threadIdx.x counts groups of N channels of a pixel, threadIdx.y
// pixels. In packs, neighbouring threads take neighbouring groups; else neighbouring pixels.
constexpr int kPacksAcross = 16;

template <bool kPacked, int N>
inline dim3 block_of_packs(i64 channels, int threads) {
  const i64 groups = kPacked ? channels / N : 1;
  const int across = static_cast<int>(groups < kPacksAcross ? groups : kPacksAcross);
  return dim3(across, threads / across);
}

// The channels that a thread of such a block takes, blockIdx.y counting blocks of channels.
// kPacked: for maps that `has_packs`; else of either layout, value by value.
template <bool kPacked, int N>
struct Channels {
  i64 first;
  int count;  // fewer than N at the end, none beyond

  explicit __device__ Channels(i64 channels)
      : first((static_cast<i64>(blockIdx.y) * blockDim.x + threadIdx.x) * N),
        count(first + N <= channels ? N : first < channels ? static_cast<int>(channels - first) : 0) {}

  // Of a parameter by channel; a channel that is there, whatever k.
  __device__ i64 channel(int k) const { return k < count ? first + k : first; }

  template <class T>
  __device__ T* address(View<T, 3> maps, i64 y, i64 x) const {
    return maps.data + first * maps.stride[0] + y * maps.stride[1] + x * maps.stride[2];
  }

  template <class T>
  __device__ void read(View<const T, 3> maps, i64 y, i64 x, float (&value)[N]) const {
    const T* from = address(maps, y, x);
    if constexpr (kPacked) {
      const Pack<T, N> pack = load_pack<N>(from);
#pragma unroll
      for (int k = 0; k < N; ++k) value[k] = to_float(pack.value[k]);
    } else {
#pragma unroll
      for (int k = 0; k < N; ++k) value[k] = k < count ? to_float(from[k * maps.stride[0]]) : 0.0f;
    }
  }

  template <class T>
  __device__ void write(View<T, 3> maps, i64 y, i64 x, const float (&value)[N]) const {
    T* to = address(maps, y, x);
    if constexpr (kPacked) {
      Pack<T, N> pack;
#pragma unroll
      for (int k = 0; k < N; ++k) pack.value[k] = from_float<T>(value[k]);
      store_pack(to, pack);
    } else {
#pragma unroll
      for (int k = 0; k < N; ++k) {
        if (k < count) to[k * maps.stride[0]] = from_float<T>(value[k]);
      }
    }
  }
};

}  // namespace trtseg
