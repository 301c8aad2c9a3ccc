// Bilinear resampling with half-pixel centres and clamped edges (torch: align_corners=False).
#pragma once

#include <cmath>

#include "core/half.h"
#include "core/view.h"

namespace trtseg {

// Sides of what is resampled are at most this: beyond, the positions of neighbouring pixels are no
// longer different numbers in float. The bindings refuse more, so a position fits an int.
constexpr i64 kMaxSide = i64{1} << 23;

// Output position i reads source positions `first` and `second`: first + weight * (second - first).
struct Tap {
  int first;
  int second;
  float weight;
};

// scale = source size / output size, as a float.
TRTSEG_HD inline float tap_scale(i64 source, i64 output) {
  return static_cast<float>(source) / static_cast<float>(output);
}

TRTSEG_HD inline Tap make_tap(i64 i, float scale, i64 source) {
  float position = (static_cast<float>(i) + 0.5f) * scale - 0.5f;
  position = position > 0.0f ? position : 0.0f;
  int first = static_cast<int>(position);
  const int last = static_cast<int>(source) - 1;
  first = first < last ? first : last;
  const int second = first < last ? first + 1 : last;
  return {first, second, position - static_cast<float>(first)};
}

TRTSEG_HD inline float lerp(float a, float b, float weight) { return a + weight * (b - a); }

// Horizontally first, then vertically: every backend keeps this order, so they agree to the bit
// wherever multiply and add are not fused.
TRTSEG_HD inline float bilinear(float top_left, float top_right, float bottom_left,
                                float bottom_right, float weight_y, float weight_x) {
  return lerp(lerp(top_left, top_right, weight_x), lerp(bottom_left, bottom_right, weight_x),
              weight_y);
}

// A map whose rows lie `stride` apart, at the place between its cells that two taps say.
template <class T>
TRTSEG_HD inline float bilinear_at(const T* map, i64 stride, const Tap& row, const Tap& column) {
  const T *top = map + row.first * stride, *bottom = map + row.second * stride;
  return bilinear(to_float(top[column.first]), to_float(top[column.second]),
                  to_float(bottom[column.first]), to_float(bottom[column.second]), row.weight,
                  column.weight);
}

}  // namespace trtseg
