// Bilinear resampling with half-pixel centres and clamped edges (torch: align_corners=False).
#pragma once

#include <cmath>

#include "core/view.h"

namespace trtseg {

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

// How much output position i takes from source position `source_index`.
TRTSEG_HD inline float tap_share(Tap tap, i64 source_index) {
  float share = 0.0f;
  if (tap.first == source_index) share += 1.0f - tap.weight;
  if (tap.second == source_index) share += tap.weight;
  return share;
}

// The outputs that may read source position j: [begin, end), generous by one on either side;
// tap_share is 0 for those that do not.
struct Range {
  i64 begin;
  i64 end;
};

TRTSEG_HD inline Range reading_outputs(i64 j, float scale, i64 source, i64 output) {
  // The first and the last source position are read by everything that clamping moves onto them.
  const float low = (static_cast<float>(j) - 0.5f) / scale - 0.5f;
  const float high = (static_cast<float>(j) + 1.5f) / scale - 0.5f;
  i64 begin = j == 0 ? 0 : static_cast<i64>(floorf(low)) - 1;
  i64 end = j == source - 1 ? output : static_cast<i64>(ceilf(high)) + 2;
  begin = begin > 0 ? begin : 0;
  end = end < output ? end : output;
  return {begin, end};
}

}  // namespace trtseg
