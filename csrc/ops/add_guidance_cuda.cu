// Bytes, with s the size of T: (2 C + G) s a pixel, base and out once each and
// the guidance once, for it stays in registers while a thread walks over the channels.
#include "core/check.cuh"
#include "core/pack.cuh"
#include "ops/add_guidance.h"

namespace trtseg {

static constexpr int kThreads = 256;

// The maps as [channels, pixels].
template <class T>
struct Planes {
  const T* base;
  const T* guidance;
  const float* weight;  // [C, G]
  i64 channels, pixels;
  int maps;  // G
  float slope;
};

// kMaps registers a pixel hold the guidance; maps beyond `maps` are never touched.
template <class T, int N, int kMaps>
static __device__ void load_guidance(const Planes<T>& in, i64 p, float (&guidance)[kMaps][N]) {
#pragma unroll
  for (int g = 0; g < kMaps; ++g) {
    if (g >= in.maps) continue;
    const Pack<T, N> pack = load_pack<N>(in.guidance + g * in.pixels + p);
#pragma unroll
    for (int i = 0; i < N; ++i) guidance[g][i] = to_float(pack.value[i]);
  }
}

template <class T, int N, int kMaps>
static __device__ void add_to(const Planes<T>& in, i64 c, const float (&guidance)[kMaps][N],
                              float (&sum)[N]) {
#pragma unroll
  for (int g = 0; g < kMaps; ++g) {
    if (g >= in.maps) continue;
    const float w = in.weight[c * in.maps + g];
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += w * guidance[g][i];
  }
}

// A thread takes N pixels of `chunk` channels, kStep at a time: all loads, then all stores. `out`
// may be the base, so the compiler could not move a load across a store by itself.
static constexpr int kStep = 4;

template <class T, int N, int kMaps>
static __global__ void __launch_bounds__(kThreads)
    add_guidance_kernel(Planes<T> in, T* out, int chunk) {
  const i64 p = (static_cast<i64>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (p >= in.pixels) return;
  float guidance[kMaps][N];
  load_guidance(in, p, guidance);
  const i64 first = static_cast<i64>(blockIdx.y) * chunk;
  const i64 end = first + chunk < in.channels ? first + chunk : in.channels;
  for (i64 c = first; c < end; c += kStep) {
    Pack<T, N> pack[kStep];
#pragma unroll
    for (int k = 0; k < kStep; ++k) {
      if (c + k < end) pack[k] = load_pack<N>(in.base + (c + k) * in.pixels + p);
    }
#pragma unroll
    for (int k = 0; k < kStep; ++k) {
      if (c + k >= end) continue;
      float sum[N];
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] = to_float(pack[k].value[i]);
      add_to(in, c + k, guidance, sum);
#pragma unroll
      for (int i = 0; i < N; ++i) pack[k].value[i] = from_float<T>(leaky_relu(sum[i], in.slope));
    }
#pragma unroll
    for (int k = 0; k < kStep; ++k) {
      if (c + k < end) store_pack(out + (c + k) * in.pixels + p, pack[k]);
    }
  }
}

// Channels of one thread: all, unless that leaves the device with few blocks. Depends on the sizes
// alone.
static int channels_per_block(i64 channels, i64 pixel_blocks) {
  i64 chunk = channels;
  while (chunk > 4 && pixel_blocks * ((channels + chunk - 1) / chunk) < 1024) {
    chunk = (chunk + 1) / 2;
  }
  return static_cast<int>(chunk);
}

template <class T, int N, int kMaps>
static void launch(const Planes<T>& in, View<T, 3> out, cudaStream_t on) {
  const unsigned blocks = ceil_div(in.pixels, kThreads * N);
  const int chunk = channels_per_block(in.channels, blocks);
  const dim3 grid(blocks, ceil_div(in.channels, chunk));
  add_guidance_kernel<T, N, kMaps><<<grid, kThreads, 0, on>>>(in, out.data, chunk);
  check_cuda(cudaGetLastError(), "add_guidance");
}

// Up to six maps, the networks' number, stay in registers with a pack of pixels; more, one by one.
static constexpr int kUsualMaps = 6;

template <class T>
void add_guidance(View<const T, 3> base, View<const T, 3> guidance, View<const float, 2> weight,
                  View<T, 3> out, float slope, Stream stream) {
  constexpr int N = kPack<T>;
  const cudaStream_t on = cuda_stream(stream);
  const Planes<T> in{base.data,     guidance.data, weight.data,
                     base.shape[0], base.shape[1] * base.shape[2],
                     static_cast<int>(guidance.shape[0]), slope};
  const bool packed = in.pixels % N == 0 && is_packable<N>(base.data) &&
                      is_packable<N>(guidance.data) && is_packable<N>(out.data);
  if (in.maps > kUsualMaps) {
    launch<T, 1, kMaxGuidance>(in, out, on);
  } else if (packed) {
    launch<T, N, kUsualMaps>(in, out, on);
  } else {
    launch<T, 1, kUsualMaps>(in, out, on);
  }
}

template void add_guidance<float>(View<const float, 3>, View<const float, 3>,
                                  View<const float, 2>, View<float, 3>, float, Stream);
template void add_guidance<half>(View<const half, 3>, View<const half, 3>, View<const float, 2>,
                                 View<half, 3>, float, Stream);

}  // namespace trtseg
