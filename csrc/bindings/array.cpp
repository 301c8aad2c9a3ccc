#include "bindings/array.h"

namespace trtseg {
namespace {

const char* name_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::float32: return "float32";
    case Dtype::float16: return "float16";
    case Dtype::int32: return "int32";
    case Dtype::uint16: return "uint16";
    case Dtype::uint8: return "uint8";
    case Dtype::boolean: return "bool";
    case Dtype::other: break;
  }
  return "other";
}

// Bytes of an element; 1 for types that are refused later.
i64 item_size(Dtype dtype) {
  if (dtype == Dtype::float32 || dtype == Dtype::int32) return 4;
  return dtype == Dtype::float16 || dtype == Dtype::uint16 ? 2 : 1;
}

// The ABI of DLPack 0.x, as far as it is read here.
struct DlManaged {
  struct {
    void* data;
    std::int32_t device_type;
    std::int32_t device_id;
    std::int32_t rank;
    struct {
      std::uint8_t code, bits;
      std::uint16_t lanes;
    } dtype;
    std::int64_t* shape;
    std::int64_t* strides;
    std::uint64_t byte_offset;
  } tensor;
  void* context;
  void (*deleter)(DlManaged*);
};

Dtype dlpack_dtype(int code, int bits) {
  if (code == 2 && bits == 32) return Dtype::float32;
  if (code == 2 && bits == 16) return Dtype::float16;
  if (code == 0 && bits == 32) return Dtype::int32;
  if (code == 1 && bits == 16) return Dtype::uint16;
  if (code == 1 && bits == 8) return Dtype::uint8;
  if (code == 6 && bits == 8) return Dtype::boolean;
  return Dtype::other;
}

std::string dlpack_name(int code, int bits) {
  const char* const kinds[] = {"int", "uint", "float", "handle", "bfloat", "complex", "bool"};
  return (code < 7 ? std::string(kinds[code]) : "DLPack type " + std::to_string(code) + "/") +
         std::to_string(bits);
}

std::vector<i64> as_integers(py::handle numbers) {
  std::vector<i64> list;
  for (const py::handle number : numbers) list.push_back(number.cast<i64>());
  return list;
}

void set_dense_strides(Array& array) {
  array.stride.assign(array.shape.size(), 1);
  for (std::size_t i = array.shape.size(); i-- > 1;) {
    array.stride[i - 1] = array.stride[i] * array.shape[i];
  }
}

}  // namespace

std::string shape_text(const std::vector<i64>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += shape[i] == kAny ? std::string("any") : std::to_string(shape[i]);
  }
  return text + "]";
}

void fail(const char* name, const std::string& expected, const std::string& got) {
  throw py::value_error(std::string(name) + ": expected " + expected + ", got " + got);
}

std::string type_name(py::handle object) {
  return std::string(py::str(py::type::of(object).attr("__name__")));
}

void check_positive(const char* name, i64 value) {
  if (value < 1) fail(name, "sides of at least 1", std::to_string(value));
}

void check_side(const char* name, i64 value) {
  check_positive(name, value);
  if (value > kMaxSide) {
    fail(name, "sides of at most " + std::to_string(kMaxSide), std::to_string(value));
  }
}

void check_dtype(const Array& array, Dtype wanted, const char* name) {
  if (array.dtype == wanted) return;
  throw py::type_error(std::string(name) + ": expected " + name_of(wanted) + ", got " +
                       array.dtype_name);
}

// Whether stepping along the axes, given from the innermost one outwards, goes through memory
// without gaps. The strides of axes of length 1 mean nothing.
static bool is_dense(const Array& array, const std::vector<std::size_t>& axes) {
  i64 dense = 1;
  for (const std::size_t axis : axes) {
    if (array.shape[axis] > 1 && array.stride[axis] != dense) return false;
    dense *= array.shape[axis];
  }
  return true;
}

static bool is_channels_last(const Array& array) {
  return array.shape.size() == 3 && is_dense(array, {0, 2, 1});
}

static bool is_planar(const Array& array, Layout layout) {
  std::vector<std::size_t> axes;
  for (std::size_t i = array.shape.size(); i-- > 0;) axes.push_back(i);
  if (layout == Layout::rows && axes.size() > 1) axes.resize(1);
  return is_dense(array, axes);
}

Layout Arguments::layout_of(const std::vector<Named>& maps, Layout otherwise) {
  for (const auto& [name, map] : maps) {
    const Array array = acquire(map, name.c_str(), false);
    const bool last = is_channels_last(array);
    if (last != is_planar(array, otherwise)) return last ? Layout::channels_last : otherwise;
  }
  return otherwise;
}

