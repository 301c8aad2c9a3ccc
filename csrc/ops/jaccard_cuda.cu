// Bytes, with s the size of T: M s + 1 a pixel each way. Target and masks are read once forward;
// backward reads the target and writes the gradient. The two sums of each mask are reduced in two
// stages whose shape depends on the sizes alone.
#include "core/check.cuh"
#include "core/pack.cuh"
#include "core/reduce.cuh"
#include "ops/jaccard.h"

namespace trtseg {

static constexpr int kThreads = 256;
static constexpr int kGroup = 8;    // pixels that a thread takes at a time, packed or not
static constexpr int kChunk = 8;    // masks whose sums a thread holds
static constexpr i64 kBlocks = 1024;  // of the first stage, at most

static i64 sum_blocks(i64 pixels) {
  const i64 blocks = (pixels + kThreads * kGroup - 1) / (kThreads * kGroup);
  return blocks < kBlocks ? blocks : kBlocks;
}

// Up to kGroup pixels from p on; those past the end are `beyond`.
template <class T>
static __device__ void load_group(const T* data, i64 p, i64 pixels, bool packed, T beyond,
                                  T (&group)[kGroup]) {
  constexpr int N = sizeof(T) * kGroup <= 16 ? kGroup : kPack<T>;
  if (packed && p + kGroup <= pixels) {
#pragma unroll
    for (int j = 0; j < kGroup; j += N) {
      const Pack<T, N> pack = load_pack<N>(data + p + j);
#pragma unroll
      for (int i = 0; i < N; ++i) group[j + i] = pack.value[i];
    }
  } else {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) group[i] = p + i < pixels ? data[p + i] : beyond;
  }
}

template <class T>
static __device__ void store_group(T* data, i64 p, i64 pixels, bool packed,
                                   const T (&group)[kGroup]) {
  constexpr int N = sizeof(T) * kGroup <= 16 ? kGroup : kPack<T>;
  if (packed && p + kGroup <= pixels) {
#pragma unroll
    for (int j = 0; j < kGroup; j += N) {
      Pack<T, N> pack;
#pragma unroll
      for (int i = 0; i < N; ++i) pack.value[i] = group[j + i];
      store_pack(data + p + j, pack);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      if (p + i < pixels) data[p + i] = group[i];
    }
  }
}

template <class T>
static bool whole_groups(const T* maps, const std::uint8_t* target, i64 pixels) {
  constexpr int N = sizeof(T) * kGroup <= 16 ? kGroup : kPack<T>;
  return pixels % kGroup == 0 && is_packable<N>(maps) && is_packable<kGroup>(target);
}

