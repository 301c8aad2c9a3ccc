#include "ops/hypercolumn.h"

#include "core/expand.h"
#include "core/parallel.h"

namespace trtseg {
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

// One row of one level's gradient: the output rows that read it are summed with their shares, then
// the columns likewise, in pieces so short that what a piece touches fits `columns`.
template <class T>
struct Backward {
  View<const T, 3> grad;

  void row(View<T, 3> level, i64 c, i64 j) const {
    const i64 height = grad.shape[1], width = grad.shape[2];
    const i64 rows = level.shape[1], columns = level.shape[2];
    const float scale_y = tap_scale(rows, height), scale_x = tap_scale(columns, width);
    const Range readers = reading_outputs(j, scale_y, rows, height);
    float sum[kTile], buffer[kTile], held[kTile + 4];
    const i64 fitting = scale_x <= 1.0f ? kTile : static_cast<i64>(kTile / scale_x);
    const i64 step = fitting > 0 ? fitting : 1;
    T* target = level.row(c, j);
    // The level's column that held[0] stands for; all before it are written.
    i64 base = make_tap(0, scale_x, columns).first;
    for (i64 i = 0; i < base; ++i) target[i] = from_float<T>(0.0f);
    float carry[2] = {0.0f, 0.0f};
    for (i64 x0 = 0; x0 < width; x0 += step) {
      const i64 count = smaller(step, width - x0);
      fill(sum, 0.0f, count);
      for (i64 y = readers.begin; y < readers.end; ++y) {
        const float share = tap_share(make_tap(y, scale_y, rows), j);
        if (share != 0.0f) {
          add_scaled(sum, read_tile(grad.row(c, y) + x0, buffer, count), share, count);
        }
      }
      const i64 last = make_tap(x0 + count - 1, scale_x, columns).second;
      fill(held, 0.0f, smaller(last - base + 1, kTile + 4));
      held[0] = carry[0];
      held[1] = carry[1];
      for (i64 i = 0; i < count; ++i) {
        const Tap tap = make_tap(x0 + i, scale_x, columns);
        held[tap.first - base] += (1.0f - tap.weight) * sum[i];
        held[tap.second - base] += tap.weight * sum[i];
      }
      const i64 next = x0 + count < width ? make_tap(x0 + count, scale_x, columns).first : columns;
      for (i64 i = base; i < next; ++i) {
        target[i] = from_float<T>(i <= last ? held[i - base] : 0.0f);
      }
      for (int k = 0; k < 2; ++k) carry[k] = next + k <= last ? held[next + k - base] : 0.0f;
      base = next;
    }
  }
};

}  // namespace

template <class T>
void cpu::hypercolumn(Levels<const T> levels, View<const T, 3> image,
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

template <class T>
void cpu::hypercolumn_backward(View<const T, 3> grad, Levels<T> level_grads, Stream) {
  const Backward<T> backward{grad};
  for (int l = 0; l < level_grads.count; ++l) {
    const View<T, 3> level = level_grads.level[l];
    const i64 rows = level.shape[1];
    parallel_for(level.shape[0] * rows, 4, [=](i64 begin, i64 end, int) {
      for (i64 i = begin; i < end; ++i) backward.row(level, i / rows, i % rows);
    });
  }
}

template void cpu::hypercolumn<float>(Levels<const float>, View<const float, 3>,
                                      View<const float, 2>, View<const float, 1>, View<float, 3>,
                                      Stream);
template void cpu::hypercolumn<half>(Levels<const half>, View<const half, 3>, View<const float, 2>,
                                     View<const float, 1>, View<half, 3>, Stream);
template void cpu::hypercolumn_backward<float>(View<const float, 3>, Levels<float>, Stream);
template void cpu::hypercolumn_backward<half>(View<const half, 3>, Levels<half>, Stream);

}  // namespace trtseg
