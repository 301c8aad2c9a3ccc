#include <cmath>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/distance_map.h"

namespace trtseg {
namespace {

TRTSEG_CLONES
void fill(float* best, float value, i64 count) {
  for (i64 i = 0; i < count; ++i) best[i] = value;
}

TRTSEG_CLONES
void keep_nearest(float* best, float point_y, float point_x, float y, i64 x0, i64 count) {
  const int start = static_cast<int>(x0), n = static_cast<int>(count);
  for (int i = 0; i < n; ++i) {
    const float d = squared_distance(point_y, point_x, y, static_cast<float>(start + i));
    best[i] = d < best[i] ? d : best[i];
  }
}

TRTSEG_CLONES
void take_roots(float* best, float limit, i64 count) {
  for (i64 i = 0; i < count; ++i) {
    const float distance = sqrtf(best[i]);
    best[i] = distance < limit ? distance : limit;
  }
}

TRTSEG_CLONES
void keep_smaller(float* best, const float* old, i64 count) {
  for (i64 i = 0; i < count; ++i) best[i] = old[i] < best[i] ? old[i] : best[i];
}

// One piece of a row.
void map_tile(View<const float, 2> points, float* best, i64 y, i64 x0, i64 count, float limit) {
  const float row = static_cast<float>(y);
  bool touched = false;
  fill(best, limit * limit, count);
  for (i64 i = 0; i < points.shape[0]; ++i) {
    const float dy = points(i, 0) - row;
    if (dy * dy >= limit * limit) continue;
    keep_nearest(best, points(i, 0), points(i, 1), row, x0, count);
    touched = true;
  }
  if (touched) {
    take_roots(best, limit, count);
  } else {
    fill(best, limit, count);
  }
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
