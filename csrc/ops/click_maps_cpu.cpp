#include "core/parallel.h"
#include "ops/click_maps.h"

namespace trtseg {

template <class T>
void cpu::click_maps(View<const float, 3> points, ClickMaps with, View<T, 3> out, Stream) {
  const i64 height = out.shape[1], width = out.shape[2];
  parallel_for(2 * height, 4096 / (width + 1) + 1, [=](i64 begin, i64 end, int) {
    for (i64 row = begin; row < end; ++row) {
      const i64 kind = row / height, y = row % height;
      const View<const float, 2> clicks = clicks_of(points, kind);
      T *click = out.row(kind, y), *distance = out.row(2 + kind, y);
      for (i64 x = 0; x < width; ++x) {
        const ClickValues values = click_values(clicks, y, x, height, width, with);
        click[x] = from_float<T>(values.click);
        distance[x] = from_float<T>(values.distance);
      }
    }
  });
}

template void cpu::click_maps<float>(View<const float, 3>, ClickMaps, View<float, 3>, Stream);
template void cpu::click_maps<half>(View<const float, 3>, ClickMaps, View<half, 3>, Stream);

}  // namespace trtseg
