// Arrays in device memory: __cuda_array_interface__ and DLPack.
#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>

#include "bindings/array.h"
#include "core/check.cuh"

namespace trtseg {
namespace {

// In both protocols 1 is the legacy default stream, which launches know as 0.
std::uintptr_t spelled_out(std::uintptr_t stream) { return stream == 0 ? 1 : stream; }

// The first call of a process finds out whether there is a driver and a device.
void require_device() {
  static std::atomic<bool> found{false};
  if (found.load(std::memory_order_relaxed)) return;
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "CUDA cannot be used here");
  found.store(true, std::memory_order_relaxed);
}

// Makes `stream` wait for what has been issued to `producer` so far.
void wait_for(cudaStream_t stream, cudaStream_t producer) {
  cudaEvent_t event;
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event");
  cudaError_t status = cudaEventRecord(event, producer);
  if (status == cudaSuccess) status = cudaStreamWaitEvent(stream, event, 0);
  cudaEventDestroy(event);  // takes effect once the event has been reached
  check_cuda(status, "waiting for the stream that an argument names");
}

}  // namespace

struct Arguments::State {
  std::uintptr_t stream;
  int device = -1;           // of the first array; -1: none yet
  int previous_device = -1;  // to make current again; -1: unchanged
  std::vector<std::uintptr_t> producers;
  std::vector<py::object> owners;
  std::vector<void*> tensors;
};

Arguments::Arguments(py::handle stream) {
  const std::uintptr_t handle = as_stream(stream);
  require_device();
  state_ = new State;
  state_->stream = handle;
}

Arguments::~Arguments() {
  for (void* tensor : state_->tensors) release_dlpack(tensor);
  if (state_->previous_device >= 0) cudaSetDevice(state_->previous_device);
  delete state_;
}

Array Arguments::acquire(py::handle object, const char* name, bool writable) {
  Array array;
  if (py::hasattr(object, "__cuda_array_interface__")) {
    const py::dict interface = interface_of(object, "__cuda_array_interface__", name);
    array = from_interface(interface, name);
    state_->owners.push_back(py::reinterpret_borrow<py::object>(object));
    if (interface.contains("stream") && !interface["stream"].is_none()) {
      const auto producer = interface["stream"].cast<std::uintptr_t>();
      auto& known = state_->producers;
      if (std::find(known.begin(), known.end(), producer) == known.end()) {
        known.push_back(producer);
      }
    }
  } else if (const int device = dlpack_device(object); device == kCuda || device == kCudaManaged) {
    // The producer makes our stream wait for it.
    const DlpackTensor taken = take_dlpack(object, name, py::int_(spelled_out(state_->stream)));
    state_->tensors.push_back(taken.managed);
    array = taken.array;
  } else {
    throw py::type_error(std::string(name) + ": expected an array in CUDA memory, got " +
                         type_name(object));
  }
  check_memory(array, name, writable);
  for (const i64 side : array.shape) {
    if (side == 0) return array;
  }
  cudaPointerAttributes memory;
  check_cuda(cudaPointerGetAttributes(&memory, array.data), name);
  if (memory.type != cudaMemoryTypeDevice && memory.type != cudaMemoryTypeManaged) {
    throw py::type_error(std::string(name) + ": expected an array in CUDA memory, got one in host "
                                             "memory");
  }
  if (state_->device < 0) state_->device = memory.device;
  if (state_->device != memory.device) {
    fail(name, "memory of device " + std::to_string(state_->device) + ", as the others",
         "memory of device " + std::to_string(memory.device));
  }
  return array;
}

Stream Arguments::begin() {
  int current = 0;
  check_cuda(cudaGetDevice(&current), "device");
  if (state_->device >= 0 && state_->device != current) {
    check_cuda(cudaSetDevice(state_->device), "device");
    state_->previous_device = current;
  }
  const Stream stream{state_->stream};
  for (const std::uintptr_t producer : state_->producers) {
    if (spelled_out(producer) == spelled_out(stream.handle)) continue;
    wait_for(cuda_stream(stream), reinterpret_cast<cudaStream_t>(producer));
  }
  return stream;
}

// Only the device can look at these values, and looking would mean waiting for it.
void check_inside(View<const std::int32_t, 2>, i64, i64, const char*) {}

}  // namespace trtseg
