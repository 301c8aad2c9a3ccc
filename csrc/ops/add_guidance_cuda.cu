// Bytes, with s the size of T: (2 C + G) s a pixel, base and out once each and the guidance once,
// the rest from the caches.
#include "core/channels.cuh"
#include "core/check.cuh"
#include "ops/add_guidance.h"

namespace trtseg {

const bool kAddGuidanceTakesChannelsLast = true;

static constexpr int kThreads = 256;
// A thread takes a pack of channels of so many pixels: all loads, then all stores. `out` may be the
// base, so the compiler could not move a load across a store by itself.
static constexpr int kPixels = 4;

template <class T, bool kPacked>
static __global__ void __launch_bounds__(kThreads)
    add_guidance_kernel(View<const T, 3> base, View<const T, 3> guidance,
                        View<const float, 2> weight, View<T, 3> out, float slope) {
  constexpr int N = kPack<T>;
  const int maps = static_cast<int>(guidance.shape[0]);
  __shared__ Pack<float, 4> weights[kMaxGuidance][kPacksAcross * N / 4];  // of this block's channels
  const int channels = blockDim.x * N;
  const i64 first = static_cast<i64>(blockIdx.y) * channels;
  for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < maps * channels;
       i += blockDim.x * blockDim.y) {
    const int g = i / channels, k = i % channels;
    weights[g][k / 4].value[k % 4] = first + k < base.shape[0] ? weight(first + k, g) : 0.0f;
  }
  __syncthreads();

  const i64 pixels = base.shape[1] * base.shape[2];
  const i64 p0 = static_cast<i64>(blockIdx.x) * blockDim.y * kPixels + threadIdx.y;
  const Channels<kPacked, N> at(base.shape[0]);
  if (at.count == 0) return;
  // pixels beyond the last are read as the last, not written
  i64 p[kPixels];
  float sum[kPixels][N];
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
    p[i] = p0 + i * blockDim.y < pixels ? p0 + i * blockDim.y : pixels - 1;
    at.read(base, 0, p[i], sum[i]);
  }
  for (int g = 0; g < maps; ++g) {
    const Pack<float, 4>* w = &weights[g][threadIdx.x * N / 4];
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      const float value = to_float(guidance.row(g, 0)[p[i]]);
#pragma unroll
      for (int k = 0; k < N; ++k) sum[i][k] += w[k / 4].value[k % 4] * value;
    }
  }
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
#pragma unroll
    for (int k = 0; k < N; ++k) sum[i][k] = leaky_relu(sum[i][k], slope);
    if (p0 + i * blockDim.y < pixels) at.write(out, 0, p[i], sum[i]);
  }
}

template <class T, bool kPacked>
static void launch(View<const T, 3> base, View<const T, 3> guidance, View<const float, 2> weight,
                   View<T, 3> out, float slope, cudaStream_t on) {
  constexpr int N = kPack<T>;
  const dim3 block = block_of_packs<kPacked, N>(base.shape[0], kThreads);
  const dim3 grid(ceil_div(base.shape[1] * base.shape[2], block.y * kPixels),
                  ceil_div(base.shape[0], block.x * N));
  add_guidance_kernel<T, kPacked><<<grid, block, 0, on>>>(base, guidance, weight, out, slope);
  check_cuda(cudaGetLastError(), "add_guidance");
}

template <class T>
void add_guidance(View<const T, 3> base, View<const T, 3> guidance, View<const float, 2> weight,
                  View<T, 3> out, float slope, Stream stream) {
  const cudaStream_t on = cuda_stream(stream);
  if (has_packs<kPack<T>>(base) && has_packs<kPack<T>>(out)) {
    launch<T, true>(base, guidance, weight, out, slope, on);
  } else {
    launch<T, false>(base, guidance, weight, out, slope, on);
  }
}

TRTSEG_FLOATS(add_guidance);

}  // namespace trtseg