void check_layout(const Array& array, const std::vector<i64>& shape, Layout layout,
                  const char* name) {
  bool fits = array.shape.size() == shape.size();
  for (std::size_t i = 0; fits && i < shape.size(); ++i) {
    fits = shape[i] == kAny || shape[i] == array.shape[i];
  }
  if (!fits) fail(name, "shape " + shape_text(shape), shape_text(array.shape));
  for (const i64 side : array.shape) {
    if (side == 0) return;  // the strides of nothing mean nothing
  }
  const bool last = layout == Layout::channels_last;
  if (last ? is_channels_last(array) : is_planar(array, layout)) return;
  const char* const expected = last                      ? "channels-last maps, as the others"
                               : layout == Layout::dense ? "a C-contiguous array"
                                                         : "contiguous rows";
  fail(name, expected,
       std::string(!last && is_channels_last(array) ? "channels-last " : "") + "strides " +
           shape_text(array.stride) + " for shape " + shape_text(array.shape));
}

void check_memory(Array& array, const char* name, bool writable) {
  alignas(16) static char nowhere[16];
  if (writable && array.readonly) fail(name, "a writable array", "a read-only one");
  for (const i64 side : array.shape) {
    if (side == 0) array.data = nowhere;
  }
  if (array.data == nullptr) fail(name, "an array in memory", "a null address");
  const auto item = static_cast<std::uintptr_t>(item_size(array.dtype));
  if (reinterpret_cast<std::uintptr_t>(array.data) % item != 0) {
    fail(name, "aligned memory", "an address that is no multiple of the element's size");
  }
}

View<const std::uint8_t, 2> Arguments::mask_input(py::handle object, const char* name,
                                                  std::initializer_list<i64> shape,
                                                  Layout layout) {
  Array array = acquire(object, name, false);
  if (array.dtype != Dtype::uint8 && array.dtype != Dtype::boolean) {
    throw py::type_error(std::string(name) + ": expected bool or uint8, got " + array.dtype_name);
  }
  array.dtype = Dtype::uint8;  // both are one byte, zero or not
  return typed<const std::uint8_t, 2>(array, name, shape, layout);
}

void Arguments::check_apart(const Array& array, i64 item, const char* name, bool written) {
  for (const i64 side : array.shape) {
    if (side == 0) return;
  }
  Region region{name, static_cast<const char*>(array.data), item, array.shape, array.stride,
                written};
  for (i64& stride : region.stride) stride *= item;
  if (written && overlaps_itself(region)) {
    fail(name, "rows that do not overlap",
         "strides " + shape_text(array.stride) + " for shape " + shape_text(array.shape));
  }
  for (const Region& other : regions_) {
    if (!written && !other.written) continue;
    const std::string &output = written ? region.name : other.name,
                      &input = written ? other.name : region.name;
    if (output == in_place_.first && input == in_place_.second && is_same(region, other)) continue;
    if (may_overlap(region, other)) {
      fail(output.c_str(), "memory apart from " + input, "memory that overlaps with it");
    }
  }
  regions_.push_back(std::move(region));
}

float as_float(py::handle value, const char* name) {
  const double number = PyFloat_AsDouble(value.ptr());
  if (number == -1.0 && PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw py::type_error(std::string(name) + ": expected a number, got " + type_name(value));
  }
  return static_cast<float>(number);
}

std::uintptr_t as_stream(py::handle value) {
  const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!index) {
    PyErr_Clear();
    throw py::type_error("stream: expected a CUDA stream handle as an integer, got " +
                         type_name(value));
  }
  const std::size_t handle = PyLong_AsSize_t(index.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    fail("stream", "a CUDA stream handle, 0 or above", std::string(py::str(index)));
  }
  return handle;
}

Dtype Arguments::float_type(py::handle object, const char* name) {
  const Array array = acquire(object, name, false);
  if (array.dtype != Dtype::float32 && array.dtype != Dtype::float16) {
    throw py::type_error(std::string(name) + ": expected float32 or float16, got " +
                         array.dtype_name);
  }
  return array.dtype;
}

View<std::uint8_t, 1> Arguments::scratch(py::handle object, i64 bytes) {
  if (bytes == 0 && object.is_none()) return {};
  const auto view = output<std::uint8_t, 1>(object, "scratch", {kAny}, Layout::dense);
  if (view.shape[0] < bytes) {
    fail("scratch", "at least " + std::to_string(bytes) + " bytes",
         std::to_string(view.shape[0]));
  }
  if (bytes > 0 && reinterpret_cast<std::uintptr_t>(view.data) % 16 != 0) {
    fail("scratch", "memory aligned to 16 bytes", "an odd address");
  }
  return view;
}

