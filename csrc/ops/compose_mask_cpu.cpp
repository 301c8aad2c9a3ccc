#include "ops/compose_mask.h"

#include <mutex>

#include "core/expand.h"
#include "core/parallel.h"

namespace trtseg {
namespace {

constexpr i64 kRows = 32;  // of one task

TRTSEG_CLONES
void blend(const float* top, const float* bottom, float weight, i64 count, float* out) {
  for (i64 i = 0; i < count; ++i) out[i] = lerp(top[i], bottom[i], weight);
}

TRTSEG_CLONES
void binarise(const float* probability, float threshold, i64 count, std::uint8_t* out) {
  for (i64 i = 0; i < count; ++i) out[i] = mask_value(probability[i], threshold);
}

TRTSEG_CLONES
bool differ(const std::uint8_t* a, const std::uint8_t* b, i64 count) {
  std::uint8_t any = 0;
  for (i64 i = 0; i < count; ++i) any = static_cast<std::uint8_t>(any | (a[i] ^ b[i]));
  return any != 0;
}

struct Box {
  i64 y0, x0, y1, x1;

  bool is_empty() const { return y1 <= y0; }
  void add(const Box& other) {
    if (other.is_empty()) return;
    if (is_empty()) {
      *this = other;
      return;
    }
    y0 = other.y0 < y0 ? other.y0 : y0;
    x0 = other.x0 < x0 ? other.x0 : x0;
    y1 = other.y1 > y1 ? other.y1 : y1;
    x1 = other.x1 > x1 ? other.x1 : x1;
  }
};

// Where in one piece of row y two masks differ.
Box changed(const std::uint8_t* a, const std::uint8_t* b, i64 y, i64 x0, i64 count) {
  if (!differ(a, b, count)) return {};
  i64 first = 0, last = count - 1;
  while (a[first] == b[first]) ++first;
  while (a[last] == b[last]) --last;
  return {y, x0 + first, y + 1, x0 + last + 1};
}

template <class T>
struct Composition {
  View<const T, 2> probability;
  float threshold;
  View<std::uint8_t, 2> out;
  View<float, 2> out_probability;
  View<const std::uint8_t, 2> previous;

  Box tile(i64 y0, i64 x0) const {
    const i64 y1 = y0 + kRows < out.shape[0] ? y0 + kRows : out.shape[0];
    const i64 count = out.shape[1] - x0 < kTile ? out.shape[1] - x0 : kTile;
    const float scale = tap_scale(probability.shape[0], out.shape[0]);
    ColumnTaps taps;
    RowPair rows;
    float row[kTile];
    std::uint8_t mask[kTile];
    Box box{};
    make_column_taps(taps, x0, count, probability.shape[1], out.shape[1]);
    for (i64 y = y0; y < y1; ++y) {
      const Tap tap = make_tap(y, scale, probability.shape[0]);
      rows.move_to(tap, probability.data, probability.stride[0], taps, count);
      float* blended = out_probability ? out_probability.row(y) + x0 : row;
      blend(rows.top(), rows.bottom(), tap.weight, count, blended);
      std::uint8_t* target = out.row(y) + x0;
      if (!previous) {
        binarise(blended, threshold, count, target);
        continue;
      }
      // `previous` may be `out`: compare before writing.
      binarise(blended, threshold, count, mask);
      const Box difference = changed(mask, previous.row(y) + x0, y, x0, count);
      box.add(difference);
      if (!difference.is_empty() || previous.data != out.data) {
        for (i64 i = 0; i < count; ++i) target[i] = mask[i];
      }
    }
    return box;
  }
};

}  // namespace

template <class T>
void compose_mask(View<const T, 2> probability, float threshold, View<std::uint8_t, 2> out,
                       View<float, 2> out_probability, View<const std::uint8_t, 2> previous,
                       View<std::int32_t, 1> box, Stream) {
  const Composition<T> composition{probability, threshold, out, out_probability, previous};
  const i64 tiles = (out.shape[1] + kTile - 1) / kTile, bands = (out.shape[0] + kRows - 1) / kRows;
  Box all{};
  std::mutex mutex;
  parallel_for(tiles * bands, 1, [&](i64 begin, i64 end, int) {
    for (i64 i = begin; i < end; ++i) {
      const Box one = composition.tile(i / tiles * kRows, i % tiles * kTile);
      if (one.is_empty()) continue;
      std::lock_guard<std::mutex> lock(mutex);
      all.add(one);
    }
  });
  if (!box) return;
  box(0) = static_cast<std::int32_t>(all.y0);
  box(1) = static_cast<std::int32_t>(all.x0);
  box(2) = static_cast<std::int32_t>(all.y1);
  box(3) = static_cast<std::int32_t>(all.x1);
}

template void compose_mask<float>(View<const float, 2>, float, View<std::uint8_t, 2>,
                                       View<float, 2>, View<const std::uint8_t, 2>,
                                       View<std::int32_t, 1>, Stream);
template void compose_mask<half>(View<const half, 2>, float, View<std::uint8_t, 2>,
                                      View<float, 2>, View<const std::uint8_t, 2>,
                                      View<std::int32_t, 1>, Stream);

}  // namespace trtseg
