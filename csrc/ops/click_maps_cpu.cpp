#include "core/parallel.h"
#include "core/simd.h"
#include "ops/click_maps.h"

namespace trtseg {
namespace {

TRTSEG_CLONES
void fill(float* out, float value, i64 count) {
  for (i64 i = 0; i < count; ++i) out[i] = value;
}

// best[i] = min(best[i], squared distance of pixel (y, x0 + i)).
TRTSEG_CLONES
void keep_nearest(float* best, float point_y, float point_x, float y, i64 x0, i64 count) {
  const int start = static_cast<int>(x0), n = static_cast<int>(count);
  for (int i = 0; i < n; ++i) {
    const float d = squared_distance(point_y, point_x, y, static_cast<float>(start + i));
    best[i] = d < best[i] ? d : best[i];
  }
}

TRTSEG_CLONES
void scale_roots(const float* squared, float limit, i64 count, float* out) {
  for (i64 i = 0; i < count; ++i) out[i] = truncated_root(squared[i], limit) / limit;
}

TRTSEG_CLONES
void draw_bumps(const float* squared, ClickMaps with, i64 count, float* out) {
  for (i64 i = 0; i < count; ++i) {
    out[i] = click_bump(truncated_root(squared[i], with.limit), with.falloff);
  }
}

struct Drawing {
  View<const float, 3> points;
  ClickMaps with;
  i64 height, width;

  // `count` (<= kTile) pixels of row y from x0 on: S and T of one kind of clicks.
  void tile(i64 kind, i64 y, i64 x0, i64 count, float* click, float* scaled) const {
    const float row = static_cast<float>(y), far = with.limit * with.limit;
    float squared[kTile];
    bool near = false;
    fill(squared, far, count);
    for (i64 i = 0; i < points.shape[1]; ++i) {
      const float* point = points.row(kind, i);
      const float dy = point[0] - row;
      if (!(dy * dy < far)) continue;
      keep_nearest(squared, point[0], point[1], row, x0, count);
      near = true;
    }
    if (near) {
      scale_roots(squared, with.limit, count, scaled);
    } else {
      fill(scaled, 1.0f, count);
    }
    if (with.falloff == 0.0f) {
      draw_points(kind, row, x0, count, click);
    } else if (near) {
      draw_bumps(squared, with, count, click);
    } else {
      fill(click, click_bump(with.limit, with.falloff), count);
    }
  }

  void draw_points(i64 kind, float row, i64 x0, i64 count, float* click) const {
    fill(click, 0.0f, count);
    for (i64 i = 0; i < points.shape[1]; ++i) {
      const float y = points(kind, i, 0), x = points(kind, i, 1);
      if (y != y || x != x || click_cell(y, height) != row) continue;
      const i64 cell = static_cast<i64>(click_cell(x, width)) - x0;
      if (cell >= 0 && cell < count) click[cell] = 1.0f;
    }
  }
};

}  // namespace

template <class T>
void click_maps(View<const float, 3> points, ClickMaps with, View<T, 3> out, Stream) {
  const i64 height = out.shape[1], width = out.shape[2];
  const Drawing drawing{points, with, height, width};
  parallel_for(2 * height, 4096 / (width + 1) + 1, [=](i64 begin, i64 end, int) {
    float click_buffer[kTile], scaled_buffer[kTile];
    for (i64 line = begin; line < end; ++line) {
      const i64 kind = line / height, y = line % height;
      for (i64 x0 = 0; x0 < width; x0 += kTile) {
        const i64 count = width - x0 < kTile ? width - x0 : kTile;
        T *click = out.row(kind, y) + x0, *scaled = out.row(2 + kind, y) + x0;
        float* click_tile = begin_tile(click, click_buffer);
        float* scaled_tile = begin_tile(scaled, scaled_buffer);
        drawing.tile(kind, y, x0, count, click_tile, scaled_tile);
        end_tile(click, click_tile, count);
        end_tile(scaled, scaled_tile, count);
      }
    }
  });
}

TRTSEG_FLOATS(click_maps);

}  // namespace trtseg
