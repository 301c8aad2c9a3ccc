#include "ops/click_maps.h"

#include <cmath>

#include "bindings/array.h"
#include "bindings/module.h"

namespace trtseg {

using namespace pybind11::literals;

void bind_click_maps(py::module_& m) {
  m.def(
      "click_maps",
      [](py::object points, py::object out, py::object limit_px, py::object sigma_px,
         py::object stream) {
        Arguments arguments(stream);
        const float limit = as_float(limit_px, "limit_px");
        if (!(limit > 0) || !std::isfinite(limit)) {
          fail("limit_px", "a finite number above 0", std::to_string(limit));
        }
        ClickMaps with{limit, 0.0f};
        if (!sigma_px.is_none()) {
          const float sigma = as_float(sigma_px, "sigma_px");
          with.falloff = static_cast<float>(-0.5 / (static_cast<double>(sigma) * sigma));
          if (!(sigma > 0) || !std::isfinite(with.falloff) || with.falloff == 0.0f) {
            fail("sigma_px", "a finite number above 0", std::to_string(sigma));
          }
        }
        const auto p = arguments.input<float, 3>(points, "points", {2, kAny, 2}, Layout::dense);
        with_float_type(arguments.float_type(out, "out"), [&](auto type) {
          using T = decltype(type);
          const auto o = arguments.output<T, 3>(out, "out", {4, kAny, kAny});
          check_side("out", o.shape[1]);
          check_side("out", o.shape[2]);
          const Stream on = arguments.begin();
          py::gil_scoped_release unlocked;
          click_maps<T>(p, with, o, on);
        });
      },
      "points"_a, "out"_a, "limit_px"_a, "sigma_px"_a, "stream"_a = 0,
      "points float32 [2, N, 2] (y, x), NaN for none; out float32 or float16 [4, H, W]; sigma_px a "
      "number or None.");
}

}  // namespace trtseg
