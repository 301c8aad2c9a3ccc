// Arrays in host memory: the buffer protocol, __array_interface__, DLPack.
#include <deque>

#include "bindings/array.h"

namespace trtseg {
namespace {

// Struct-module code of one element, without the byte order of this machine.
void set_format(Array& array, const char* format, i64 item) {
  std::string code = format == nullptr ? "B" : format;
  array.dtype_name = "buffer format '" + code + "'";
  if (!code.empty() && (code[0] == '@' || code[0] == '=' || code[0] == '<')) code.erase(0, 1);
  if (code == "f") set_typestr(array, "<f4");
  if (code == "e") set_typestr(array, "<f2");
  if (code == "d") array.dtype_name = "float64";
  if (code == "H") set_typestr(array, "<u2");
  if (code == "B") set_typestr(array, "|u1");
  if (code == "?") set_typestr(array, "|b1");
  if (code == "i" || code == "l" || code == "q") {
    if (item == 4) set_typestr(array, "<i4");
    if (item == 8) array.dtype_name = "int64";
  }
}

}  // namespace

struct Arguments::State {
  std::deque<Py_buffer> buffers;
  std::vector<py::object> owners;
  std::vector<void*> tensors;
  Stream stream;
};

Arguments::Arguments(py::handle stream) {
  const std::uintptr_t handle = as_stream(stream);
  state_ = new State;
  state_->stream.handle = handle;  // passed on, for the emulated kernels; the CPU ignores it
}

Arguments::~Arguments() {
  for (Py_buffer& buffer : state_->buffers) PyBuffer_Release(&buffer);
  for (void* tensor : state_->tensors) release_dlpack(tensor);
  delete state_;
}

Array Arguments::acquire(py::handle object, const char* name, bool writable) {
  Array array;
  if (PyObject_CheckBuffer(object.ptr()) != 0) {
    state_->buffers.emplace_back();
    Py_buffer& buffer = state_->buffers.back();
    if (PyObject_GetBuffer(object.ptr(), &buffer, PyBUF_STRIDES | PyBUF_FORMAT) != 0) {
      state_->buffers.pop_back();
      const py::error_already_set error;
      throw py::type_error(std::string(name) + ": expected an array that can be shared, got " +
                           type_name(object) + ": " + std::string(py::str(error.value())));
    }
    set_format(array, buffer.format, buffer.itemsize);
    array.data = buffer.buf;
    array.readonly = buffer.readonly != 0;
    array.shape.assign(buffer.shape, buffer.shape + buffer.ndim);
    for (int i = 0; i < buffer.ndim; ++i) {
      const i64 item = buffer.itemsize > 0 ? buffer.itemsize : 1;  // 0: a structure of no fields
      if (buffer.strides[i] % item != 0) {
        fail(name, "strides that are whole elements", std::to_string(buffer.strides[i]) + " bytes");
      }
      array.stride.push_back(buffer.strides[i] / item);
    }
  } else if (py::hasattr(object, "__array_interface__")) {
    array = from_interface(interface_of(object, "__array_interface__", name), name);
    state_->owners.push_back(py::reinterpret_borrow<py::object>(object));
  } else if (dlpack_device(object) == kHost) {
    const DlpackTensor taken = take_dlpack(object, name, py::none());
    state_->tensors.push_back(taken.managed);
    array = taken.array;
  } else {
    throw py::type_error(std::string(name) + ": expected an array in host memory, got " +
                         type_name(object));
  }
  check_memory(array, name, writable);
  return array;
}

Stream Arguments::begin() { return state_->stream; }

void check_inside(View<const std::int32_t, 2> pixels, i64 height, i64 width, const char* name) {
  for (i64 i = 0; i < pixels.shape[0]; ++i) {
    const i64 y = pixels(i, 0), x = pixels(i, 1);
    if (y < 0 || y >= height || x < 0 || x >= width) {
      fail(name, "pixels (y, x) inside " + shape_text({height, width}),
           "(" + std::to_string(y) + ", " + std::to_string(x) + ")");
    }
  }
}

}  // namespace trtseg
