#include "ops/compose_mask.h"

#include "core/expand.h"

namespace trtseg {
namespace {

TRTSEG_CLONES
void blend(const float* top, const float* bottom, float weight, i64 count, float* out) {
  for (i64 i = 0; i < count; ++i) out[i] = lerp(top[i], bottom[i], weight);
}

TRTSEG_CLONES
void binarise(const float* probability, float threshold, i64 count, std::uint8_t* out) {
  for (i64 i = 0; i < count; ++i) out[i] = mask_value(probability[i], threshold);
}

}  // namespace

template <class T>
void compose_mask(View<const T, 2> probability, float threshold, View<std::uint8_t, 2> out,
                  View<float, 2> out_probability, Stream) {
  const i64 h = probability.shape[0], w = probability.shape[1];
  const float scale = tap_scale(h, out.shape[0]);
  for_tiles(out.shape[0], out.shape[1], 32, [&](i64 y0, i64 y1, i64 x0, i64 count) {
    ColumnTaps taps;
    RowPair rows;
    float row[kTile];
    make_column_taps(taps, x0, count, w, out.shape[1]);
    for (i64 y = y0; y < y1; ++y) {
      const Tap tap = make_tap(y, scale, h);
      rows.move_to(tap, probability.data, probability.stride[0], taps, count);
      float* blended = out_probability ? out_probability.row(y) + x0 : row;
      blend(rows.top(), rows.bottom(), tap.weight, count, blended);
      binarise(blended, threshold, count, out.row(y) + x0);
    }
  });
}

TRTSEG_FLOATS(compose_mask);

}  // namespace trtseg
