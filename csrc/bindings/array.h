// From a Python object that holds an array to a View, without copying, with one clear error.
#pragma once

#include <pybind11/pybind11.h>

#include <initializer_list>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/bilinear.h"
#include "core/half.h"
#include "core/view.h"

namespace trtseg {

namespace py = pybind11;

enum class Dtype { float32, float16, int32, uint16, uint8, boolean, other };

// An array as its owner describes it. Strides in elements.
struct Array {
  void* data = nullptr;
  Dtype dtype = Dtype::other;
  std::string dtype_name;  // for messages
  std::vector<i64> shape;
  std::vector<i64> stride;
  bool readonly = false;
};

// The memory that an argument takes.
struct Region {
  std::string name;
  const char* data;
  i64 item;  // bytes of an element
  std::vector<i64> shape;
  std::vector<i64> stride;  // in bytes
  bool written;
};

// Whether two elements may share a byte. Exact for crops of one array; interleaved layouts of
// another kind count as overlapping.
bool may_overlap(const Region& a, const Region& b);
// Whether two elements of one array may share memory.
bool overlaps_itself(const Region& region);
// The same elements at the same places.
bool is_same(const Region& a, const Region& b);

// Rows may lie apart, or the whole array must be one block: C-contiguous, or maps [C, H, W] with the
// channels of a pixel together.
enum class Layout { rows, dense, channels_last };

constexpr i64 kAny = -1;

using Named = std::pair<std::string, py::handle>;

// The arrays of one call: keeps them alive until the call has been issued, and in `_cuda` checks
// that all lie on one device and makes the call's stream wait for the streams their producers name.
class Arguments {
 public:
  // `stream`: a handle as a Python integer.
  explicit Arguments(py::handle stream);
  ~Arguments();
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  // TypeError if `object` is not an array of this backend.
  Array acquire(py::handle object, const char* name, bool writable);

  // kAny in `shape` stands for any length, 0 included; other lengths must match. None gives a null
  // View where `optional`.
  template <class T, int N>
  View<const T, N> input(py::handle object, const char* name, std::initializer_list<i64> shape,
                         Layout layout = Layout::rows, bool optional = false) {
    if (optional && object.is_none()) return {};
    return typed<const T, N>(acquire(object, name, false), name, shape, layout);
  }
  // bool or uint8, nonzero is True.
  View<const std::uint8_t, 2> mask_input(py::handle object, const char* name,
                                         std::initializer_list<i64> shape,
                                         Layout layout = Layout::rows);
  // ValueError also where its memory overlaps with that of another argument, or its rows with each
  // other.
  template <class T, int N>
  View<T, N> output(py::handle object, const char* name, std::initializer_list<i64> shape,
                    Layout layout = Layout::rows, bool optional = false) {
    if (optional && object.is_none()) return {};
    return typed<T, N>(acquire(object, name, true), name, shape, layout);
  }
  // uint8 of at least `bytes` bytes.
  View<std::uint8_t, 1> scratch(py::handle object, i64 bytes);

  // From here on the output of this name may be the very array of that input.
  void allow_in_place(const char* output, const char* input) { in_place_ = {output, input}; }

  // channels_last if the first of these maps [C, H, W] whose strides tell is that, else `otherwise`.
  // All of them are to be taken as that.
  Layout layout_of(const std::vector<Named>& maps, Layout otherwise);

  // float32 or float16: decides which instance of an op runs.
  Dtype float_type(py::handle object, const char* name);

  // The device of this call stays current until destruction; producers' streams are waited for.
  Stream begin();

 private:
  template <class T, int N>
  View<T, N> typed(const Array& array, const char* name, std::initializer_list<i64> shape,
                   Layout layout);
  // Compares with what came before.
  void check_apart(const Array& array, i64 item, const char* name, bool written);

