#include "ops/compose_mask.h"

#include <cmath>

#include "bindings/array.h"
#include "bindings/module.h"

namespace trtseg {

using namespace pybind11::literals;

void bind_compose_mask(py::module_& m) {
  m.def(
      "compose_mask",
      [](py::object probability, py::object threshold_, py::object out, py::object out_probability,
         py::object stream) {
        Arguments arguments(stream);
        const float threshold = as_float(threshold_, "threshold");
        with_float_type(arguments.float_type(probability, "probability"), [&](auto type) {
          using T = decltype(type);
          const auto p = arguments.input<T, 2>(probability, "probability", {kAny, kAny});
          for (int i = 0; i < 2; ++i) check_side("probability", p.shape[i]);
          const auto o = arguments.output<std::uint8_t, 2>(out, "out", {kAny, kAny});
          const i64 height = o.shape[0], width = o.shape[1];
          for (int i = 0; i < 2; ++i) check_side("out", o.shape[i]);
          if (std::isnan(threshold)) fail("threshold", "a number", "nan");
          const auto op = arguments.output<float, 2>(out_probability, "out_probability",
                                                     {height, width}, Layout::rows, true);
          const Stream on = arguments.begin();
          py::gil_scoped_release unlocked;
          compose_mask<T>(p, threshold, o, op, on);
        });
      },
      "probability"_a, "threshold"_a, "out"_a, "out_probability"_a, "stream"_a = 0,
      "probability float32 or float16 [h, w]; out uint8 [H, W]; out_probability float32 [H, W] or "
      "None.");
}

}  // namespace trtseg
