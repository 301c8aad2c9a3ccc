#include "core/check.cuh"
#include "ops/click_maps.h"

namespace trtseg {

static constexpr int kColumns = 32, kRows = 8, kThreads = kColumns * kRows;

// A block first takes the real clicks of its kind out of the list, kThreads at a time: most of a
// list of fixed length is NaN. Which slot a click gets does not matter, the minimum has no order.
template <class T>
static __global__ void __launch_bounds__(kThreads)
    click_maps_kernel(View<const float, 3> points, ClickMaps with, View<T, 3> out) {
  __shared__ float clicks[kThreads][2];
  __shared__ int found;
  const int thread = static_cast<int>(threadIdx.y) * kColumns + static_cast<int>(threadIdx.x);
  const i64 height = out.shape[1], width = out.shape[2], kind = blockIdx.z;
  const i64 x = static_cast<i64>(blockIdx.x) * kColumns + threadIdx.x;
  for (i64 top = static_cast<i64>(blockIdx.y) * kRows; top < height;
       top += static_cast<i64>(gridDim.y) * kRows) {  // the whole block
    const i64 y = top + threadIdx.y;
    const float row = static_cast<float>(y), column = static_cast<float>(x);
    float best = with.limit * with.limit;
    bool here = false;
    for (i64 first = 0; first < points.shape[1]; first += kThreads) {
      if (thread == 0) found = 0;
      __syncthreads();
      if (first + thread < points.shape[1]) {
        const float* point = points.row(kind, first + thread);
        const float point_y = point[0], point_x = point[1];
        if (point_y == point_y && point_x == point_x) {
          const int slot = atomicAdd(&found, 1);
          clicks[slot][0] = point_y;
          clicks[slot][1] = point_x;
        }
      }
      __syncthreads();
      for (int i = 0; i < found; ++i) {
        const float point_y = clicks[i][0], point_x = clicks[i][1];
        const float squared = squared_distance(point_y, point_x, row, column);
        best = squared < best ? squared : best;
        here = here || (with.falloff == 0.0f && click_cell(point_y, height) == row &&
                        click_cell(point_x, width) == column);
      }
      __syncthreads();
    }
    if (x >= width || y >= height) continue;
    const float distance = truncated_root(best, with.limit);
    const float point = here ? 1.0f : 0.0f;
    out(kind, y, x) =
        from_float<T>(with.falloff == 0.0f ? point : click_bump(distance, with.falloff));
    out(2 + kind, y, x) = from_float<T>(distance / with.limit);
  }
}

template <class T>
void click_maps(View<const float, 3> points, ClickMaps with, View<T, 3> out, Stream stream) {
  const dim3 block(kColumns, kRows);
  const dim3 grid(ceil_div(out.shape[2], kColumns), row_blocks(out.shape[1], kRows), 2);
  click_maps_kernel<T><<<grid, block, 0, cuda_stream(stream)>>>(points, with, out);
  check_cuda(cudaGetLastError(), "click_maps");
}

TRTSEG_FLOATS(click_maps);

}  // namespace trtseg
