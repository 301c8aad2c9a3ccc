#include "ops/add_guidance.h"

#include "core/parallel.h"
#include "core/simd.h"

namespace trtseg {
namespace {

constexpr i64 kLanes = 16;     // partial sums of a reduction, whatever the machine's vectors
constexpr i64 kPixels = 64;    // of a channels-last block,
constexpr i64 kChannels = 16;  // which is transposed in the first-level cache

i64 smaller(i64 a, i64 b) { return a < b ? a : b; }

// A tile of all guidance maps as floats.
struct GuidanceTile {
  const float* map[kMaxGuidance];
  float buffer[kMaxGuidance][kTile];

  template <class T>
  void read(View<const T, 3> guidance, i64 start, i64 count) {
    for (i64 g = 0; g < guidance.shape[0]; ++g) {
      map[g] = read_tile(guidance.row(g, 0) + start, buffer[g], count);
    }
  }
};

// base + weight . guidance. Four maps at a time; the order of the sum is that of the maps.
TRTSEG_CLONES
void combine(const float* base, const float* const* maps, const float* weight, i64 guidance,
             i64 count, float* out) {
  const float* from = base;
  i64 g = 0;
  for (; g + 4 <= guidance; g += 4) {
    const float *a = maps[g], *b = maps[g + 1], *c = maps[g + 2], *d = maps[g + 3];
    const float wa = weight[g], wb = weight[g + 1], wc = weight[g + 2], wd = weight[g + 3];
    for (i64 i = 0; i < count; ++i) {
      out[i] = (((from[i] + wa * a[i]) + wb * b[i]) + wc * c[i]) + wd * d[i];
    }
    from = out;
  }
  for (; g < guidance; ++g) {
    const float w = weight[g];
    for (i64 i = 0; i < count; ++i) out[i] = from[i] + w * maps[g][i];
    from = out;
  }
}

TRTSEG_CLONES
void rectify(float* out, float slope, i64 count) {
  for (i64 i = 0; i < count; ++i) out[i] = leaky_relu(out[i], slope);
}

TRTSEG_CLONES
void rectify_grad(const float* before, const float* grad, float slope, i64 count, float* out) {
  for (i64 i = 0; i < count; ++i) out[i] = grad[i] * leaky_relu_share(before[i], slope);
}

TRTSEG_CLONES
float dot(const float* a, const float* b, i64 count) {
  float sums[kLanes] = {};
  i64 i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (i64 k = 0; k < kLanes; ++k) sums[k] += a[i + k] * b[i + k];
  }
  for (i64 k = 0; i + k < count; ++k) sums[k] += a[i + k] * b[i + k];
  float sum = 0.0f;
  for (i64 k = 0; k < kLanes; ++k) sum += sums[k];
  return sum;
}

template <class T>
struct Forward {
  View<const T, 3> base, guidance;
  View<const float, 2> weight;
  View<T, 3> out;
  float slope;

  void planes(i64 start, i64 count) const {
    GuidanceTile tile;
    tile.read(guidance, start, count);
    float read[kTile], written[kTile];
    for (i64 c = 0; c < base.shape[0]; ++c) {
      T* target = out.row(c, 0) + start;
      float* result = begin_tile(target, written);
      combine(read_tile(base.row(c, 0) + start, read, count), tile.map, weight.row(c),
              guidance.shape[0], count, result);
      rectify(result, slope, count);
      end_tile(target, result, count);
    }
  }

  void channels_last(i64 start, i64 count) const {
    const i64 channels = base.shape[0];
    GuidanceTile tile;
    tile.read(guidance, start, count);
    float read[kPixels], block[kChannels][kPixels], line[kChannels];
    for (i64 c0 = 0; c0 < channels; c0 += kChannels) {
      const i64 group = smaller(kChannels, channels - c0);
      for (i64 k = 0; k < group; ++k) {
        combine(read_tile(base.row(c0 + k, 0) + start, read, count), tile.map,
                weight.row(c0 + k), guidance.shape[0], count, block[k]);
        rectify(block[k], slope, count);
      }
      for (i64 i = 0; i < count; ++i) {
        T* target = out.data + (start + i) * channels + c0;
        float* result = begin_tile(target, line);
        for (i64 k = 0; k < group; ++k) result[k] = block[k][i];
        end_tile(target, result, group);
      }
    }
  }
};

template <class T>
struct Backward {
  View<const T, 3> grad, base, guidance;
  View<const float, 2> weight;
  float slope;
  View<T, 3> base_grad;
  View<float, 2> weight_grad;

