#include "ops/hypercolumn.h"

#include "core/expand.h"
#include "core/parallel.h"

namespace trtseg {

const bool kHypercolumnTakesChannelsLast = false;

namespace {

// One task: so many channels, rows and columns of the output.
constexpr i64 kChannels = 8, kRows = 32;

TRTSEG_CLONES
void fill(float* out, float value, i64 count) {
  for (i64 i = 0; i < count; ++i) out[i] = value;
}

TRTSEG_CLONES
void add_scaled(float* out, const float* values, float weight, i64 count) {
  for (i64 i = 0; i < count; ++i) out[i] += weight * values[i];
}

TRTSEG_CLONES
void add_lerp(float* out, const float* top, const float* bottom, float weight, i64 count) {
  for (i64 i = 0; i < count; ++i) out[i] += lerp(top[i], bottom[i], weight);
}

i64 pieces(i64 count, i64 size) { return (count + size - 1) / size; }
i64 smaller(i64 a, i64 b) { return a < b ? a : b; }

template <class T>
struct Forward {
  Levels<const T> levels;
  View<const T, 3> image;
  View<const float, 2> image_weight;
  View<const float, 1> bias;
  View<T, 3> out;

  void tile(i64 c0, i64 y0, i64 x0) const {
    const i64 c1 = smaller(c0 + kChannels, out.shape[0]), y1 = smaller(y0 + kRows, out.shape[1]);
    const i64 count = smaller(kTile, out.shape[2] - x0);
    ColumnTaps taps[kMaxLevels];
    RowPair rows[kMaxLevels];
    float sum[kTile], buffer[kTile];
    for (int l = 0; l < levels.count; ++l) {
      make_column_taps(taps[l], x0, count, levels.level[l].shape[2], out.shape[2]);
    }
    for (i64 c = c0; c < c1; ++c) {
      for (int l = 0; l < levels.count; ++l) rows[l].forget();
      for (i64 y = y0; y < y1; ++y) {
        T* target = out.row(c, y) + x0;
        float* result = begin_tile(target, sum);
        fill(result, bias ? bias(c) : 0.0f, count);
        for (i64 i = 0; image && i < 3; ++i) {
          add_scaled(result, read_tile(image.row(i, y) + x0, buffer, count), image_weight(c, i),
                     count);
        }
        for (int l = 0; l < levels.count; ++l) {
          const auto& level = levels.level[l];
          const Tap tap = make_tap(y, tap_scale(level.shape[1], out.shape[1]), level.shape[1]);
          rows[l].move_to(tap, level.row(c, 0), level.stride[1], taps[l], count);
          add_lerp(result, rows[l].top(), rows[l].bottom(), tap.weight, count);
        }
        end_tile(target, result, count);
      }
    }
  }
};

}  // namespace

template <class T>
void hypercolumn(Levels<const T> levels, View<const T, 3> image,
                      View<const float, 2> image_weight, View<const float, 1> bias,
                      View<T, 3> out, Stream) {
  const Forward<T> forward{levels, image, image_weight, bias, out};
  const i64 groups = pieces(out.shape[0], kChannels), bands = pieces(out.shape[1], kRows);
  const i64 tiles = pieces(out.shape[2], kTile);
  parallel_for(groups * bands * tiles, 1, [&](i64 begin, i64 end, int) {
    for (i64 i = begin; i < end; ++i) {
      const i64 tile = i % tiles, band = i / tiles % bands, group = i / tiles / bands;
      forward.tile(group * kChannels, band * kRows, tile * kTile);
    }
  });
}

TRTSEG_FLOATS(hypercolumn);

}  // namespace trtseg
