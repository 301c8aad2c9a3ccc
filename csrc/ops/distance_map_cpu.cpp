#include "core/parallel.h"
#include "core/simd.h"
#include "ops/distance_map.h"
#include "ops/distance_map_tile.h"

namespace trtseg {
namespace {

TRTSEG_CLONES
void keep_smaller(float* best, const float* old, i64 count) {
  for (i64 i = 0; i < count; ++i) best[i] = old[i] < best[i] ? old[i] : best[i];
}

}  // namespace

template <class T>
void cpu::distance_map(View<const float, 2> points, View<T, 2> out, float limit, bool accumulate,
                       Stream) {
  const i64 width = out.shape[1];
  parallel_for(out.shape[0], 16384 / (width + 1) + 1, [=](i64 begin, i64 end, int) {
    float best[kTile], buffer[kTile];
    for (i64 y = begin; y < end; ++y) {
      for (i64 x0 = 0; x0 < width; x0 += kTile) {
        const i64 count = width - x0 < kTile ? width - x0 : kTile;
        T* target = out.row(y) + x0;
        map_tile(points, best, y, x0, count, limit);
        if (accumulate) keep_smaller(best, read_tile(target, buffer, count), count);
        float* result = begin_tile(target, best);
        for (i64 i = 0; i < count; ++i) result[i] = best[i];
        end_tile(target, result, count);
      }
    }
  });
}

template void cpu::distance_map<float>(View<const float, 2>, View<float, 2>, float, bool, Stream);
template void cpu::distance_map<half>(View<const float, 2>, View<half, 2>, float, bool, Stream);

}  // namespace trtseg
