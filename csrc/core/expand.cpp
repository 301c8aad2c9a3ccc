#include "core/expand.h"

namespace trtseg {
namespace {

TRTSEG_CLONES
void gather(const float* source, const int* first, const int* second, const float* weight,
            i64 count, float* out) {
  for (i64 i = 0; i < count; ++i) out[i] = lerp(source[first[i]], source[second[i]], weight[i]);
}

}  // namespace

void make_column_taps(ColumnTaps& taps, i64 x0, i64 count, i64 source, i64 output) {
  const float scale = tap_scale(source, output);
  taps.base = make_tap(x0, scale, source).first;
  for (i64 i = 0; i < count; ++i) {
    const Tap tap = make_tap(x0 + i, scale, source);
    taps.first[i] = static_cast<int>(tap.first - taps.base);
    taps.second[i] = static_cast<int>(tap.second - taps.base);
    taps.weight[i] = tap.weight;
  }
  taps.span = taps.second[count - 1] + 1;
  taps.identity = source == output;
}

void expand_row(const float* source, const ColumnTaps& taps, i64 count, float* out) {
  gather(source + taps.base, taps.first, taps.second, taps.weight, count, out);
}

void expand_row(const half* source, const ColumnTaps& taps, i64 count, float* out) {
  source += taps.base;
  if (taps.span <= kTile + 2) {
    float floats[kTile + 2];
    to_floats(source, floats, taps.span);
    gather(floats, taps.first, taps.second, taps.weight, count, out);
    return;
  }
  // A map wider than the output: most of it is not read.
  for (i64 i = 0; i < count; ++i) {
    out[i] = lerp(to_float(source[taps.first[i]]), to_float(source[taps.second[i]]),
                  taps.weight[i]);
  }
}

}  // namespace trtseg
