// A map is upsampled along the edges of an image: the guided filter (He, Sun, Tang 2013) with its
// model at low resolution (He, Sun 2015).
#pragma once

#include "core/bilinear.h"
#include "core/half.h"
#include "core/view.h"

namespace trtseg {

// Around a cell the map is taken for slope * guide + constant; `mean` is the guide's.
struct GuidedModel {
  float slope, mean;
};

// The least squares fit over a cell's window of 3 x 3.
TRTSEG_HD inline GuidedModel guided_model(const float (&values)[9], const float (&guide)[9],
                                          float epsilon) {
  constexpr float share = 1.0f / 9.0f;
  float value = 0.0f, mean = 0.0f;
  for (int i = 0; i < 9; ++i) {
    value += values[i];
    mean += guide[i];
  }
  value *= share;
  mean *= share;
  float covariance = 0.0f, variance = 0.0f;
  for (int i = 0; i < 9; ++i) {
    const float apart = guide[i] - mean;
    covariance += (values[i] - value) * apart;
    variance += apart * apart;
  }
  return {covariance * share / (variance * share + epsilon), mean};
}

// All but `guide` upsampled to where that is. What the window's fit leaves of the map is kept, so
// that a guide without detail gives the bilinear answer.
TRTSEG_HD inline float guided_value(float value, float slope, float mean, float guide) {
  const float found = value + slope * (guide - mean);
  return found < 0.0f ? 0.0f : found > 1.0f ? 1.0f : found;
}

// values [h, w] within [0, 1]; coarse [h, w] the guide at that size; guide [H, W]. model [2, h, w]
// receives the slopes and the means, windows going on with the outermost cells; out [H, W] the map.
// Rows may be strided. epsilon > 0, the variance of the guide from which on it is an edge. T: float,
// half.
template <class T>
void guided_upsample(View<const T, 2> values, View<const float, 2> coarse,
                     View<const float, 2> guide, float epsilon, View<float, 3> model,
                     View<float, 2> out, Stream stream);

}  // namespace trtseg
