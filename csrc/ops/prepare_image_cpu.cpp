#include <vector>

#include "core/parallel.h"
#include "ops/prepare_image.h"

namespace trtseg {

template <class S, class T>
void prepare_image(View<const S, 3> pixels, Preparation with, View<T, 3> out, Stream) {
  const i64 height = out.shape[1], width = out.shape[2];
  // once: a window takes divisions
  std::vector<Window> columns(static_cast<std::size_t>(width));
  for (i64 x = 0; x < width; ++x) {
    columns[static_cast<std::size_t>(x)] = make_window(x, pixels.shape[1], width);
  }
  const Window* const across = columns.data();
  parallel_for(height, 1, [=](i64 begin, i64 end, int) {
    for (i64 y = begin; y < end; ++y) {
      const Window rows = make_window(y, pixels.shape[0], height);
      for (i64 x = 0; x < width; ++x) {
        const Colour colour = prepared(pixels, with, rows, across[x]);
        for (int c = 0; c < 3; ++c) out(c, y, x) = from_float<T>(colour.channel[c]);
      }
    }
  });
}

TRTSEG_INSTANCE(prepare_image<std::uint8_t, float>);
TRTSEG_INSTANCE(prepare_image<std::uint8_t, half>);
TRTSEG_INSTANCE(prepare_image<std::uint16_t, float>);
TRTSEG_INSTANCE(prepare_image<std::uint16_t, half>);
TRTSEG_INSTANCE(prepare_image<float, float>);
TRTSEG_INSTANCE(prepare_image<float, half>);
TRTSEG_INSTANCE(prepare_image<half, float>);
TRTSEG_INSTANCE(prepare_image<half, half>);

}  // namespace trtseg
