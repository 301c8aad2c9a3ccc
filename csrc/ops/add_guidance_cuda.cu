// Bytes of the forward pass, with s the size of T: (2 C + G) s a pixel, base and out once each and
// the guidance once, for it stays in registers while a thread walks over the channels.
#include "core/check.cuh"
#include "core/pack.cuh"
#include "core/reduce.cuh"
#include "ops/add_guidance.h"

namespace trtseg {

static constexpr int kThreads = 256;

// What both passes share: the maps as [channels, pixels].
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
static __global__ void __launch_bounds__(kThreads) forward_kernel(Planes<T> in, T* out, int chunk) {
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

// Channels last: a tile of 32 channels by 64 pixels turns in shared memory, so that both reads
// (along pixels) and writes (along channels) are contiguous. The odd pitch spreads the banks.
static constexpr int kTileChannels = 32, kTilePixels = 64;

template <class T, int kMaps>
static __global__ void __launch_bounds__(kThreads)
    forward_channels_last_kernel(Planes<T> in, T* __restrict__ out) {
  __shared__ float tile[kTileChannels][kTilePixels + 1];
  const int px = static_cast<int>(threadIdx.x) % kTilePixels;
  const i64 first = static_cast<i64>(blockIdx.y) * kTileChannels;
  const i64 origin = static_cast<i64>(blockIdx.x) * kTilePixels, p = origin + px;
  if (p < in.pixels) {
    float guidance[kMaps][1];
    load_guidance(in, p, guidance);
#pragma unroll 4
    for (int k = static_cast<int>(threadIdx.x) / kTilePixels; k < kTileChannels;
         k += kThreads / kTilePixels) {
      if (first + k >= in.channels) break;
      float sum[1] = {to_float(in.base[(first + k) * in.pixels + p])};
      add_to(in, first + k, guidance, sum);
      tile[k][px] = leaky_relu(sum[0], in.slope);
    }
  }
  __syncthreads();
  const i64 c = first + threadIdx.x % kTileChannels;
  if (c >= in.channels) return;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x) / kTileChannels; i < kTilePixels;
       i += kThreads / kTileChannels) {
    if (origin + i >= in.pixels) break;
    out[(origin + i) * in.channels + c] = from_float<T>(tile[c - first][i]);
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
static void forward(const Planes<T>& in, View<T, 3> out, bool channels_last, cudaStream_t on) {
  if (channels_last) {
    const dim3 grid(ceil_div(in.pixels, kTilePixels), ceil_div(in.channels, kTileChannels));
    forward_channels_last_kernel<T, kMaps><<<grid, kThreads, 0, on>>>(in, out.data);
  } else {
    const unsigned blocks = ceil_div(in.pixels, kThreads * N);
    const int chunk = channels_per_block(in.channels, blocks);
    const dim3 grid(blocks, ceil_div(in.channels, chunk));
    forward_kernel<T, N, kMaps><<<grid, kThreads, 0, on>>>(in, out.data, chunk);
  }
  check_cuda(cudaGetLastError(), "add_guidance");
}

template <class T>
static Planes<T> planes(View<const T, 3> base, View<const T, 3> guidance,
                        View<const float, 2> weight, float slope) {
  return {base.data,      guidance.data, weight.data, base.shape[0], base.shape[1] * base.shape[2],
          static_cast<int>(guidance.shape[0]), slope};
}

// Up to five maps, the networks' number, stay in registers with a pack of pixels; more, one by one.
static constexpr int kUsualMaps = 5;

template <class T>
void cuda::add_guidance(View<const T, 3> base, View<const T, 3> guidance,
                        View<const float, 2> weight, View<T, 3> out, float slope,
                        bool channels_last, Stream stream) {
  constexpr int N = kPack<T>;
  const cudaStream_t on = cuda_stream(stream);
  const Planes<T> in = planes(base, guidance, weight, slope);
  const bool packed = in.pixels % N == 0 && is_packable<N>(base.data) &&
                      is_packable<N>(guidance.data) && is_packable<N>(out.data);
  if (in.maps > kUsualMaps) {
    forward<T, 1, kMaxGuidance>(in, out, channels_last, on);
  } else if (packed) {
    forward<T, N, kUsualMaps>(in, out, channels_last, on);
  } else {
    forward<T, 1, kUsualMaps>(in, out, channels_last, on);
  }
}

// Backward: (3 C + G) s bytes a pixel. A block takes kSlab pixels, small enough that the guidance
// stays in the first-level cache, of kSlabChannels channels; each warp keeps its sums of a channel
// to itself, and they meet once, at the end. A second kernel adds the slabs.
static constexpr int kSlab = 4096;
static constexpr int kSlabChannels = 8;
static constexpr int kWarps = kThreads / 32;

template <class T, int N, int kMaps>
static __global__ void __launch_bounds__(kThreads, 2)  // else the compiler spills for a third block
    backward_kernel(Planes<T> in, const T* __restrict__ grad, T* __restrict__ base_grad,
                    float* __restrict__ partial) {
  __shared__ float sums[kWarps][kSlabChannels * kMaps];
  const i64 first = static_cast<i64>(blockIdx.y) * kSlabChannels;
  const i64 begin = static_cast<i64>(blockIdx.x) * kSlab;
  const i64 end = begin + kSlab < in.pixels ? begin + kSlab : in.pixels;
  for (int k = 0; k < kSlabChannels && first + k < in.channels; ++k) {
    const i64 plane = (first + k) * in.pixels;
    float share[kMaps] = {};
    for (i64 p = begin + static_cast<i64>(threadIdx.x) * N; p < end; p += kThreads * N) {
      const Pack<T, N> base = load_pack<N>(in.base + plane + p);
      const Pack<T, N> above = load_pack<N>(grad + plane + p);
      float guidance[kMaps][N], value[N];
      load_guidance(in, p, guidance);
#pragma unroll
      for (int i = 0; i < N; ++i) value[i] = to_float(base.value[i]);
      add_to(in, first + k, guidance, value);
      Pack<T, N> result;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        value[i] = to_float(above.value[i]) * leaky_relu_share(value[i], in.slope);
        result.value[i] = from_float<T>(value[i]);
      }
      store_pack(base_grad + plane + p, result);
#pragma unroll
      for (int g = 0; g < kMaps; ++g) {
        if (g >= in.maps) continue;
#pragma unroll
        for (int i = 0; i < N; ++i) share[g] += value[i] * guidance[g][i];
      }
    }
#pragma unroll
    for (int g = 0; g < kMaps; ++g) {
      const float sum = warp_sum(share[g]);
      if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32][k * kMaps + g] = sum;
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kSlabChannels * in.maps; i += kThreads) {
    const int k = i / in.maps, g = i % in.maps;
    if (first + k >= in.channels) break;
    float sum = 0.0f;
    for (int warp = 0; warp < kWarps; ++warp) sum += sums[warp][k * kMaps + g];
    partial[((first + k) * in.maps + g) * gridDim.x + blockIdx.x] = sum;
  }
}

// weight_grad[i] = sum of row i of `partial` [C G, slabs]; a warp takes a row.
static __global__ void __launch_bounds__(128)
    add_slabs(const float* __restrict__ partial, float* __restrict__ weight_grad, i64 rows,
              i64 slabs) {
  const i64 row = static_cast<i64>(blockIdx.x) * 4 + threadIdx.x / 32;
  if (row >= rows) return;  // the whole warp
  float sum = 0.0f;
  for (i64 i = threadIdx.x % 32; i < slabs; i += 32) sum += partial[row * slabs + i];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) weight_grad[row] = sum;
}

