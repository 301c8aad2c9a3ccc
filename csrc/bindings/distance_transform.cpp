#include "ops/distance_transform.h"

#include "bindings/array.h"
#include "bindings/module.h"

namespace trtseg {

using namespace pybind11::literals;

static void check_sides(i64 height, i64 width) {
  for (const i64 side : {height, width}) {
    if (side >= 1 && side <= kMaxDistanceSide) continue;
    fail("mask", "sides of 1 to " + std::to_string(kMaxDistanceSide), shape_text({height, width}));
  }
}

void bind_distance_transform(py::module_& m) {
  m.def(
      "distance_transform",
      [](py::object mask, py::object out, py::object scratch, py::object limit_px,
         py::object stream) {
        Arguments arguments(stream);
        const auto in = arguments.mask_input(mask, "mask", {kAny, kAny});
        const i64 height = in.shape[0], width = in.shape[1];
        check_sides(height, width);
        const float limit = as_float(limit_px, "limit_px");
        if (!(limit > 0)) fail("limit_px", "a number above 0", std::to_string(limit));
        const auto distance = arguments.output<float, 2>(out, "out", {height, width});
        const auto memory =
            arguments.scratch(scratch, distance_transform_scratch(height, width));
        const Stream on = arguments.begin();
        py::gil_scoped_release unlocked;
        distance_transform(in, distance, memory, limit, on);
      },
      "mask"_a, "out"_a, "scratch"_a, "limit_px"_a, "stream"_a = 0,
      "mask bool or uint8 [H, W]; out float32 [H, W].");
  m.def(
      "distance_transform_scratch",
      [](i64 height, i64 width) {
        check_sides(height, width);
        return distance_transform_scratch(height, width);
      },
      "height"_a, "width"_a, "Bytes of scratch memory for a mask of this size.");
}

}  // namespace trtseg
