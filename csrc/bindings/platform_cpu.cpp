#include <pybind11/pybind11.h>

#include "bindings/module.h"
#include "core/parallel.h"

namespace trtseg {

void bind_platform(pybind11::module_& m) {
  m.def("num_threads", &num_threads, "Threads that a native loop uses.");
  m.def("set_num_threads", &set_num_threads, pybind11::arg("count"),
        "Clamped to between 1 and the machine's cores.");
}

}  // namespace trtseg