void set_typestr(Array& array, const std::string& typestr) {
  array.dtype_name = typestr;
  if (typestr.size() < 3 || typestr[0] == '>') return;
  const std::string type = typestr.substr(1);
  if (type == "f4") array.dtype = Dtype::float32;
  if (type == "f2") array.dtype = Dtype::float16;
  if (type == "i4") array.dtype = Dtype::int32;
  if (type == "u2") array.dtype = Dtype::uint16;
  if (type == "u1") array.dtype = Dtype::uint8;
  if (type == "b1") array.dtype = Dtype::boolean;
  if (array.dtype != Dtype::other) array.dtype_name = name_of(array.dtype);
}

py::dict interface_of(py::handle object, const char* attribute, const char* name) {
  py::object found = object.attr(attribute);
  if (!py::isinstance<py::dict>(found)) {
    throw py::type_error(std::string(name) + ": expected an array, got " + type_name(object) +
                         " whose " + attribute + " is " + type_name(found));
  }
  return py::reinterpret_borrow<py::dict>(found);
}

// So that the number of elements, and with it every dense stride, fits 64 bits.
static void check_count(const std::vector<i64>& shape, const char* name) {
  i64 count = 1;
  for (const i64 side : shape) {
    if (side < 0 || (side > 0 && count > INT64_MAX / side)) {
      fail(name, "sides of an array", shape_text(shape));
    }
    if (side > 0) count *= side;
  }
}

// Throws what pybind11 throws where a value is not of its kind.
static Array read_interface(const py::dict& interface, const char* name) {
  Array array;
  set_typestr(array, interface["typestr"].cast<std::string>());
  array.shape = as_integers(interface["shape"]);
  check_count(array.shape, name);
  const auto data = interface["data"].cast<py::tuple>();
  array.data = reinterpret_cast<void*>(data[0].is_none() ? 0 : data[0].cast<std::uintptr_t>());
  array.readonly = data[1].cast<bool>();
  set_dense_strides(array);
  if (interface.contains("strides") && !interface["strides"].is_none()) {
    array.stride = as_integers(interface["strides"]);
    if (array.stride.size() != array.shape.size()) {
      fail(name, "as many strides as sides", std::to_string(array.stride.size()));
    }
    const i64 item = item_size(array.dtype);
    for (i64& stride : array.stride) {
      if (stride % item != 0) {
        fail(name, "strides that are whole elements", std::to_string(stride) + " bytes");
      }
      stride /= item;
    }
  }
  return array;
}

Array from_interface(const py::dict& interface, const char* name) {
  for (const char* key : {"typestr", "shape", "data"}) {
    if (!interface.contains(key)) {
      throw py::type_error(std::string(name) + ": expected an array interface with '" + key +
                           "', got one without");
    }
  }
  try {
    return read_interface(interface, name);
  } catch (const py::cast_error&) {
  } catch (const py::error_already_set&) {
  }
  throw py::type_error(std::string(name) + ": expected an array interface, got one with values of "
                                           "the wrong kind");
}

int dlpack_device(py::handle object) {
  if (!py::hasattr(object, "__dlpack_device__")) return kNowhere;
  try {
    return object.attr("__dlpack_device__")().cast<py::tuple>()[0].cast<int>();
  } catch (const py::error_already_set&) {  // torch's "meta" device
    return kNowhere;
  } catch (const py::cast_error&) {
    return kNowhere;
  }
}

DlpackTensor take_dlpack(py::handle object, const char* name, py::object stream) {
  py::object capsule;
  try {
    capsule = stream.is_none() ? object.attr("__dlpack__")()
                               : object.attr("__dlpack__")(py::arg("stream") = stream);
  } catch (py::error_already_set& error) {
    throw py::type_error(std::string(name) + ": expected an array that can be shared, but " +
                         std::string(py::str(error.value())));
  }
  auto* managed = static_cast<DlManaged*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  if (managed == nullptr) {
    PyErr_Clear();
    throw py::type_error(std::string(name) + ": expected a DLPack capsule, got " +
                         type_name(capsule));
  }
  PyCapsule_SetName(capsule.ptr(), "used_dltensor");
  const auto& tensor = managed->tensor;
  DlpackTensor taken{{}, managed};
  Array& array = taken.array;
  array.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  array.dtype = tensor.dtype.lanes == 1 ? dlpack_dtype(tensor.dtype.code, tensor.dtype.bits)
                                        : Dtype::other;
  array.dtype_name = array.dtype != Dtype::other
                         ? name_of(array.dtype)
                         : dlpack_name(tensor.dtype.code, tensor.dtype.bits);
  array.shape.assign(tensor.shape, tensor.shape + tensor.rank);
  if (tensor.strides != nullptr) {
    array.stride.assign(tensor.strides, tensor.strides + tensor.rank);
  } else {
    set_dense_strides(array);
  }
  return taken;
}

void release_dlpack(void* managed) {
  auto* tensor = static_cast<DlManaged*>(managed);
  if (tensor->deleter != nullptr) tensor->deleter(tensor);
}

}  // namespace trtseg
