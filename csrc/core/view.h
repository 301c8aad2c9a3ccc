// The one way in which arrays travel through the native code: a pointer, a shape and strides.
// A View owns nothing, is passed by value and is the same type on the host and on the device.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define TRTSEG_HD __host__ __device__
#else
#define TRTSEG_HD
#endif

namespace trtseg {

using i64 = std::int64_t;

// Strides count elements, not bytes. The last axis is contiguous (stride 1); the others are free, so
// that a crop of a larger image is a View. Only where an op says so maps [C, H, W] may be
// channels-last instead, with strides (1, W C, C): no element access by index then. All offsets are
// 64 bit.
// An optional argument that is absent is a View whose `data` is null.
template <class T, int N>
struct View {
  T* data = nullptr;
  i64 shape[N] = {};
  i64 stride[N] = {};

  TRTSEG_HD explicit operator bool() const { return data != nullptr; }

  TRTSEG_HD i64 size() const {
    i64 n = 1;
    for (int i = 0; i < N; ++i) n *= shape[i];
    return n;
  }

  TRTSEG_HD T& operator()(i64 i) const {
    static_assert(N == 1, "one index per axis");
    return data[i];
  }
  TRTSEG_HD T& operator()(i64 i, i64 j) const {
    static_assert(N == 2, "one index per axis");
    return data[i * stride[0] + j];
  }
  TRTSEG_HD T& operator()(i64 i, i64 j, i64 k) const {
    static_assert(N == 3, "one index per axis");
    return data[i * stride[0] + j * stride[1] + k];
  }

  // Pointer to the first element of a row, which is contiguous.
  TRTSEG_HD T* row(i64 i) const {
    static_assert(N == 2, "one index per axis but the last");
    return data + i * stride[0];
  }
  TRTSEG_HD T* row(i64 i, i64 j) const {
    static_assert(N == 3, "one index per axis but the last");
    return data + i * stride[0] + j * stride[1];
  }
};

// A C-contiguous view of `data`.
template <class T>
TRTSEG_HD inline View<T, 1> make_view(T* data, i64 n) {
  return {data, {n}, {1}};
}
template <class T>
TRTSEG_HD inline View<T, 2> make_view(T* data, i64 h, i64 w) {
  return {data, {h, w}, {w, 1}};
}
template <class T>
TRTSEG_HD inline View<T, 3> make_view(T* data, i64 c, i64 h, i64 w) {
  return {data, {c, h, w}, {h * w, w, 1}};
}

// A cudaStream_t as a number (0: the default stream). The CPU ignores it.
struct Stream {
  std::uintptr_t handle = 0;
};

// A short list of maps, by value, so that it can be a kernel's argument.
constexpr int kMaxLevels = 8;

template <class T>
struct Levels {
  View<T, 3> level[kMaxLevels];
  int count = 0;
};

}  // namespace trtseg
