#include "ops/add_guidance.h"

#include "core/parallel.h"
#include "core/simd.h"

namespace trtseg {

const bool kAddGuidanceTakesChannelsLast = false;

namespace {

// out = from + weight . maps for the first kMaps of `maps`, and the leaky ReLU of it where that
// completes the sum. The order of the sum is that of the maps.
template <int kMaps, bool kLast>
inline void add_maps(const float* from, const float* const* maps, const float* weight, float slope,
                     i64 count, float* out) {
  const float* map[kMaps];
  float w[kMaps];
  for (int g = 0; g < kMaps; ++g) {
    map[g] = maps[g];
    w[g] = weight[g];
  }
  TRTSEG_INDEPENDENT
  for (i64 i = 0; i < count; ++i) {
    float sum = from[i];
    for (int g = 0; g < kMaps; ++g) sum += w[g] * map[g][i];
    out[i] = kLast ? leaky_relu(sum, slope) : sum;
  }
}

// Up to six maps, the networks' number, in one pass over a tile; of more, four at a time at first.
TRTSEG_CLONES
void combine(const float* base, const float* const* maps, const float* weight, i64 guidance,
             float slope, i64 count, float* out) {
  const float* from = base;
  for (; guidance > 6; guidance -= 4, maps += 4, weight += 4, from = out) {
    add_maps<4, false>(from, maps, weight, slope, count, out);
  }
  switch (guidance) {
    case 1: return add_maps<1, true>(from, maps, weight, slope, count, out);
    case 2: return add_maps<2, true>(from, maps, weight, slope, count, out);
    case 3: return add_maps<3, true>(from, maps, weight, slope, count, out);
    case 4: return add_maps<4, true>(from, maps, weight, slope, count, out);
    case 5: return add_maps<5, true>(from, maps, weight, slope, count, out);
    default: return add_maps<6, true>(from, maps, weight, slope, count, out);
  }
}

}  // namespace

template <class T>
void add_guidance(View<const T, 3> base, View<const T, 3> guidance, View<const float, 2> weight,
                  View<T, 3> out, float slope, Stream) {
  const i64 pixels = base.shape[1] * base.shape[2], channels = base.shape[0];
  parallel_for((pixels + kTile - 1) / kTile, 1, [&](i64 begin, i64 end, int) {
    const float* maps[kMaxGuidance];
    float floats[kMaxGuidance][kTile], read[kTile], written[kTile];
    for (i64 start = begin * kTile; start < pixels && start < end * kTile; start += kTile) {
      const i64 count = pixels - start < kTile ? pixels - start : kTile;
      for (i64 g = 0; g < guidance.shape[0]; ++g) {
        maps[g] = read_tile(guidance.row(g, 0) + start, floats[g], count);
      }
      for (i64 c = 0; c < channels; ++c) {
        T* target = out.row(c, 0) + start;
        float* result = begin_tile(target, written);
        combine(read_tile(base.row(c, 0) + start, read, count), maps, weight.row(c),
                guidance.shape[0], slope, count, result);
        end_tile(target, result, count);
      }
    }
  });
}

TRTSEG_FLOATS(add_guidance);

}  // namespace trtseg
