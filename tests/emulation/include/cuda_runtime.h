// Stands in for NVIDIA's header when a .cu file is compiled for the host (see ../scheduler.h).
// Holds what csrc uses and nothing else: a new builtin in a kernel is added here by hand.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../scheduler.h"

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

#define threadIdx (::emulation::position.thread)
#define blockIdx (::emulation::position.block)
#define blockDim (::emulation::position.block_size)
#define gridDim (::emulation::position.grid_size)
#define warpSize 32

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::block_barrier(file, line);
}

namespace emulation {

template <class T>
T shuffle(uint32_t mask, T value, int source, int width, const char* file, int line) {
  static_assert(sizeof(T) <= 8, "CUDA shuffles values of 4 and 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  const Exchange& all = warp_exchange(mask, bits, file, line);
  const int self = lane(), begin = self / width * width;
  // Outside the segment a lane keeps its own value, as on the device.
  if (source < begin || source >= begin + width) source = self;
  if (!(all.present >> source & 1)) kernel_error("a shuffle reads a lane that takes no part");
  std::memcpy(&value, &all.value[source], sizeof(T));
  return value;
}

}  // namespace emulation

template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                   const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return emulation::shuffle(mask, value, emulation::lane() + static_cast<int>(delta), width, file,
                            line);
}

template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                 const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return emulation::shuffle(mask, value, emulation::lane() - static_cast<int>(delta), width, file,
                            line);
}

template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32,
                  const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return emulation::shuffle(mask, value, emulation::lane() ^ bits, width, file, line);
}

template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32,
              const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const int begin = emulation::lane() / width * width;
  return emulation::shuffle(mask, value, begin + source % width, width, file, line);
}

inline unsigned __ballot_sync(uint32_t mask, int predicate, const char* file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
  const emulation::Exchange& all = emulation::warp_exchange(mask, predicate != 0, file, line);
  unsigned votes = 0;
  for (int i = 0; i < 32; ++i) {
    votes |= static_cast<unsigned>((all.present >> i & 1) && all.value[i]) << i;
  }
  return votes;
}

inline void __syncwarp(uint32_t mask = 0xFFFFFFFFu, const char* file = __builtin_FILE(),
                       int line = __builtin_LINE()) {
  emulation::warp_exchange(mask, 0, file, line);
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(static_cast<unsigned>(bits)) : 32; }

// Threads run one at a time, so a plain read and write is atomic here.
inline int atomicAdd(int* address, int value) {
  const int old = *address;
  *address += value;
  return old;
}
// The runtime API, as far as csrc calls it. There is one device, and it is always ready.
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
};
using cudaStream_t = struct CUstream_st*;

inline cudaError_t cudaGetLastError() { return cudaError_t(emulation::last_error(true)); }
inline const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorInvalidConfiguration ? "cudaErrorInvalidConfiguration" : "cudaError";
}
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorInvalidConfiguration ? "invalid configuration argument" : "error";
}
inline cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t) {
  std::memset(data, value, bytes);
  return cudaSuccess;
}
