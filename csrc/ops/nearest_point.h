// Truncated Euclidean distance of every pixel to the nearest of a few points (LD eq. 1).
#pragma once

#include <cmath>

#include "core/half.h"
#include "core/view.h"

namespace trtseg {

// Square of the distance from pixel (y, x) to a point. NaN coordinates give NaN, which loses every
// comparison and so contributes nothing.
TRTSEG_HD inline float squared_distance(float point_y, float point_x, float y, float x) {
  const float dy = point_y - y, dx = point_x - x;
  return dy * dy + dx * dx;
}

// min(limit, distance to the nearest point).
TRTSEG_HD inline float nearest(View<const float, 2> points, i64 y, i64 x, float limit) {
  float best = limit * limit;
  for (i64 i = 0; i < points.shape[0]; ++i) {
    const float d = squared_distance(points(i, 0), points(i, 1), static_cast<float>(y),
                                     static_cast<float>(x));
    if (d < best) best = d;
  }
  const float distance = sqrtf(best);
  return distance < limit ? distance : limit;
}

// points [N, 2] (y, x) in pixels of `out`, N may be 0; out [H, W], rows may be strided; limit > 0
// and finite. With `accumulate` the result is also bounded by what `out` holds: adding points one
// by one gives the same bits as all at once. T: float, half.
namespace cpu {
template <class T>
void distance_map(View<const float, 2> points, View<T, 2> out, float limit, bool accumulate,
                  Stream stream);
}
namespace cuda {
template <class T>
void distance_map(View<const float, 2> points, View<T, 2> out, float limit, bool accumulate,
                  Stream stream);
}

}  // namespace trtseg
