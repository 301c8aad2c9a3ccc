// What a click adds to the image's encoding: leaky_relu(base + weight . guidance).
#pragma once

#include "core/half.h"
#include "core/view.h"

namespace trtseg {

// Guidance maps per call, at most.
constexpr i64 kMaxGuidance = 16;

TRTSEG_HD inline float leaky_relu(float x, float slope) { return x > 0.0f ? x : slope * x; }

// base [C, H, W], guidance [G, H, W] with G of 1 .. kMaxGuidance, weight [C, G], out [C, H, W], which
// may be `base` itself. Sum in float: base, then guidance 0, 1, ... All arrays are C-contiguous;
// where the backend takes it, base and out may be channels-last instead, both. T: float, half.
extern const bool kAddGuidanceTakesChannelsLast;

template <class T>
void add_guidance(View<const T, 3> base, View<const T, 3> guidance, View<const float, 2> weight,
                  View<T, 3> out, float slope, Stream stream);

}  // namespace trtseg
