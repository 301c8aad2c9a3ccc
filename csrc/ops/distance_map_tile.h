// Distances for a piece of a row, as the CPU computes them; included by the ops that need them.
#pragma once

#include <cmath>

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

// `count` (<= kTile) pixels of row y from x0 on, in the bits of `nearest`.
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
}  // namespace trtseg
