#include "ops/add_guidance.h"

#include <cmath>

#include "bindings/array.h"
#include "bindings/backend.h"
#include "bindings/module.h"

namespace trtseg {
namespace {

using namespace pybind11::literals;

void check_sizes(i64 channels, i64 maps, i64 height, i64 width) {
  if (channels < 1 || height < 1 || width < 1) {
    fail("base", "sides of at least 1", shape_text({channels, height, width}));
  }
  if (maps < 1 || maps > kMaxGuidance) {
    fail("guidance", "1 to " + std::to_string(kMaxGuidance) + " maps", std::to_string(maps));
  }
}

float as_slope(py::handle value) {
  const float slope = as_float(value, "slope");
  if (!std::isfinite(slope)) fail("slope", "a finite number", std::to_string(slope));
  return slope;
}

void forward(py::object base, py::object guidance, py::object weight, py::object out,
             py::object slope_, bool channels_last, py::object stream) {
  Arguments arguments(stream);
  const float slope = as_slope(slope_);
  with_float_type(arguments.float_type(base, "base"), [&](auto type) {
    using T = decltype(type);
    const auto b = arguments.input<T, 3>(base, "base", {kAny, kAny, kAny}, Layout::dense);
    const i64 channels = b.shape[0], height = b.shape[1], width = b.shape[2];
    const auto g = arguments.input<T, 3>(guidance, "guidance", {kAny, height, width},
                                         Layout::dense);
    check_sizes(channels, g.shape[0], height, width);
    const auto w = arguments.input<float, 2>(weight, "weight", {channels, g.shape[0]},
                                             Layout::dense);
    if (!channels_last) arguments.allow_in_place("out", "base");
    const auto o = channels_last
                       ? arguments.output<T, 3>(out, "out", {height, width, channels},
                                                Layout::dense)
                       : arguments.output<T, 3>(out, "out", {channels, height, width},
                                                Layout::dense);
    const Stream on = arguments.begin();
    py::gil_scoped_release unlocked;
    backend::add_guidance<T>(b, g, w, o, slope, channels_last, on);
  });
}

void backward(py::object grad, py::object base, py::object guidance, py::object weight,
              py::object slope_, py::object base_grad, py::object weight_grad, py::object scratch,
              py::object stream) {
  Arguments arguments(stream);
  const float slope = as_slope(slope_);
  with_float_type(arguments.float_type(base, "base"), [&](auto type) {
    using T = decltype(type);
    const auto b = arguments.input<T, 3>(base, "base", {kAny, kAny, kAny}, Layout::dense);
    const i64 channels = b.shape[0], height = b.shape[1], width = b.shape[2];
    const auto d = arguments.input<T, 3>(grad, "grad", {channels, height, width}, Layout::dense);
    const auto g = arguments.input<T, 3>(guidance, "guidance", {kAny, height, width},
                                         Layout::dense);
    check_sizes(channels, g.shape[0], height, width);
    const auto w = arguments.input<float, 2>(weight, "weight", {channels, g.shape[0]},
                                             Layout::dense);
    const auto db = arguments.output<T, 3>(base_grad, "base_grad", {channels, height, width},
                                           Layout::dense);
    const auto dw = arguments.output<float, 2>(weight_grad, "weight_grad", {channels, g.shape[0]},
                                               Layout::dense);
    const auto memory = arguments.scratch(
        scratch, backend::add_guidance_backward_scratch(channels, g.shape[0], height, width));
    const Stream on = arguments.begin();
    py::gil_scoped_release unlocked;
    backend::add_guidance_backward<T>(d, b, g, w, slope, db, dw, memory, on);
  });
}

}  // namespace

void bind_add_guidance(py::module_& m) {
  m.def("add_guidance", &forward, "base"_a, "guidance"_a, "weight"_a, "out"_a, "slope"_a,
        "channels_last"_a = false, "stream"_a = 0,
        "base T [C, H, W]; guidance T [G, H, W]; weight float32 [C, G]; out T [C, H, W] or "
        "[H, W, C]; T: float32 or float16.");
  m.def("add_guidance_backward", &backward, "grad"_a, "base"_a, "guidance"_a, "weight"_a,
        "slope"_a, "base_grad"_a, "weight_grad"_a, "scratch"_a, "stream"_a = 0,
        "grad, base, base_grad T [C, H, W]; guidance T [G, H, W]; weight, weight_grad float32 "
        "[C, G].");
  m.def("add_guidance_backward_scratch", &backend::add_guidance_backward_scratch, "channels"_a,
        "guidance"_a, "height"_a, "width"_a, "Bytes of scratch memory.");
}

}  // namespace trtseg
