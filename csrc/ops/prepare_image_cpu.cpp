#include "core/parallel.h"
#include "ops/prepare_image.h"

namespace trtseg {

template <class S, class T>
void prepare_image(View<const S, 3> pixels, Preparation with, View<T, 3> out, Stream) {
  const i64 height = out.shape[1], width = out.shape[2];
  parallel_for(height, 1, [=](i64 begin, i64 end, int) {
    for (i64 y = begin; y < end; ++y) {
      for (i64 x = 0; x < width; ++x) {
        const Colour colour = prepared(pixels, with, y, x, height, width);
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