// partial [M, blocks, 2]. blockIdx.y names kChunk masks.
template <class T>
static __global__ void __launch_bounds__(kThreads)
    sum_kernel(const T* __restrict__ masks, const std::uint8_t* __restrict__ target, int count,
               i64 pixels, bool packed, float* __restrict__ partial) {
  __shared__ float warps[kThreads / 32];
  const int first = static_cast<int>(blockIdx.y) * kChunk;
  float intersection[kChunk] = {}, union_[kChunk] = {};
  for (i64 p = (static_cast<i64>(blockIdx.x) * kThreads + threadIdx.x) * kGroup; p < pixels;
       p += static_cast<i64>(gridDim.x) * kThreads * kGroup) {
    std::uint8_t object[kGroup];
    load_group<std::uint8_t>(target, p, pixels, packed, kIgnore, object);
#pragma unroll
    for (int m = 0; m < kChunk; ++m) {
      if (first + m >= count) continue;
      T mask[kGroup];
      load_group<T>(masks + (first + m) * pixels, p, pixels, packed, T{}, mask);
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        intersection[m] += jaccard_intersection(to_float(mask[i]), object[i]);
        union_[m] += jaccard_union(to_float(mask[i]), object[i]);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kChunk; ++m) {
    if (first + m >= count) continue;  // alike for the whole block
    const float i = block_sum<kThreads>(intersection[m], warps);
    const float u = block_sum<kThreads>(union_[m], warps);
    if (threadIdx.x == 0) {
      float* out = partial + ((first + m) * static_cast<i64>(gridDim.x) + blockIdx.x) * 2;
      out[0] = i;
      out[1] = u;
    }
  }
}

static __device__ bool is_inside(View<const std::int32_t, 2> clicks, i64 i, i64 height, i64 width) {
  return clicks(i, 0) >= 0 && clicks(i, 0) < height && clicks(i, 1) >= 0 && clicks(i, 1) < width;
}

// One block a mask: adds the blocks' sums and looks at the clicks.
template <class T>
static __global__ void __launch_bounds__(kThreads)
    finish_kernel(View<const T, 3> masks, View<const std::int32_t, 2> positive,
                  View<const std::int32_t, 2> negative, const float* __restrict__ partial,
                  i64 blocks, View<float, 1> loss, View<float, 1> penalty, View<float, 2> sums) {
  __shared__ float warps[kThreads / 32];
  const i64 m = blockIdx.x, height = masks.shape[1], width = masks.shape[2];
  float intersection = 0.0f, union_ = 0.0f, disobeyed = 0.0f;
  for (i64 i = threadIdx.x; i < blocks; i += kThreads) {
    intersection += partial[(m * blocks + i) * 2];
    union_ += partial[(m * blocks + i) * 2 + 1];
  }
  for (i64 i = threadIdx.x; i < positive.shape[0]; i += kThreads) {
    if (!is_inside(positive, i, height, width)) continue;
    disobeyed += 1.0f - to_float(masks(m, positive(i, 0), positive(i, 1)));
  }
  for (i64 i = threadIdx.x; i < negative.shape[0]; i += kThreads) {
    if (!is_inside(negative, i, height, width)) continue;
    disobeyed += to_float(masks(m, negative(i, 0), negative(i, 1)));
  }
  intersection = block_sum<kThreads>(intersection, warps);
  union_ = block_sum<kThreads>(union_, warps);
  disobeyed = block_sum<kThreads>(disobeyed, warps);
  if (threadIdx.x != 0) return;
  sums(m, 0) = intersection;
  sums(m, 1) = union_;
  loss(m) = jaccard_loss(intersection, union_);
  penalty(m) = disobeyed;
}

i64 jaccard_scratch(i64 masks, i64 height, i64 width) {
  return masks * sum_blocks(height * width) * 2 * static_cast<i64>(sizeof(float));
}

template <class T>
void jaccard(View<const T, 3> masks, View<const std::uint8_t, 2> target,
                   View<const std::int32_t, 2> positive, View<const std::int32_t, 2> negative,
                   View<float, 1> loss, View<float, 1> penalty, View<float, 2> sums,
                   View<std::uint8_t, 1> scratch, Stream stream) {
  const cudaStream_t on = cuda_stream(stream);
  const int count = static_cast<int>(masks.shape[0]);
  const i64 pixels = masks.shape[1] * masks.shape[2], blocks = sum_blocks(pixels);
  float* partial = reinterpret_cast<float*>(scratch.data);
  const dim3 grid(static_cast<unsigned>(blocks), ceil_div(count, kChunk));
  sum_kernel<T><<<grid, kThreads, 0, on>>>(masks.data, target.data, count, pixels,
                                           whole_groups(masks.data, target.data, pixels), partial);
  check_cuda(cudaGetLastError(), "jaccard");
  finish_kernel<T><<<static_cast<unsigned>(count), kThreads, 0, on>>>(
      masks, positive, negative, partial, blocks, loss, penalty, sums);
  check_cuda(cudaGetLastError(), "jaccard");
}

// What a pixel of a mask adds to the gradient: `object` or `background`, nothing where ignored.
struct Slopes {
  float object, background;
};

static __device__ Slopes mask_slopes(View<const float, 2> sums, View<const float, 1> loss_weight,
                                     i64 m) {
  return {loss_weight(m) * jaccard_object_slope(sums(m, 1)),
          loss_weight(m) * jaccard_background_slope(sums(m, 0), sums(m, 1))};
}

static __device__ float slope_at(Slopes slopes, std::uint8_t target) {
  return jaccard_slope(slopes.object, slopes.background, target);
}

template <class T>
static __global__ void __launch_bounds__(kThreads)
    gradient_kernel(const std::uint8_t* __restrict__ target, View<const float, 2> sums,
                    View<const float, 1> loss_weight, T* __restrict__ grad, int count, i64 pixels,
                    bool packed) {
  __shared__ Slopes slopes[kMaxMasks];
  const int i = static_cast<int>(threadIdx.x);
  if (i < count) slopes[i] = mask_slopes(sums, loss_weight, i);
  __syncthreads();
  const i64 p = (static_cast<i64>(blockIdx.x) * kThreads + threadIdx.x) * kGroup;
  if (p >= pixels) return;
  std::uint8_t object[kGroup];
  load_group<std::uint8_t>(target, p, pixels, packed, kIgnore, object);
  for (int m = 0; m < count; ++m) {
    T value[kGroup];
#pragma unroll
    for (int j = 0; j < kGroup; ++j) value[j] = from_float<T>(slope_at(slopes[m], object[j]));
    store_group<T>(grad + m * pixels, p, pixels, packed, value);
  }
}

// How often a list names pixel (y, x) among its first `end` clicks.
static __device__ int times_named(View<const std::int32_t, 2> clicks, i64 end, int y, int x) {
  int times = 0;
  for (i64 i = 0; i < end; ++i) times += clicks(i, 0) == y && clicks(i, 1) == x ? 1 : 0;
  return times;
}

// One thread for each click and mask. The first that names a pixel writes for all that do, so no
// two threads write to one place, and the value is rounded to T once.
template <class T>
static __global__ void click_kernel(View<const std::uint8_t, 2> target,
                                    View<const std::int32_t, 2> positive,
                                    View<const std::int32_t, 2> negative,
                                    View<const float, 2> sums, View<const float, 1> loss_weight,
                                    View<const float, 1> penalty_weight, View<T, 3> grad) {
  const i64 p = positive.shape[0], q = negative.shape[0], m = blockIdx.y;
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= p + q) return;
  const View<const std::int32_t, 2> mine = i < p ? positive : negative;
  const i64 at = i < p ? i : i - p;
  if (!is_inside(mine, at, grad.shape[1], grad.shape[2])) return;
  const int y = mine(at, 0), x = mine(at, 1);
  const int before = i < p ? times_named(positive, i, y, x)
                           : times_named(positive, p, y, x) + times_named(negative, at, y, x);
  if (before > 0) return;
  const int balance = times_named(negative, q, y, x) - times_named(positive, p, y, x);
  const float slope = slope_at(mask_slopes(sums, loss_weight, m), target(y, x));
  grad(m, y, x) = from_float<T>(slope + penalty_weight(m) * static_cast<float>(balance));
}

