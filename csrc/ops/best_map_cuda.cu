#include "core/check.cuh"
#include "ops/best_map.h"

namespace trtseg {

// Every thread looks for the best score itself: they are few, and a launch would cost more.
template <class T, class S>
static __global__ void best_map_kernel(View<const T, 3> maps, View<const S, 1> scores,
                                       View<T, 2> out) {
  const i64 x = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (x >= out.shape[1]) return;
  const i64 best = best_index(scores);
  for (i64 y = static_cast<i64>(blockIdx.y) * blockDim.y + threadIdx.y; y < out.shape[0];
       y += static_cast<i64>(gridDim.y) * blockDim.y) {
    out(y, x) = maps(best, y, x);
  }
}

template <class T, class S>
void best_map(View<const T, 3> maps, View<const S, 1> scores, View<T, 2> out, Stream stream) {
  const dim3 block(32, 8), grid(ceil_div(out.shape[1], 32), row_blocks(out.shape[0], 8));
  best_map_kernel<T, S><<<grid, block, 0, cuda_stream(stream)>>>(maps, scores, out);
  check_cuda(cudaGetLastError(), "best_map");
}

TRTSEG_INSTANCE(best_map<float, float>);
TRTSEG_INSTANCE(best_map<float, half>);
TRTSEG_INSTANCE(best_map<half, float>);
TRTSEG_INSTANCE(best_map<half, half>);

}  // namespace trtseg
