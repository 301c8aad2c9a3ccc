// The guidance channels that a user's clicks give: click maps and distance maps (LD eq. 1).
#pragma once

#include <cmath>

#include "core/half.h"
#include "core/view.h"
#include "ops/distance_map.h"

namespace trtseg {

struct ClickMaps {
  float limit;    // distances are truncated here, in pixels of the maps
  float falloff;  // -1 / (2 sigma^2) of Gaussian click maps; 0 for maps of points
};

// Whether a click lies on pixel i of an axis; clicks beyond the map lie on its border.
TRTSEG_HD inline bool lies_on(float click, i64 i, i64 size) {
  float cell = floorf(click + 0.5f);
  cell = cell > 0.0f ? cell : 0.0f;
  const float last = static_cast<float>(size - 1);
  return (cell < last ? cell : last) == static_cast<float>(i);
}

// S at pixel (y, x) of a map of height x width, for clicks of one kind, [N, 2], of which the nearest
// is at a truncated distance.
TRTSEG_HD inline float click_value(View<const float, 2> points, float distance, i64 y, i64 x,
                                   i64 height, i64 width, ClickMaps with) {
  if (with.falloff < 0.0f) {
    const float exponent = distance * distance * with.falloff;
    return exponent < -104.0f ? 0.0f : expf(exponent);  // below, the nearest float is 0
  }
  for (i64 i = 0; i < points.shape[0]; ++i) {
    const float py = points(i, 0), px = points(i, 1);
    if (py == py && px == px && lies_on(py, y, height) && lies_on(px, x, width)) return 1.0f;
  }
  return 0.0f;
}

TRTSEG_HD inline View<const float, 2> clicks_of(View<const float, 3> points, i64 kind) {
  return {points.data + kind * points.stride[0], {points.shape[1], 2}, {points.stride[1], 1}};
}

// points [2, N, 2]: positive and negative clicks, (y, x) in pixels of the maps; N may be 0, and a
// point of NaN is none, so that a list of fixed length holds any number of clicks. out [4, H, W]:
// S_p, S_n (1 on a click, or exp(falloff d^2)), T_p, T_n (d / limit). T: float, half.
namespace cpu {
template <class T>
void click_maps(View<const float, 3> points, ClickMaps with, View<T, 3> out, Stream stream);
}
namespace cuda {
template <class T>
void click_maps(View<const float, 3> points, ClickMaps with, View<T, 3> out, Stream stream);
}

}  // namespace trtseg
