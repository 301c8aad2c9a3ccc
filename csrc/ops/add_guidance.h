// What a click adds to the image's encoding: leaky_relu(base + weight . guidance).
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/view.h"

namespace trtseg {

// Guidance maps per call, at most.
constexpr i64 kMaxGuidance = 16;

TRTSEG_HD inline float leaky_relu(float x, float slope) { return x > 0.0f ? x : slope * x; }

// The factor that the gradient takes through leaky_relu at x; `slope` at 0, as torch does.
TRTSEG_HD inline float leaky_relu_share(float x, float slope) { return x > 0.0f ? 1.0f : slope; }

// base [C, H, W], guidance [G, H, W] with G of 1 .. kMaxGuidance, weight [C, G].
// out: [C, H, W], or [H, W, C] when `channels_last`. Sum in float: base, then guidance 0, 1, ...
// All arrays are C-contiguous. T: float, half.
//
// Backward, for grad [C, H, W]: base_grad [C, H, W] = grad * leaky_relu_share(base + weight .
// guidance), and weight_grad [C, G] = sum over pixels of that times guidance (not rounded to T
// before the sum), reduced in a fixed order. scratch: add_guidance_backward_scratch bytes, aligned
// to 16.
namespace cpu {
template <class T>
void add_guidance(View<const T, 3> base, View<const T, 3> guidance, View<const float, 2> weight,
                  View<T, 3> out, float slope, bool channels_last, Stream stream);
i64 add_guidance_backward_scratch(i64 channels, i64 guidance, i64 height, i64 width);
template <class T>
void add_guidance_backward(View<const T, 3> grad, View<const T, 3> base, View<const T, 3> guidance,
                           View<const float, 2> weight, float slope, View<T, 3> base_grad,
                           View<float, 2> weight_grad, View<std::uint8_t, 1> scratch,
                           Stream stream);
}  // namespace cpu
namespace cuda {
template <class T>
void add_guidance(View<const T, 3> base, View<const T, 3> guidance, View<const float, 2> weight,
                  View<T, 3> out, float slope, bool channels_last, Stream stream);
i64 add_guidance_backward_scratch(i64 channels, i64 guidance, i64 height, i64 width);
template <class T>
void add_guidance_backward(View<const T, 3> grad, View<const T, 3> base, View<const T, 3> guidance,
                           View<const float, 2> weight, float slope, View<T, 3> base_grad,
                           View<float, 2> weight_grad, View<std::uint8_t, 1> scratch,
                           Stream stream);
}  // namespace cuda

}  // namespace trtseg
