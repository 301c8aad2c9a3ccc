// Sums over a warp and over a block, always in the same order.
#pragma once

#include <cuda_runtime.h>

namespace trtseg {

constexpr unsigned kWholeWarp = 0xFFFFFFFFu;

// Every lane gets the sum over its group of `width` lanes (a power of two).
inline __device__ float warp_sum(float value, int width = 32) {
  for (int step = width / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(kWholeWarp, value, step, width);
  }
  return value;
}

// Sum over a block of kThreads threads in one row, valid in thread 0. `partial` is shared memory of
// kThreads / 32 floats; a second call may follow at once.
template <int kThreads>
inline __device__ float block_sum(float value, float* partial) {
  static_assert(kThreads % 32 == 0 && kThreads <= 1024, "whole warps");
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.0f;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kThreads / 32; ++i) sum += partial[i];
  }
  __syncthreads();  // the next call overwrites `partial`
  return sum;
}

}  // namespace trtseg
