#include "ops/hypercolumn.h"

#include "bindings/array.h"
#include "bindings/backend.h"
#include "bindings/module.h"

namespace trtseg {
namespace {

using namespace pybind11::literals;

py::tuple as_levels(py::object levels, const char* name) {
  if (!PySequence_Check(levels.ptr()) || py::hasattr(levels, "shape")) {
    throw py::type_error(std::string(name) + ": expected a list of arrays, got " +
                         type_name(levels));
  }
  const py::tuple list(levels);
  if (list.empty() || list.size() > kMaxLevels) {
    fail(name, "1 to " + std::to_string(kMaxLevels) + " levels", std::to_string(list.size()));
  }
  return list;
}

std::string element(const char* name, int i) {
  return std::string(name) + "[" + std::to_string(i) + "]";
}

template <class T, int N>
void check_sides(View<T, N> view, const char* name) {
  for (int i = 0; i < N; ++i) check_positive(name, view.shape[i]);
}

void forward(py::object levels, py::object image, py::object image_weight, py::object bias,
             py::object out, py::object stream) {
  Arguments arguments(stream);
  const py::tuple list = as_levels(levels, "levels");
  with_float_type(arguments.float_type(list[0], "levels[0]"), [&](auto type) {
    using T = decltype(type);
    i64 channels = kAny;
    Levels<const T> maps;
    maps.count = static_cast<int>(list.size());
    for (int l = 0; l < maps.count; ++l) {
      const std::string name = element("levels", l);
      maps.level[l] = arguments.input<T, 3>(list[l], name.c_str(), {channels, kAny, kAny});
      check_sides(maps.level[l], name.c_str());
      channels = maps.level[l].shape[0];
    }
    const auto o = arguments.output<T, 3>(out, "out", {channels, kAny, kAny});
    check_sides(o, "out");
    if (image.is_none() != image_weight.is_none()) {
      const char* missing = image.is_none() ? "image" : "image_weight";
      fail(missing, "an array, since image and image_weight come together", "None");
    }
    const auto i = arguments.input<T, 3>(image, "image", {3, o.shape[1], o.shape[2]}, Layout::rows,
                                         true);
    const auto w = arguments.input<float, 2>(image_weight, "image_weight", {channels, 3},
                                             Layout::rows, true);
    const auto b = arguments.input<float, 1>(bias, "bias", {channels}, Layout::rows, true);
    const Stream on = arguments.begin();
    py::gil_scoped_release unlocked;
    backend::hypercolumn<T>(maps, i, w, b, o, on);
  });
}

void backward(py::object grad, py::object level_grads, py::object stream) {
  Arguments arguments(stream);
  const py::tuple list = as_levels(level_grads, "level_grads");
  with_float_type(arguments.float_type(grad, "grad"), [&](auto type) {
    using T = decltype(type);
    const auto g = arguments.input<T, 3>(grad, "grad", {kAny, kAny, kAny});
    check_sides(g, "grad");
    Levels<T> maps;
    maps.count = static_cast<int>(list.size());
    for (int l = 0; l < maps.count; ++l) {
      const std::string name = element("level_grads", l);
      maps.level[l] = arguments.output<T, 3>(list[l], name.c_str(), {g.shape[0], kAny, kAny});
      check_sides(maps.level[l], name.c_str());
    }
    const Stream on = arguments.begin();
    py::gil_scoped_release unlocked;
    backend::hypercolumn_backward<T>(g, maps, on);
  });
}

}  // namespace

void bind_hypercolumn(py::module_& m) {
  m.def("hypercolumn", &forward, "levels"_a, "image"_a, "image_weight"_a, "bias"_a, "out"_a,
        "stream"_a = 0,
        "levels: list of T [C, h, w]; image T [3, H, W] and image_weight float32 [C, 3], or None; "
        "bias float32 [C] or None; out T [C, H, W]; T: float32 or float16.");
  m.def("hypercolumn_backward", &backward, "grad"_a, "level_grads"_a, "stream"_a = 0,
        "grad T [C, H, W]; level_grads: list of T [C, h, w] to write.");
}

}  // namespace trtseg
