#include "ops/jaccard.h"

#include "bindings/array.h"
#include "bindings/module.h"

namespace trtseg {
namespace {

using namespace pybind11::literals;

void check_sizes(const char* name, i64 masks, i64 height, i64 width) {
  if (masks < 1 || masks > kMaxMasks) {
    fail(name, "1 to " + std::to_string(kMaxMasks) + " masks", std::to_string(masks));
  }
  if (height < 1 || width < 1) {
    fail(name, "sides of at least 1", shape_text({masks, height, width}));
  }
}

void call_jaccard(py::object masks, py::object target, py::object positive, py::object negative,
             py::object loss, py::object penalty, py::object sums, py::object scratch,
             py::object stream) {
  Arguments arguments(stream);
  with_float_type(arguments.float_type(masks, "masks"), [&](auto type) {
    using T = decltype(type);
    const auto m = arguments.input<T, 3>(masks, "masks", {kAny, kAny, kAny}, Layout::dense);
    const i64 count = m.shape[0], height = m.shape[1], width = m.shape[2];
    check_sizes("masks", count, height, width);
    const auto t = arguments.mask_input(target, "target", {height, width}, Layout::dense);
    const auto p = arguments.input<std::int32_t, 2>(positive, "positive", {kAny, 2});
    const auto n = arguments.input<std::int32_t, 2>(negative, "negative", {kAny, 2});
    check_inside(p, height, width, "positive");
    check_inside(n, height, width, "negative");
    const auto l = arguments.output<float, 1>(loss, "loss", {count});
    const auto q = arguments.output<float, 1>(penalty, "penalty", {count});
    const auto s = arguments.output<float, 2>(sums, "sums", {count, 2}, Layout::dense);
    const auto memory = arguments.scratch(scratch, jaccard_scratch(count, height, width));
    const Stream on = arguments.begin();
    py::gil_scoped_release unlocked;
    jaccard<T>(m, t, p, n, l, q, s, memory, on);
  });
}

void call_gradient(py::object target, py::object positive, py::object negative, py::object sums,
              py::object loss_weight, py::object penalty_weight, py::object grad,
              py::object stream) {
  Arguments arguments(stream);
  with_float_type(arguments.float_type(grad, "grad"), [&](auto type) {
    using T = decltype(type);
    const auto g = arguments.output<T, 3>(grad, "grad", {kAny, kAny, kAny}, Layout::dense);
    const i64 count = g.shape[0], height = g.shape[1], width = g.shape[2];
    check_sizes("grad", count, height, width);
    const auto t = arguments.mask_input(target, "target", {height, width}, Layout::dense);
    const auto p = arguments.input<std::int32_t, 2>(positive, "positive", {kAny, 2});
    const auto n = arguments.input<std::int32_t, 2>(negative, "negative", {kAny, 2});
    check_inside(p, height, width, "positive");
    check_inside(n, height, width, "negative");
    const auto s = arguments.input<float, 2>(sums, "sums", {count, 2}, Layout::dense);
    const auto l = arguments.input<float, 1>(loss_weight, "loss_weight", {count});
    const auto q = arguments.input<float, 1>(penalty_weight, "penalty_weight", {count});
    const Stream on = arguments.begin();
    py::gil_scoped_release unlocked;
    jaccard_gradient<T>(t, p, n, s, l, q, g, on);
  });
}

}  // namespace

void bind_jaccard(py::module_& m) {
  m.def("jaccard", &call_jaccard, "masks"_a, "target"_a, "positive"_a, "negative"_a, "loss"_a,
        "penalty"_a, "sums"_a, "scratch"_a, "stream"_a = 0,
        "masks T [M, H, W]; target uint8 [H, W]; positive int32 [P, 2] and negative int32 [Q, 2] "
        "(y, x); loss, penalty float32 [M]; sums float32 [M, 2]; T: float32 or float16.");
  m.def("jaccard_gradient", &call_gradient, "target"_a, "positive"_a, "negative"_a, "sums"_a,
        "loss_weight"_a, "penalty_weight"_a, "grad"_a, "stream"_a = 0,
        "sums float32 [M, 2] of the forward pass; weights float32 [M]; grad T [M, H, W].");
  m.def("jaccard_scratch", &jaccard_scratch, "masks"_a, "height"_a, "width"_a,
        "Bytes of scratch memory.");
}

}  // namespace trtseg
