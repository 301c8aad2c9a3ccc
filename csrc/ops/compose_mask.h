// A low-resolution probability map becomes a mask at the image's own size.
#pragma once

#include <cstdint>

#include "core/bilinear.h"
#include "core/half.h"
#include "core/view.h"

namespace trtseg {

TRTSEG_HD inline std::uint8_t mask_value(float probability, float threshold) {
  return probability >= threshold ? 255 : 0;
}

// probability [h, w]; out [H, W] = 255 where the upsampled probability >= threshold, else 0;
// out_probability [H, W] (optional) the upsampled probability. Rows of every map may be strided.
// T: float, half.
template <class T>
void compose_mask(View<const T, 2> probability, float threshold, View<std::uint8_t, 2> out,
                  View<float, 2> out_probability, Stream stream);

}  // namespace trtseg