template <class T>
void jaccard_gradient(View<const std::uint8_t, 2> target,
                            View<const std::int32_t, 2> positive,
                            View<const std::int32_t, 2> negative, View<const float, 2> sums,
                            View<const float, 1> loss_weight, View<const float, 1> penalty_weight,
                            View<T, 3> grad, Stream stream) {
  const cudaStream_t on = cuda_stream(stream);
  const int count = static_cast<int>(grad.shape[0]);
  const i64 pixels = grad.shape[1] * grad.shape[2];
  const bool packed = whole_groups(grad.data, target.data, pixels);
  gradient_kernel<T><<<ceil_div(pixels, kThreads * kGroup), kThreads, 0, on>>>(
      target.data, sums, loss_weight, grad.data, count, pixels, packed);
  check_cuda(cudaGetLastError(), "jaccard_gradient");
  const i64 clicks = positive.shape[0] + negative.shape[0];
  if (clicks == 0) return;
  const dim3 grid(ceil_div(clicks, 64), static_cast<unsigned>(count));
  click_kernel<T><<<grid, 64, 0, on>>>(target, positive, negative, sums, loss_weight,
                                       penalty_weight, grad);
  check_cuda(cudaGetLastError(), "jaccard_gradient");
}

TRTSEG_FLOATS(jaccard);
TRTSEG_FLOATS(jaccard_gradient);

}  // namespace trtseg
