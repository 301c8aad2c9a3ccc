// Per mask: the relaxed Jaccard loss 1 - sum min(A, B) / sum max(A, B) (LD eq. 3) and the penalty of
// the clicks that the mask disobeys (LD eq. 4).
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/view.h"

namespace trtseg {

// Masks per call, at most.
constexpr i64 kMaxMasks = 32;

// Values of `target`; any other value counts as object.
constexpr std::uint8_t kBackground = 0;
constexpr std::uint8_t kIgnore = 255;

// One pixel's share of the two sums. With A of 0 or 1 and B in [0, 1], min is A * B and max is
// A + (1 - A) * B; in this form the gradient is defined at B = 0 and B = 1 too.
TRTSEG_HD inline float jaccard_intersection(float mask, int target) {
  return target == kBackground || target == kIgnore ? 0.0f : mask;
}
TRTSEG_HD inline float jaccard_union(float mask, int target) {
  return target == kIgnore ? 0.0f : target == kBackground ? mask : 1.0f;
}

// 0 if prediction and target are both empty. NaN in a mask stays NaN: it must not pass as no loss.
TRTSEG_HD inline float jaccard_loss(float intersection, float union_) {
  return union_ == 0.0f ? 0.0f : 1.0f - intersection / union_;
}

// d loss / d mask for a pixel of the object, of the background.
TRTSEG_HD inline float jaccard_object_slope(float union_) {
  return union_ == 0.0f ? 0.0f : -1.0f / union_;
}
TRTSEG_HD inline float jaccard_background_slope(float intersection, float union_) {
  return union_ == 0.0f ? 0.0f : intersection / union_ / union_;
}
// Which of the two a pixel has; an ignored one has none.
TRTSEG_HD inline float jaccard_slope(float object, float background, int target) {
  return target == kIgnore ? 0.0f : target == kBackground ? background : object;
}

// masks [M, H, W] with M of 1 .. kMaxMasks; target [H, W]; positive [P, 2] and negative [Q, 2] click
// pixels (y, x), P and Q may be 0; a click outside the map is skipped, one listed twice counts twice,
// one on an ignored pixel counts. loss [M], penalty [M]. sums [M, 2] receives (intersection, union)
// for the backward pass. scratch: jaccard_scratch(M, H, W) bytes, aligned to 16. All arrays are
// C-contiguous. Reductions run in a fixed order that does not depend on the number of threads.
// T: float, half.
//
// Backward: grad [M, H, W] = loss_weight[m] * d loss[m] / d mask + penalty_weight[m] * d penalty[m]
// / d mask. The masks themselves are not read again: the gradient depends on them through sums alone.
i64 jaccard_scratch(i64 masks, i64 height, i64 width);
template <class T>
void jaccard(View<const T, 3> masks, View<const std::uint8_t, 2> target,
             View<const std::int32_t, 2> positive, View<const std::int32_t, 2> negative,
             View<float, 1> loss, View<float, 1> penalty, View<float, 2> sums,
             View<std::uint8_t, 1> scratch, Stream stream);
template <class T>
void jaccard_gradient(View<const std::uint8_t, 2> target, View<const std::int32_t, 2> positive,
                      View<const std::int32_t, 2> negative, View<const float, 2> sums,
                      View<const float, 1> loss_weight, View<const float, 1> penalty_weight,
                      View<T, 3> grad, Stream stream);

}  // namespace trtseg
