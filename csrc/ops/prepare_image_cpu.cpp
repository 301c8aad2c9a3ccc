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

template void prepare_image<std::uint8_t, float>(View<const std::uint8_t, 3>, Preparation,
                                 View<float, 3>, Stream);
template void prepare_image<std::uint8_t, half>(View<const std::uint8_t, 3>, Preparation,
                                 View<half, 3>, Stream);
template void prepare_image<float, float>(View<const float, 3>, Preparation,
                                 View<float, 3>, Stream);
template void prepare_image<float, half>(View<const float, 3>, Preparation,
                                 View<half, 3>, Stream);
template void prepare_image<half, float>(View<const half, 3>, Preparation,
                                 View<float, 3>, Stream);
template void prepare_image<half, half>(View<const half, 3>, Preparation,
                                 View<half, 3>, Stream);

}  // namespace trtseg
