#include "core/check.cuh"
#include "ops/guided_upsample.h"

namespace trtseg {

static __device__ i64 clamped(i64 i, i64 size) { return i < 0 ? 0 : i < size ? i : size - 1; }

// A thread fits the window of a cell.
template <class T>
static __global__ void guided_model_kernel(View<const T, 2> values, View<const float, 2> coarse,
                                           float epsilon, View<float, 3> model) {
  const i64 height = values.shape[0], width = values.shape[1];
  const i64 x = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (x >= width) return;
  for (i64 y = static_cast<i64>(blockIdx.y) * blockDim.y + threadIdx.y; y < height;
       y += static_cast<i64>(gridDim.y) * blockDim.y) {
    float v[9], g[9];
#pragma unroll
    for (int i = 0; i < 9; ++i) {
      const i64 row = clamped(y + i / 3 - 1, height), column = clamped(x + i % 3 - 1, width);
      v[i] = to_float(values(row, column));
      g[i] = coarse(row, column);
    }
    const GuidedModel found = guided_model(v, g, epsilon);
    model(0, y, x) = found.slope;
    model(1, y, x) = found.mean;
  }
}

// A thread makes a pixel.
template <class T>
static __global__ void guided_kernel(View<const T, 2> values, View<const float, 2> guide,
                                     View<const float, 3> model, float scale_y, float scale_x,
                                     View<float, 2> out) {
  const i64 height = out.shape[0], width = out.shape[1];
  const i64 x = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (x >= width) return;
  const Tap column = make_tap(x, scale_x, values.shape[1]);
  for (i64 y = static_cast<i64>(blockIdx.y) * blockDim.y + threadIdx.y; y < height;
       y += static_cast<i64>(gridDim.y) * blockDim.y) {
    const Tap row = make_tap(y, scale_y, values.shape[0]);
    out(y, x) = guided_value(bilinear_at(values.data, values.stride[0], row, column),
                             bilinear_at(model.row(0, 0), model.stride[1], row, column),
                             bilinear_at(model.row(1, 0), model.stride[1], row, column),
                             guide(y, x));
  }
}

template <class T>
void guided_upsample(View<const T, 2> values, View<const float, 2> coarse,
                     View<const float, 2> guide, float epsilon, View<float, 3> model,
                     View<float, 2> out, Stream stream) {
  const cudaStream_t on = cuda_stream(stream);
  const i64 h = values.shape[0], w = values.shape[1], height = out.shape[0], width = out.shape[1];
  const dim3 block(32, 8), cells(ceil_div(w, 32), row_blocks(h, 8));
  guided_model_kernel<T><<<cells, block, 0, on>>>(values, coarse, epsilon, model);
  check_cuda(cudaGetLastError(), "guided_upsample");
  const View<const float, 3> fitted{
      model.data, {model.shape[0], model.shape[1], model.shape[2]},
      {model.stride[0], model.stride[1], model.stride[2]}};
  const dim3 pixels(ceil_div(width, 32), row_blocks(height, 8));
  guided_kernel<T><<<pixels, block, 0, on>>>(values, guide, fitted, tap_scale(h, height),
                                             tap_scale(w, width), out);
  check_cuda(cudaGetLastError(), "guided_upsample");
}

TRTSEG_FLOATS(guided_upsample);

}  // namespace trtseg
