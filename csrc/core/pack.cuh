// Several neighbouring values in one access of up to 16 bytes.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/view.h"

namespace trtseg {

template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  static_assert(sizeof(T) * N <= 16, "one access is 16 bytes at most");
  T value[N];
};

// Values that fill one access.
template <class T>
constexpr int kPack = 16 / static_cast<int>(sizeof(T));

template <int N, class T>
inline __device__ Pack<T, N> load_pack(const T* address) {
  return *reinterpret_cast<const Pack<T, N>*>(address);
}

template <int N, class T>
inline __device__ void store_pack(T* address, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(address) = pack;
}

// Whether packs of N may be read at every multiple of N along the rows of an array.
template <int N, class T>
inline bool is_packable(const T* data) {
  return reinterpret_cast<std::uintptr_t>(data) % (sizeof(T) * N) == 0;
}
template <int N, class T>
inline bool is_packable(View<T, 2> map) {
  return is_packable<N>(map.data) && (map.shape[0] == 1 || map.stride[0] % N == 0);
}
template <int N, class T>
inline bool is_packable(View<T, 3> maps) {
  return is_packable<N>(maps.data) && (maps.shape[1] == 1 || maps.stride[1] % N == 0) &&
         (maps.shape[0] == 1 || maps.stride[0] % N == 0);
}

}  // namespace trtseg
