#include "ops/guided_upsample.h"

#include "core/expand.h"

namespace trtseg {
namespace {

constexpr i64 kRows = 16;  // of one task

// Columns x0 - 1 .. x0 + count of three rows around y, the outermost repeated.
struct Window {
  float line[3][kTile + 2];

  template <class T>
  void load(View<const T, 2> map, i64 y, i64 x0, i64 count) {
    const i64 height = map.shape[0], width = map.shape[1];
    for (int i = 0; i < 3; ++i) {
      const i64 row = y + i - 1;
      const T* source = map.row(row < 0 ? 0 : row < height ? row : height - 1);
      float* target = line[i];
      const float* inner = read_tile(source + x0, target + 1, count);
      if (inner != target + 1) {
        for (i64 j = 0; j < count; ++j) target[j + 1] = inner[j];
      }
      target[0] = to_float(source[x0 > 0 ? x0 - 1 : 0]);
      target[count + 1] = to_float(source[x0 + count < width ? x0 + count : width - 1]);
    }
  }
};

TRTSEG_CLONES
void fit(const Window& values, const Window& guide, float epsilon, i64 count, float* slope,
         float* mean) {
  TRTSEG_INDEPENDENT
  for (i64 i = 0; i < count; ++i) {
    const float v[9] = {values.line[0][i], values.line[0][i + 1], values.line[0][i + 2],
                        values.line[1][i], values.line[1][i + 1], values.line[1][i + 2],
                        values.line[2][i], values.line[2][i + 1], values.line[2][i + 2]};
    const float g[9] = {guide.line[0][i], guide.line[0][i + 1], guide.line[0][i + 2],
                        guide.line[1][i], guide.line[1][i + 1], guide.line[1][i + 2],
                        guide.line[2][i], guide.line[2][i + 1], guide.line[2][i + 2]};
    const GuidedModel found = guided_model(v, g, epsilon);
    slope[i] = found.slope;
    mean[i] = found.mean;
  }
}

TRTSEG_CLONES
void apply(const RowPair& values, const RowPair& slopes, const RowPair& means, const float* guide,
           float weight, i64 count, float* out) {
  const float *value_top = values.top(), *value_bottom = values.bottom();
  const float *slope_top = slopes.top(), *slope_bottom = slopes.bottom();
  const float *mean_top = means.top(), *mean_bottom = means.bottom();
  TRTSEG_INDEPENDENT
  for (i64 i = 0; i < count; ++i) {
    out[i] = guided_value(lerp(value_top[i], value_bottom[i], weight),
                          lerp(slope_top[i], slope_bottom[i], weight),
                          lerp(mean_top[i], mean_bottom[i], weight), guide[i]);
  }
}

}  // namespace

template <class T>
void guided_upsample(View<const T, 2> values, View<const float, 2> coarse,
                     View<const float, 2> guide, float epsilon, View<float, 3> model,
                     View<float, 2> out, Stream) {
  const i64 h = values.shape[0], w = values.shape[1];
  for_tiles(h, w, kRows, [&](i64 y0, i64 y1, i64 x0, i64 count) {
    Window value_window, guide_window;
    for (i64 y = y0; y < y1; ++y) {
      value_window.load(values, y, x0, count);
      guide_window.load(coarse, y, x0, count);
      fit(value_window, guide_window, epsilon, count, model.row(0, y) + x0, model.row(1, y) + x0);
    }
  });
  const float scale = tap_scale(h, out.shape[0]);
  for_tiles(out.shape[0], out.shape[1], kRows, [&](i64 y0, i64 y1, i64 x0, i64 count) {
    ColumnTaps taps;
    RowPair value_rows, slope_rows, mean_rows;
    make_column_taps(taps, x0, count, w, out.shape[1]);
    for (i64 y = y0; y < y1; ++y) {
      const Tap tap = make_tap(y, scale, h);
      value_rows.move_to(tap, values.data, values.stride[0], taps, count);
      slope_rows.move_to(tap, model.row(0, 0), model.stride[1], taps, count);
      mean_rows.move_to(tap, model.row(1, 0), model.stride[1], taps, count);
      apply(value_rows, slope_rows, mean_rows, guide.row(y) + x0, tap.weight, count,
            out.row(y) + x0);
    }
  });
}

TRTSEG_FLOATS(guided_upsample);

}  // namespace trtseg