  // One channel from its first pixel to its last: the order of the sums never changes.
  void channel(i64 c) const {
    const i64 maps = guidance.shape[0], pixels = base.shape[1] * base.shape[2];
    double sums[kMaxGuidance] = {};
    GuidanceTile tile;
    float read[kTile], before[kTile], passed[kTile];
    for (i64 start = 0; start < pixels; start += kTile) {
      const i64 count = smaller(kTile, pixels - start);
      tile.read(guidance, start, count);
      combine(read_tile(base.row(c, 0) + start, read, count), tile.map, weight.row(c), maps, count,
              before);
      rectify_grad(before, read_tile(grad.row(c, 0) + start, read, count), slope, count, passed);
      for (i64 g = 0; g < maps; ++g) sums[g] += dot(passed, tile.map[g], count);
      T* target = base_grad.row(c, 0) + start;
      float* result = begin_tile(target, passed);
      if (result != passed) {
        for (i64 i = 0; i < count; ++i) result[i] = passed[i];
      }
      end_tile(target, result, count);
    }
    for (i64 g = 0; g < maps; ++g) weight_grad(c, g) = static_cast<float>(sums[g]);
  }
};

}  // namespace

template <class T>
void cpu::add_guidance(View<const T, 3> base, View<const T, 3> guidance,
                       View<const float, 2> weight, View<T, 3> out, float slope,
                       bool channels_last, Stream) {
  const Forward<T> forward{base, guidance, weight, out, slope};
  const i64 pixels = base.shape[1] * base.shape[2], tile = channels_last ? kPixels : kTile;
  parallel_for((pixels + tile - 1) / tile, channels_last ? 8 : 1, [&](i64 begin, i64 end, int) {
    for (i64 i = begin; i < end; ++i) {
      const i64 start = i * tile, count = smaller(tile, pixels - start);
      if (channels_last) {
        forward.channels_last(start, count);
      } else {
        forward.planes(start, count);
      }
    }
  });
}

i64 cpu::add_guidance_backward_scratch(i64, i64, i64, i64) { return 0; }

template <class T>
void cpu::add_guidance_backward(View<const T, 3> grad, View<const T, 3> base,
                                View<const T, 3> guidance, View<const float, 2> weight,
                                float slope, View<T, 3> base_grad, View<float, 2> weight_grad,
                                View<std::uint8_t, 1>, Stream) {
  const Backward<T> backward{grad, base, guidance, weight, slope, base_grad, weight_grad};
  parallel_for(base.shape[0], 1, [&](i64 begin, i64 end, int) {
    for (i64 c = begin; c < end; ++c) backward.channel(c);
  });
}

template void cpu::add_guidance<float>(View<const float, 3>, View<const float, 3>,
                                       View<const float, 2>, View<float, 3>, float, bool, Stream);
template void cpu::add_guidance<half>(View<const half, 3>, View<const half, 3>,
                                      View<const float, 2>, View<half, 3>, float, bool, Stream);
template void cpu::add_guidance_backward<float>(View<const float, 3>, View<const float, 3>,
                                                View<const float, 3>, View<const float, 2>, float,
                                                View<float, 3>, View<float, 2>,
                                                View<std::uint8_t, 1>, Stream);
template void cpu::add_guidance_backward<half>(View<const half, 3>, View<const half, 3>,
                                               View<const half, 3>, View<const float, 2>, float,
                                               View<half, 3>, View<float, 2>,
                                               View<std::uint8_t, 1>, Stream);

}  // namespace trtseg
