#include "ops/distance_map.h"

#include <cmath>

#include "bindings/array.h"
#include "bindings/backend.h"
#include "bindings/module.h"

namespace trtseg {

using namespace pybind11::literals;

constexpr float kLargestHalf = 65504.0f;

void bind_distance_map(py::module_& m) {
  m.def(
      "distance_map",
      [](py::object points, py::object out, py::object limit_px, bool accumulate,
         py::object stream) {
        Arguments arguments(stream);
        const float limit = as_float(limit_px, "limit_px");
        const auto p = arguments.input<float, 2>(points, "points", {kAny, 2});
        check_finite(p, "points");
        if (!(limit > 0) || !std::isfinite(limit)) {
          fail("limit_px", "a finite number above 0", std::to_string(limit));
        }
        with_float_type(arguments.float_type(out, "out"), [&](auto type) {
          using T = decltype(type);
          const auto o = arguments.output<T, 2>(out, "out", {kAny, kAny});
          check_positive("out", o.shape[0]);
          check_positive("out", o.shape[1]);
          // Else the limit itself would be stored as infinity.
          if (std::is_same<T, half>::value && limit > kLargestHalf) {
            fail("limit_px", "at most 65504 for a float16 map", std::to_string(limit));
          }
          const Stream on = arguments.begin();
          py::gil_scoped_release unlocked;
          backend::distance_map<T>(p, o, limit, accumulate, on);
        });
      },
      "points"_a, "out"_a, "limit_px"_a, "accumulate"_a = false, "stream"_a = 0,
      "points float32 [N, 2] (y, x); out float32 or float16 [H, W].");
}

}  // namespace trtseg