i64 cuda::add_guidance_backward_scratch(i64 channels, i64 guidance, i64 height, i64 width) {
  return channels * guidance * ((height * width + kSlab - 1) / kSlab) *
         static_cast<i64>(sizeof(float));
}

template <class T>
void cuda::add_guidance_backward(View<const T, 3> grad, View<const T, 3> base,
                                 View<const T, 3> guidance, View<const float, 2> weight,
                                 float slope, View<T, 3> base_grad, View<float, 2> weight_grad,
                                 View<std::uint8_t, 1> scratch, Stream stream) {
  constexpr int N = kPack<T>;
  const cudaStream_t on = cuda_stream(stream);
  const Planes<T> in = planes(base, guidance, weight, slope);
  float* partial = reinterpret_cast<float*>(scratch.data);
  const bool packed = in.pixels % N == 0 && is_packable<N>(base.data) &&
                      is_packable<N>(guidance.data) && is_packable<N>(grad.data) &&
                      is_packable<N>(base_grad.data);
  const dim3 grid(ceil_div(in.pixels, kSlab), ceil_div(in.channels, kSlabChannels));
  if (in.maps > kUsualMaps) {
    backward_kernel<T, 1, kMaxGuidance>
        <<<grid, kThreads, 0, on>>>(in, grad.data, base_grad.data, partial);
  } else if (packed) {
    backward_kernel<T, N, kUsualMaps>
        <<<grid, kThreads, 0, on>>>(in, grad.data, base_grad.data, partial);
  } else {
    backward_kernel<T, 1, kUsualMaps>
        <<<grid, kThreads, 0, on>>>(in, grad.data, base_grad.data, partial);
  }
  check_cuda(cudaGetLastError(), "add_guidance_backward");
  const i64 rows = in.channels * in.maps;
  add_slabs<<<ceil_div(rows, 4), 128, 0, on>>>(partial, weight_grad.data, rows, grid.x);
  check_cuda(cudaGetLastError(), "add_guidance_backward");
}

#define INSTANTIATE(T)                                                                           \
  template void cuda::add_guidance<T>(View<const T, 3>, View<const T, 3>, View<const float, 2>,  \
                                      View<T, 3>, float, bool, Stream);                          \
  template void cuda::add_guidance_backward<T>(                                                  \
      View<const T, 3>, View<const T, 3>, View<const T, 3>, View<const float, 2>, float,         \
      View<T, 3>, View<float, 2>, View<std::uint8_t, 1>, Stream);
INSTANTIATE(float)
INSTANTIATE(half)
#undef INSTANTIATE

}  // namespace trtseg