  struct State;
  State* state_;
  std::vector<Region> regions_;
  std::pair<const char*, const char*> in_place_{"", ""};
};

template <class T>
struct DtypeOf;
template <>
struct DtypeOf<float> {
  static constexpr Dtype value = Dtype::float32;
};
template <>
struct DtypeOf<half> {
  static constexpr Dtype value = Dtype::float16;
};
template <>
struct DtypeOf<std::int32_t> {
  static constexpr Dtype value = Dtype::int32;
};
template <>
struct DtypeOf<std::uint16_t> {
  static constexpr Dtype value = Dtype::uint16;
};
template <>
struct DtypeOf<std::uint8_t> {
  static constexpr Dtype value = Dtype::uint8;
};

// Raise TypeError or ValueError "name: expected ..., got ..." unless the array fits.
void check_dtype(const Array& array, Dtype wanted, const char* name);
void check_layout(const Array& array, const std::vector<i64>& shape, Layout layout,
                  const char* name);

template <class T, int N>
View<T, N> Arguments::typed(const Array& array, const char* name,
                            std::initializer_list<i64> shape, Layout layout) {
  check_dtype(array, DtypeOf<std::remove_const_t<T>>::value, name);
  check_layout(array, shape, layout, name);
  check_apart(array, sizeof(T), name, !std::is_const<T>::value);
  View<T, N> view;
  view.data = static_cast<T*>(array.data);
  for (int i = 0; i < N; ++i) {
    view.shape[i] = array.shape[i];
    view.stride[i] = array.stride[i];
  }
  if constexpr (N == 3) {
    // those of axes of length 1 may have been anything
    const i64 channels = view.shape[0], height = view.shape[1], width = view.shape[2];
    if (layout == Layout::channels_last) {
      view = {view.data, {channels, height, width}, {1, width * channels, channels}};
    }
    if (layout == Layout::dense) view = make_view(view.data, channels, height, width);
  }
  return view;
}

// Calls f(float{}) or f(half{}).
template <class F>
void with_float_type(Dtype dtype, F&& f) {
  if (dtype == Dtype::float16) {
    f(half{});
  } else {
    f(float{});
  }
}

// ValueError unless the memory is aligned, and writable where it must be. An array of no elements
// gets an address that is not null, which would mean "absent".
void check_memory(Array& array, const char* name, bool writable);

// ValueError "name: expected ..., got ...".
[[noreturn]] void fail(const char* name, const std::string& expected, const std::string& got);
std::string shape_text(const std::vector<i64>& shape);
void check_positive(const char* name, i64 value);
// A side of a map, from 1 to kMaxSide.
void check_side(const char* name, i64 value);

// For messages.
std::string type_name(py::handle object);

// TypeError "name: expected a number, got ..." unless it is one.
float as_float(py::handle value, const char* name);
// TypeError or ValueError unless it is an integer that can be a handle.
std::uintptr_t as_stream(py::handle value);

// Values that only the host can look at without waiting: `_cuda` accepts them unseen, and its
// kernels skip what this would have refused.
void check_inside(View<const std::int32_t, 2> pixels, i64 height, i64 width, const char* name);

// DLPack, for owners that offer nothing else, such as torch's tensors in host memory.
constexpr int kNowhere = 0, kHost = 1, kCuda = 2, kCudaManaged = 13;  // its numbers of devices
// kNowhere if `object` does not offer itself.
int dlpack_device(py::handle object);
// Keeps the capsule's memory until `release`.
struct DlpackTensor {
  Array array;
  void* managed;
};
DlpackTensor take_dlpack(py::handle object, const char* name, py::object stream);
void release_dlpack(void* managed);

// The "typestr" of the array interfaces, such as "<f4".
void set_typestr(Array& array, const std::string& typestr);
// The dictionary that `attribute` names; TypeError if it is none.
py::dict interface_of(py::handle object, const char* attribute, const char* name);
// Reads shape, strides, typestr and data from an array interface's dictionary.
Array from_interface(const py::dict& interface, const char* name);

}  // namespace trtseg
