// The guidance channels that a user's clicks give: click maps and distance maps (LD eq. 1).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/half.h"
#include "core/view.h"

namespace trtseg {

struct ClickMaps {
  float limit;    // distances are truncated here, in pixels of the maps
  float falloff;  // -1 / (2 sigma^2) of Gaussian click maps; 0 for maps of points
};

// Square of the distance from pixel (y, x) to a point. NaN coordinates give NaN, which loses every
// comparison and so contributes nothing.
TRTSEG_HD inline float squared_distance(float point_y, float point_x, float y, float x) {
  const float dy = point_y - y, dx = point_x - x;
  return dy * dy + dx * dx;
}

// min(limit, root of the square).
TRTSEG_HD inline float truncated_root(float squared, float limit) {
  const float distance = sqrtf(squared);
  return distance < limit ? distance : limit;
}

// exp(x) for x <= 0 within two units in the last place, and 0 where that is no normal float. Of
// multiplications and additions alone: it vectorises, and every backend computes the same bits.
TRTSEG_HD inline float exp_of_negative(float x) {
  const bool vanishes = x < -87.0f;
  x = vanishes ? -87.0f : x;
  // x = n ln 2 + r with |r| <= ln 2 / 2; adding 1.5 2^23 rounds to an integer, in the last bits.
  const float shifted = x * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = (p * (r * r) + r) + 1.0f;
  std::uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits - 0x4b400000u + 127u) << 23;  // 2^n
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return vanishes ? 0.0f : p * scale;
}

// A Gaussian S where the nearest click is at this truncated distance.
TRTSEG_HD inline float click_bump(float distance, float falloff) {
  return exp_of_negative(distance * distance * falloff);
}

// The pixel of an axis on which a click lies, as a float; clicks beyond the map lie on its border.
TRTSEG_HD inline float click_cell(float click, i64 size) {
  float cell = floorf(click + 0.5f);
  cell = cell > 0.0f ? cell : 0.0f;
  const float last = static_cast<float>(size - 1);
  return cell < last ? cell : last;
}

// points [2, N, 2]: positive and negative clicks, (y, x) in pixels of the maps; N may be 0, and a
// point of NaN is none, so that a list of fixed length holds any number of clicks. out [4, H, W]:
// S_p, S_n (1 on a click, or exp(falloff d^2)), T_p, T_n (d / limit). T: float, half.
template <class T>
void click_maps(View<const float, 3> points, ClickMaps with, View<T, 3> out, Stream stream);

}  // namespace trtseg
