#include "ops/add_guidance.h"

#include <cmath>

#include "bindings/array.h"
#include "bindings/module.h"

namespace trtseg {

using namespace pybind11::literals;

static void check_sizes(i64 channels, i64 maps, i64 height, i64 width) {
  if (channels < 1 || height < 1 || width < 1) {
    fail("base", "sides of at least 1", shape_text({channels, height, width}));
  }
  if (maps < 1 || maps > kMaxGuidance) {
    fail("guidance", "1 to " + std::to_string(kMaxGuidance) + " maps", std::to_string(maps));
  }
}

void bind_add_guidance(py::module_& m) {
  m.def(
      "add_guidance",
      [](py::object base, py::object guidance, py::object weight, py::object out, py::object slope_,
         py::object stream) {
        Arguments arguments(stream);
        const float slope = as_float(slope_, "slope");
        if (!std::isfinite(slope)) fail("slope", "a finite number", std::to_string(slope));
        with_float_type(arguments.float_type(base, "base"), [&](auto type) {
          using T = decltype(type);
          Layout layout = Layout::dense;
          if (kAddGuidanceTakesChannelsLast) {
            layout = arguments.layout_of({{"base", base}, {"out", out}}, layout);
          }
          const auto b = arguments.input<T, 3>(base, "base", {kAny, kAny, kAny}, layout);
          const i64 channels = b.shape[0], height = b.shape[1], width = b.shape[2];
          const auto g = arguments.input<T, 3>(guidance, "guidance", {kAny, height, width},
                                               Layout::dense);
          check_sizes(channels, g.shape[0], height, width);
          const auto w = arguments.input<float, 2>(weight, "weight", {channels, g.shape[0]},
                                                   Layout::dense);
          arguments.allow_in_place("out", "base");
          const auto o = arguments.output<T, 3>(out, "out", {channels, height, width}, layout);
          const Stream on = arguments.begin();
          py::gil_scoped_release unlocked;
          add_guidance<T>(b, g, w, o, slope, on);
        });
      },
      "base"_a, "guidance"_a, "weight"_a, "out"_a, "slope"_a, "stream"_a = 0,
      "base, out T [C, H, W], in _cuda also channels-last; guidance T [G, H, W]; weight float32 "
      "[C, G]; T: float32 or float16.");
}

}  // namespace trtseg
