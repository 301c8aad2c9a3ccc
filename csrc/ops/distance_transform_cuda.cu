// Columns: a mask becomes words of 32 rows, in which the nearest True row is a count of zeros.
// Rows: the column whose parabola is lowest at x never moves left as x grows. So anchors 32 pixels
// apart are solved first, coarse to fine, each between the answers of its neighbours; then a warp
// takes the 32 pixels between two anchors and walks over the columns between their answers. All
// walks of a row together pass each column about once: linear in the warp's steps, where the
// sequential envelope of the CPU would leave a row to one thread.
#include <climits>

#include "core/check.cuh"
#include "core/reduce.cuh"
#include "ops/distance_transform.h"

namespace trtseg {

using u16 = std::uint16_t;
using u32 = std::uint32_t;
using i32 = std::int32_t;

static constexpr int kBand = 32;      // rows in a word
static constexpr int kThreads = 256;  // of a row's block
static constexpr int kWarps = kThreads / 32;
static constexpr int kMaxAnchors = static_cast<int>(kMaxDistanceSide / 32) + 2;

static __global__ void pack_rows(View<const std::uint8_t, 2> mask, View<u32, 2> words) {
  const i64 x = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x, band = blockIdx.y;
  if (x >= mask.shape[1]) return;
  const i64 y0 = band * kBand, rows = mask.shape[0] - y0 < kBand ? mask.shape[0] - y0 : kBand;
  u32 word = 0;
#pragma unroll 8
  for (int i = 0; i < rows; ++i) word |= static_cast<u32>(mask(y0 + i, x) != 0) << i;
  words(band, x) = word;
}

// distance[y, x] = rows between y and the nearest True of column x, kNoSite if it has none.
static __global__ void column_distance(View<const u32, 2> words, View<u16, 2> distance) {
  const i64 x = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (x >= distance.shape[1]) return;
  const int band = static_cast<int>(blockIdx.y), bands = static_cast<int>(words.shape[0]);
  const int height = static_cast<int>(distance.shape[0]);
  const u32 word = words(band, x);
  int above = -1, below = -1;  // the nearest True rows outside this band
  for (int b = band - 1; b >= 0 && above < 0; --b) {
    const u32 w = words(b, x);
    if (w != 0) above = b * kBand + 31 - __clz(static_cast<int>(w));
  }
  for (int b = band + 1; b < bands && below < 0; ++b) {
    const u32 w = words(b, x);
    if (w != 0) below = b * kBand + __ffs(static_cast<int>(w)) - 1;
  }
  for (int i = 0; i < kBand && band * kBand + i < height; ++i) {
    const int y = band * kBand + i;
    const u32 upper = word & (0xFFFFFFFFu >> (31 - i)), lower = word >> i;
    const int up = upper != 0 ? band * kBand + 31 - __clz(static_cast<int>(upper)) : above;
    const int down = lower != 0 ? y + __ffs(static_cast<int>(lower)) - 1 : below;
    int d = up >= 0 ? y - up : kNoSite;
    if (down >= 0 && down - y < d) d = down - y;
    distance(y, x) = static_cast<u16>(d);
  }
}

// The lowest parabola at some x: its height and column. INT_MAX and -1: no column has a True pixel.
struct Lowest {
  i32 squared;
  i32 column;
};

static __device__ i32 parabola(const u16* distance, int column, int x) {
  const i32 d = distance[column], dx = x - column;
  return d == kNoSite ? INT_MAX : dx * dx + d * d;
}

// Over the columns first .. last by all lanes of a warp; of equals, the leftmost.
static __device__ i32 search_by_warp(const u16* distance, int x, int first, int last) {
  Lowest best{INT_MAX, INT_MAX};
  for (int v = first + static_cast<int>(threadIdx.x % 32); v <= last; v += 32) {
    const i32 candidate = parabola(distance, v, x);
    if (candidate < best.squared) best = {candidate, v};
  }
  for (int step = 16; step > 0; step /= 2) {
    const i32 squared = __shfl_xor_sync(kWholeWarp, best.squared, step);
    const i32 column = __shfl_xor_sync(kWholeWarp, best.column, step);
    if (squared < best.squared || (squared == best.squared && column < best.column)) {
      best = {squared, column};
    }
  }
  return best.squared == INT_MAX ? -1 : best.column;
}

// The lowest over the columns first .. last, alike for all lanes of a warp, by each lane for its x.
static __device__ i32 search_by_lane(const u16* distance, int x, int first, int last) {
  i32 lowest = INT_MAX;
#pragma unroll 4
  for (int v = first; v <= last; ++v) {
    const i32 candidate = parabola(distance, v, x);
    lowest = candidate < lowest ? candidate : lowest;
  }
  return lowest;
}

// A block takes a row. Anchor k stands at pixel min(32 k, width - 1).
static __global__ void __launch_bounds__(kThreads)
    row_minimum(View<const u16, 2> distances, View<float, 2> out, float limit) {
  __shared__ i32 anchor[kMaxAnchors];
  const i64 y = blockIdx.x;
  const int width = static_cast<int>(out.shape[1]), last = (width + 30) / 32;
  const u16* distance = distances.row(y);
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  if (warp == 0) {
    const i32 left = search_by_warp(distance, 0, 0, width - 1);
    const i32 right = left < 0 ? -1 : search_by_warp(distance, width - 1, left, width - 1);
    if (lane == 0) {
      anchor[0] = left;
      anchor[last] = right;
    }
  }
  __syncthreads();
  const bool empty = anchor[0] < 0;  // then no column has a True pixel
  int reach = 1;
  while (reach < last) reach *= 2;
  for (int step = reach / 2; step > 0; step /= 2) {
    for (int k = step * (2 * warp + 1); k < last; k += step * 2 * kWarps) {
      const int next = k + step < last ? k + step : last;
      const i32 column =
          empty ? -1 : search_by_warp(distance, 32 * k, anchor[k - step], anchor[next]);
      if (lane == 0) anchor[k] = column;
    }
    __syncthreads();
  }
  for (int k = warp; 32 * k < width; k += kWarps) {
    const int x = 32 * k + lane, next = k < last ? k + 1 : last;
    // Lanes beyond the row repeat its last pixel: from farther off, a square could overflow.
    const int inside = x < width ? x : width - 1;
    const float root =
        empty ? limit : exact_root(search_by_lane(distance, inside, anchor[k], anchor[next]));
    if (x < width) out(y, x) = root < limit ? root : limit;
  }
}

static i64 round_up(i64 bytes) { return (bytes + 15) / 16 * 16; }

i64 distance_transform_scratch(i64 height, i64 width) {
  return round_up(height * width * 2) + (height + kBand - 1) / kBand * width * 4;
}

void distance_transform(View<const std::uint8_t, 2> mask, View<float, 2> out,
                        View<std::uint8_t, 1> scratch, float limit, Stream stream) {
  const cudaStream_t on = cuda_stream(stream);
  const i64 height = mask.shape[0], width = mask.shape[1], bands = (height + kBand - 1) / kBand;
  const auto distance = make_view(reinterpret_cast<u16*>(scratch.data), height, width);
  const auto words = make_view(
      reinterpret_cast<u32*>(scratch.data + round_up(height * width * 2)), bands, width);
  const View<const u32, 2> read_words = make_view<const u32>(words.data, bands, width);
  const View<const u16, 2> read_distance = make_view<const u16>(distance.data, height, width);
  const dim3 columns(ceil_div(width, 128), static_cast<unsigned>(bands));
  pack_rows<<<columns, 128, 0, on>>>(mask, words);
  check_cuda(cudaGetLastError(), "distance_transform");
  column_distance<<<columns, 128, 0, on>>>(read_words, distance);
  check_cuda(cudaGetLastError(), "distance_transform");
  row_minimum<<<static_cast<unsigned>(height), kThreads, 0, on>>>(read_distance, out, limit);
  check_cuda(cudaGetLastError(), "distance_transform");
}

}  // namespace trtseg
