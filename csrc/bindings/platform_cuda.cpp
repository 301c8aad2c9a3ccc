#include <cuda_runtime.h>
#include <pybind11/pybind11.h>

#include <exception>

#include "bindings/module.h"
#include "core/check.cuh"

namespace trtseg {
namespace {

namespace py = pybind11;

bool is_unavailable(cudaError_t code) {
  return code == cudaErrorNoDevice || code == cudaErrorInsufficientDriver ||
         code == cudaErrorStubLibrary || code == cudaErrorInitializationError ||
         code == cudaErrorSystemNotReady || code == cudaErrorSystemDriverMismatch ||
         code == cudaErrorCompatNotSupportedOnDevice || code == cudaErrorNoKernelImageForDevice;
}

// A missing driver, device or kernel image is the machine's state; anything else is an error.
void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const CudaError& error) {
    if (is_unavailable(error.code)) {
      const auto type = py::module_::import("trtseg.errors").attr("BackendUnavailable");
      PyErr_SetString(type.ptr(), error.what());
    } else {
      PyErr_SetString(PyExc_RuntimeError, error.what());
    }
  }
}

py::list devices() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  py::list found;
  if (status != cudaSuccess && is_unavailable(status)) return found;
  check_cuda(status, "devices");
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    check_cuda(cudaGetDeviceProperties(&properties, i), "devices");
    py::dict device;
    device["name"] = properties.name;
    device["compute_capability"] = py::make_tuple(properties.major, properties.minor);
    device["memory_mib"] = properties.totalGlobalMem >> 20;
    device["multiprocessors"] = properties.multiProcessorCount;
    found.append(device);
  }
  return found;
}

}  // namespace

void bind_platform(py::module_& m) {
  py::register_local_exception_translator(&translate);
  m.def("devices", &devices,
        "One dictionary per CUDA device; an empty list without a driver or device.");
}

}  // namespace trtseg
