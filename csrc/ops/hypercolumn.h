// The sum of the bilinear upsamplings of projected levels, plus an optional full-resolution term:
// sum_l up(level_l) + image_weight . image + bias. The concatenated tensor never exists.
#pragma once

#include "core/bilinear.h"
#include "core/half.h"
#include "core/view.h"

namespace trtseg {

// levels: 1 .. kMaxLevels maps [C, h_l, w_l] of any size; out [C, H, W]. image [3, H, W] with
// image_weight [C, 3], and bias [C], are optional (null); image and image_weight come together.
// Order of the sum, in float: bias, then image channels 0, 1, 2, then levels 0, 1, ...
// Every array may have strided rows and planes; where the backend takes it, levels and `out` may be
// channels-last instead, all of them. `out` shares no memory with what is read. T: float, half.
extern const bool kHypercolumnTakesChannelsLast;

template <class T>
void hypercolumn(Levels<const T> levels, View<const T, 3> image, View<const float, 2> image_weight,
                 View<const float, 1> bias, View<T, 3> out, Stream stream);

}  // namespace trtseg
