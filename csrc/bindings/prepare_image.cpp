#include "ops/prepare_image.h"

#include <cmath>

#include "bindings/array.h"
#include "bindings/module.h"

namespace trtseg {

using namespace pybind11::literals;

static void take_three(py::handle values, const char* name, float (&target)[3]) {
  py::tuple three;
  try {
    three = py::tuple(py::reinterpret_borrow<py::object>(values));
  } catch (py::error_already_set&) {
    throw py::type_error(std::string(name) + ": expected three numbers, got " + type_name(values));
  }
  if (three.size() != 3) fail(name, "three numbers", std::to_string(three.size()));
  for (std::size_t i = 0; i < 3; ++i) {
    target[i] = as_float(three[i], name);
    if (!std::isfinite(target[i])) fail(name, "finite numbers", std::to_string(target[i]));
  }
}

template <class S>
constexpr float kWhite = 1.0f;
template <>
constexpr float kWhite<std::uint8_t> = 255.0f;
template <>
constexpr float kWhite<std::uint16_t> = 65535.0f;

template <class S>
static void prepare(Arguments& arguments, py::handle pixels, Preparation with, py::handle out) {
  with.full = kWhite<S>;
  const auto p = arguments.input<S, 3>(pixels, "pixels", {kAny, kAny, kAny});
  const i64 channels = p.shape[2];
  if (channels != 1 && channels != 3 && channels != 4) {
    fail("pixels", "1, 3 or 4 channels", std::to_string(channels));
  }
  for (int i = 0; i < 2; ++i) check_side("pixels", p.shape[i]);
  with_float_type(arguments.float_type(out, "out"), [&](auto type) {
    using T = decltype(type);
    const auto o = arguments.output<T, 3>(out, "out", {3, kAny, kAny});
    for (int i = 1; i < 3; ++i) check_side("out", o.shape[i]);
    const Stream on = arguments.begin();
    py::gil_scoped_release unlocked;
    prepare_image<S, T>(p, with, o, on);
  });
}

void bind_prepare_image(py::module_& m) {
  m.def(
      "prepare_image",
      [](py::object pixels, py::object mean, py::object scale, bool bgr, py::object out,
         py::object stream) {
        Arguments arguments(stream);
        Preparation with;
        take_three(mean, "mean", with.mean);
        take_three(scale, "scale", with.scale);
        with.bgr = bgr;
        const Array array = arguments.acquire(pixels, "pixels", false);
        switch (array.dtype) {
          case Dtype::uint8: return prepare<std::uint8_t>(arguments, pixels, with, out);
          case Dtype::uint16: return prepare<std::uint16_t>(arguments, pixels, with, out);
          case Dtype::float16: return prepare<half>(arguments, pixels, with, out);
          case Dtype::float32: return prepare<float>(arguments, pixels, with, out);
          default:
            throw py::type_error("pixels: expected uint8, uint16, float16 or float32, got " +
                                 array.dtype_name);
        }
      },
      "pixels"_a, "mean"_a, "scale"_a, "bgr"_a, "out"_a, "stream"_a = 0,
      "pixels uint8, uint16, float16 or float32 [H, W, 1 | 3 | 4]; mean and scale three numbers; "
      "out float32 or float16 [3, h, w].");
}

}  // namespace trtseg
