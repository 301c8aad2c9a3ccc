// An image as its owner has it becomes the encoder's input: resized, in RGB order, normalised.
#pragma once

#include <cstdint>

#include "core/bilinear.h"
#include "core/half.h"
#include "core/view.h"

namespace trtseg {

// Output position i of an axis reads the source positions begin .. last with these weights, and
// all between the two with weight 1; times `share`.
struct Window {
  i64 begin, last;
  float first_weight, last_weight, share;
};

// An axis that shrinks takes the mean of what lies under the output pixel; one that grows is
// interpolated linearly between pixel centres.
TRTSEG_HD inline Window make_window(i64 i, i64 source, i64 output) {
  if (source <= output) {
    const Tap tap = make_tap(i, tap_scale(source, output), source);
    if (tap.first == tap.second) return {tap.first, tap.first, 1.0f, 0.0f, 1.0f};
    return {tap.first, tap.second, 1.0f - tap.weight, tap.weight, 1.0f};
  }
  const float width = static_cast<float>(output);
  const i64 low = i * source, high = low + source;  // in 1/output of a source pixel
  Window window;
  window.begin = low / output;
  window.first_weight = 1.0f - static_cast<float>(low % output) / width;
  window.last = high / output;
  window.last_weight = static_cast<float>(high % output) / width;
  if (high % output == 0) {  // ends where a pixel ends
    --window.last;
    window.last_weight = 1.0f;
  }
  window.share = width / static_cast<float>(source);
  return window;
}

TRTSEG_HD inline float window_weight(const Window& window, i64 j) {
  return j == window.begin ? window.first_weight : j == window.last ? window.last_weight : 1.0f;
}

TRTSEG_HD inline float pixel_value(std::uint8_t value) { return static_cast<float>(value); }
TRTSEG_HD inline float pixel_value(std::uint16_t value) { return static_cast<float>(value); }
TRTSEG_HD inline float pixel_value(float value) { return value; }
TRTSEG_HD inline float pixel_value(half value) { return to_float(value); }

struct Preparation {
  float mean[3], scale[3];  // RGB, for values of 0 .. 255
  float full;               // what is white, or opaque, in the source: 255, 65535 or 1
  bool bgr;                 // the source's order of channels
};

struct Colour {
  float channel[3];
};

// The output pixel over these rows and columns. Where the source is transparent it takes the mean.
template <class S>
TRTSEG_HD inline Colour prepared(View<const S, 3> pixels, const Preparation& with,
                                 const Window& rows, const Window& columns) {
  const i64 channels = pixels.shape[2];
  float sum[3] = {0.0f, 0.0f, 0.0f}, opaque = 0.0f;
  for (i64 j = rows.begin; j <= rows.last; ++j) {
    float line[3] = {0.0f, 0.0f, 0.0f}, line_opaque = 0.0f;
    for (i64 i = columns.begin; i <= columns.last; ++i) {
      const S* pixel = pixels.row(j, i);
      float weight = window_weight(columns, i);
      if (channels == 4) {
        weight *= pixel_value(pixel[3]) / with.full;
        line_opaque += weight;
      }
      for (int c = 0; c < 3; ++c) {
        line[c] += weight * pixel_value(pixel[channels == 1 ? 0 : with.bgr ? 2 - c : c]);
      }
    }
    const float weight = window_weight(rows, j);
    for (int c = 0; c < 3; ++c) sum[c] += weight * line[c];
    opaque += weight * line_opaque;
  }
  const float share = rows.share * columns.share, unit = share * (255.0f / with.full);
  Colour colour;
  for (int c = 0; c < 3; ++c) {
    const float ground = channels == 4 ? with.mean[c] * (1.0f - opaque * share) : 0.0f;
    colour.channel[c] = (sum[c] * unit + ground - with.mean[c]) * with.scale[c];
  }
  return colour;
}

// pixels [H, W, 1, 3 or 4], rows and pixels may be strided, the fourth channel is alpha; out [3, h,
// w], RGB. S: uint8, uint16 (0 .. all bits set), float, half (0 .. 1); T: float, half.
template <class S, class T>
void prepare_image(View<const S, 3> pixels, Preparation with, View<T, 3> out, Stream stream);

}  // namespace trtseg
