#include "ops/hypercolumn.h"

#include "bindings/array.h"
#include "bindings/module.h"

namespace trtseg {
namespace {

using namespace pybind11::literals;

py::tuple as_levels(py::object levels) {
  if (!PySequence_Check(levels.ptr()) || py::hasattr(levels, "shape")) {
    throw py::type_error("levels: expected a list of arrays, got " + type_name(levels));
  }
  const py::tuple list(levels);
  if (list.empty() || list.size() > kMaxLevels) {
    fail("levels", "1 to " + std::to_string(kMaxLevels) + " levels", std::to_string(list.size()));
  }
  return list;
}

std::string level_name(std::size_t l) { return "levels[" + std::to_string(l) + "]"; }

template <class T>
void check_sides(View<T, 3> map, const char* name) {
  check_positive(name, map.shape[0]);
  for (int i = 1; i < 3; ++i) check_side(name, map.shape[i]);
}

void call_hypercolumn(py::object levels, py::object image, py::object image_weight, py::object bias,
             py::object out, py::object stream) {
  Arguments arguments(stream);
  const py::tuple list = as_levels(levels);
  with_float_type(arguments.float_type(list[0], "levels[0]"), [&](auto type) {
    using T = decltype(type);
    Layout layout = Layout::rows;
    if (kHypercolumnTakesChannelsLast) {
      std::vector<Named> all;
      for (std::size_t l = 0; l < list.size(); ++l) all.push_back({level_name(l), list[l]});
      all.push_back({"out", out});
      layout = arguments.layout_of(all, layout);
    }
    i64 channels = kAny;
    Levels<const T> maps;
    maps.count = static_cast<int>(list.size());
    for (int l = 0; l < maps.count; ++l) {
      const std::string name = level_name(l);
      maps.level[l] = arguments.input<T, 3>(list[l], name.c_str(), {channels, kAny, kAny},
                                             layout);
      check_sides(maps.level[l], name.c_str());
      channels = maps.level[l].shape[0];
    }
    const auto o = arguments.output<T, 3>(out, "out", {channels, kAny, kAny}, layout);
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
    hypercolumn<T>(maps, i, w, b, o, on);
  });
}

}  // namespace

void bind_hypercolumn(py::module_& m) {
  m.def("hypercolumn", &call_hypercolumn, "levels"_a, "image"_a, "image_weight"_a, "bias"_a, "out"_a,
        "stream"_a = 0,
        "levels: list of T [C, h, w]; image T [3, H, W] and image_weight float32 [C, 3], or None; "
        "bias float32 [C] or None; out T [C, H, W]; T: float32 or float16. In _cuda levels and out "
        "also channels-last.");
}

}  // namespace trtseg
