#include "core/parallel.h"
#include "ops/click_maps.h"
#include "ops/distance_map_tile.h"

namespace trtseg {

template <class T>
void cpu::click_maps(View<const float, 3> points, ClickMaps with, View<T, 3> out, Stream) {
  const i64 height = out.shape[1], width = out.shape[2];
  parallel_for(2 * height, 4096 / (width + 1) + 1, [=](i64 begin, i64 end, int) {
    float distance[kTile];
    for (i64 row = begin; row < end; ++row) {
      const i64 kind = row / height, y = row % height;
      const View<const float, 2> clicks = clicks_of(points, kind);
      for (i64 x0 = 0; x0 < width; x0 += kTile) {
        const i64 count = width - x0 < kTile ? width - x0 : kTile;
        map_tile(clicks, distance, y, x0, count, with.limit);
        T *click = out.row(kind, y) + x0, *scaled = out.row(2 + kind, y) + x0;
        for (i64 i = 0; i < count; ++i) {
          click[i] = from_float<T>(
              click_value(clicks, distance[i], y, x0 + i, height, width, with));
          scaled[i] = from_float<T>(distance[i] / with.limit);
        }
      }
    }
  });
}

template void cpu::click_maps<float>(View<const float, 3>, ClickMaps, View<float, 3>, Stream);
template void cpu::click_maps<half>(View<const float, 3>, ClickMaps, View<half, 3>, Stream);

}  // namespace trtseg
