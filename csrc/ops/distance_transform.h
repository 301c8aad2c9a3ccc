// Exact Euclidean distance of every pixel to the nearest True pixel of a mask.
//
// Separable: first the distance within each column, then, per row, the lower envelope of the
// parabolas (x - v)^2 + g(v)^2 of all columns v. Squares are integers, so the answer is exact.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/view.h"

namespace trtseg {

// Sides are at most this, so that every squared distance fits an int32.
constexpr i64 kMaxDistanceSide = 32767;

// Column distance of a column without a True pixel.
constexpr std::uint16_t kNoSite = 65535;

// The parabola of column u, v or w (u < v < w) with column distances squared gu, gv, gw: true if v
// is nowhere below both others, so it can leave the envelope. No division: exact in int64.
TRTSEG_HD inline bool is_hidden(i64 u, i64 gu, i64 v, i64 gv, i64 w, i64 gw) {
  const i64 a = v - u, b = w - v, c = a + b;
  return c * gv - b * gu - a * gw >= a * b * c;
}

// The first x at which column w's parabola is strictly below column v's (v < w). May be negative
// or beyond the row.
TRTSEG_HD inline i64 first_closer(i64 v, i64 gv, i64 w, i64 gw) {
  const i64 numerator = w * w + gw - v * v - gv, denominator = 2 * (w - v);
  // floor(n / d) + 1: the first integer strictly past the crossing.
  i64 q = numerator / denominator;
  if (numerator % denominator < 0) --q;
  return q + 1;
}

// Correctly rounded root of a squared distance. Below 2^24 the float is exact, and so is its root's
// rounding; above, the root is taken in double.
TRTSEG_HD inline float exact_root(std::int32_t squared) {
  return squared < (1 << 24) ? sqrtf(static_cast<float>(squared))
                             : static_cast<float>(sqrt(static_cast<double>(squared)));
}

// mask [H, W] (nonzero is True) and out [H, W], rows may be strided. limit > 0, may be infinite:
// out = min(limit, distance). Where no True pixel exists: out = limit.
// scratch: at least distance_transform_scratch(H, W) bytes, aligned to 16, contents irrelevant.
i64 distance_transform_scratch(i64 height, i64 width);
void distance_transform(View<const std::uint8_t, 2> mask, View<float, 2> out,
                        View<std::uint8_t, 1> scratch, float limit, Stream stream);

}  // namespace trtseg
