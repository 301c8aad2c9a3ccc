// What every launch needs: the stream, the number of blocks, and the error afterwards.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "core/view.h"

namespace trtseg {

// A call of the CUDA runtime failed. `code` tells a missing driver or device from a bug.
class CudaError : public std::runtime_error {
 public:
  CudaError(cudaError_t status, const char* what)
      : std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status) + " (" +
                           cudaGetErrorName(status) + ")"),
        code(status) {}
  const cudaError_t code;
};

inline void check_cuda(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw CudaError(status, what);
}

inline cudaStream_t cuda_stream(Stream stream) {
  return reinterpret_cast<cudaStream_t>(stream.handle);
}

inline unsigned ceil_div(i64 n, i64 size) { return static_cast<unsigned>((n + size - 1) / size); }

// gridDim.y and gridDim.z end at 65535; kernels that may need more rows loop over them.
inline unsigned row_blocks(i64 rows, i64 size) {
  const i64 n = (rows + size - 1) / size;
  return static_cast<unsigned>(n < 65535 ? n : 65535);
}

}  // namespace trtseg
