#include "ops/guided_upsample.h"

#include <cmath>

#include "bindings/array.h"
#include "bindings/module.h"

namespace trtseg {

using namespace pybind11::literals;

void bind_guided_upsample(py::module_& m) {
  m.def(
      "guided_upsample",
      [](py::object values, py::object coarse, py::object guide, py::object epsilon_,
         py::object model, py::object out, py::object stream) {
        Arguments arguments(stream);
        const float epsilon = as_float(epsilon_, "epsilon");
        with_float_type(arguments.float_type(values, "values"), [&](auto type) {
          using T = decltype(type);
          const auto v = arguments.input<T, 2>(values, "values", {kAny, kAny});
          for (int i = 0; i < 2; ++i) check_side("values", v.shape[i]);
          const i64 height = v.shape[0], width = v.shape[1];
          const auto c = arguments.input<float, 2>(coarse, "coarse", {height, width});
          const auto g = arguments.input<float, 2>(guide, "guide", {kAny, kAny});
          for (int i = 0; i < 2; ++i) check_side("guide", g.shape[i]);
          if (!(epsilon > 0.0f) || std::isinf(epsilon)) {
            fail("epsilon", "a finite number above 0", std::to_string(epsilon));
          }
          const auto m = arguments.output<float, 3>(model, "model", {2, height, width});
          const auto o = arguments.output<float, 2>(out, "out", {g.shape[0], g.shape[1]});
          const Stream on = arguments.begin();
          py::gil_scoped_release unlocked;
          guided_upsample<T>(v, c, g, epsilon, m, o, on);
        });
      },
      "values"_a, "coarse"_a, "guide"_a, "epsilon"_a, "model"_a, "out"_a, "stream"_a = 0,
      "values float32 or float16 [h, w]; coarse float32 [h, w]; guide float32 [H, W]; model "
      "float32 [2, h, w]; out float32 [H, W].");
}

}  // namespace trtseg
