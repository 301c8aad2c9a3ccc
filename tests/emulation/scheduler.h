// Runs CUDA kernels on the host, one thread block at a time, every CUDA thread a fiber.
//
// Test only. Threads of a block run one after another until each meets a barrier or a warp
// exchange, in an order that the test chooses, so that a kernel which lacks a barrier computes
// something else, and one that diverges at a barrier is reported. Out-of-bounds and misaligned
// accesses are left to AddressSanitizer and UBSan, under which the same sources are built again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emulation {

/// What a kernel reads of itself; the members of the running thread.
struct Position {
  dim3 thread, block, block_size, grid_size;
};
extern Position position;

struct Config {
  dim3 grid, block;
  size_t shared_bytes;
  const void* stream;
};

inline Config config(dim3 grid, dim3 block, size_t shared_bytes = 0, const void* stream = nullptr) {
  return {grid, block, shared_bytes, stream};
}

/// Runs the grid to its end. A shape that CUDA refuses sets the error that cudaGetLastError
/// returns; a kernel that breaks the rules of the meeting points throws std::runtime_error.
void launch(const char* kernel, const Config& config, const std::function<void()>& thread);

/// Filled with 0xFF (NaN as a float) when a block first reaches the declaration.
void poison_static_shared(void* data, size_t bytes);
void* dynamic_shared();

/// __syncthreads: all threads of the block, from the same line.
void block_barrier(const char* file, int line);

/// One value per lane goes in; when the lanes of `mask` have all arrived, each gets the array of
/// all 32 values, those of lanes outside `mask` marked absent.
struct Exchange {
  uint64_t value[32];
  uint32_t present;
};
const Exchange& warp_exchange(uint32_t mask, uint64_t value, const char* file, int line);

[[noreturn]] void kernel_error(const char* what);
int lane();

/// The pending error as a cudaError_t number; reading resets it if `reset`.
int last_error(bool reset);

}  // namespace emulation
