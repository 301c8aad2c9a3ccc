#include "ops/best_map.h"

#include "bindings/array.h"
#include "bindings/module.h"

namespace trtseg {

using namespace pybind11::literals;

void bind_best_map(py::module_& m) {
  m.def(
      "best_map",
      [](py::object maps, py::object scores, py::object out, py::object stream) {
        Arguments arguments(stream);
        with_float_type(arguments.float_type(maps, "maps"), [&](auto type) {
          using T = decltype(type);
          const auto m = arguments.input<T, 3>(maps, "maps", {kAny, kAny, kAny});
          for (int i = 0; i < 3; ++i) check_positive("maps", m.shape[i]);
          with_float_type(arguments.float_type(scores, "scores"), [&](auto score_type) {
            using S = decltype(score_type);
            const auto s = arguments.input<S, 1>(scores, "scores", {m.shape[0]});
            const auto o = arguments.output<T, 2>(out, "out", {m.shape[1], m.shape[2]});
            const Stream on = arguments.begin();
            py::gil_scoped_release unlocked;
            best_map<T, S>(m, s, o, on);
          });
        });
      },
      "maps"_a, "scores"_a, "out"_a, "stream"_a = 0,
      "maps float32 or float16 [M, h, w]; scores float32 or float16 [M]; out [h, w] as the maps.");
}

}  // namespace trtseg
