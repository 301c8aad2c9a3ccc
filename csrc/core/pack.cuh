// Several neighbouring values in one access of up to 16 bytes.
#pragma once

#include <cstdint>
#include <cstring>

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

// The compiler loads a pack in one access, but stores its values one by one, unless told otherwise.
template <int N, class T>
inline __device__ void store_pack(T* address, const Pack<T, N>& pack) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(pack) == 16) {
    std::uint32_t word[4];
    std::memcpy(word, &pack, sizeof word);
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(address)),
                 "r"(word[0]), "r"(word[1]), "r"(word[2]), "r"(word[3])
                 : "memory");
    return;
  }
#endif
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

}  // namespace trtseg
