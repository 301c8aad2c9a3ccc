// IEEE binary16 as a storage type. Arithmetic happens in float: `to_float` on load, `from_float`
// (round to nearest even, overflow to infinity) on store; the same bits on host and device.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/view.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

namespace trtseg {

struct half {
  std::uint16_t bits;
};

// An instance of an operation, whose header says the rest; and those for both kinds of map.
#define TRTSEG_INSTANCE(...) template decltype(__VA_ARGS__) __VA_ARGS__
#define TRTSEG_FLOATS(operation) \
  TRTSEG_INSTANCE(operation<float>); \
  TRTSEG_INSTANCE(operation<half>)

TRTSEG_HD inline float to_float(float value) { return value; }

TRTSEG_HD inline float to_float(half value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#else
  const std::uint32_t magnitude = static_cast<std::uint32_t>(value.bits & 0x7fffu) << 13;
  // 2^112 moves the exponent's bias from 15 to 127, and normalises subnormals on the way.
  const std::uint32_t rebias_bits = 0x77800000u;
  float rebias, f;
  std::memcpy(&rebias, &rebias_bits, sizeof rebias);
  std::memcpy(&f, &magnitude, sizeof f);
  f *= rebias;
  std::uint32_t u;
  std::memcpy(&u, &f, sizeof u);
  if (magnitude >= 0x0f800000u) u |= 0x7f800000u;  // infinity and NaN keep the largest exponent
  u |= static_cast<std::uint32_t>(value.bits & 0x8000u) << 16;
  std::memcpy(&f, &u, sizeof f);
  return f;
#endif
}

template <class T>
TRTSEG_HD T from_float(float value);

template <>
TRTSEG_HD inline float from_float<float>(float value) {
  return value;
}

template <>
TRTSEG_HD inline half from_float<half>(float value) {
#if defined(__CUDA_ARCH__)
  return {__half_as_ushort(__float2half_rn(value))};
#else
  std::uint32_t u;
  std::memcpy(&u, &value, sizeof u);
  const std::uint32_t sign = (u >> 16) & 0x8000u;
  u &= 0x7fffffffu;
  std::uint32_t bits;
  if (u >= 0x47800000u) {  // 65536 and above, infinity, NaN
    bits = u > 0x7f800000u ? 0x7e00u | ((u >> 13) & 0x1ffu) : 0x7c00u;
  } else if (u < 0x38800000u) {
    // Subnormal result: adding 0.5 lets the float adder round at the bit where a half ends.
    const float magic = 0.5f;
    float f;
    std::memcpy(&f, &u, sizeof f);
    f += magic;
    std::uint32_t rounded, base;
    std::memcpy(&rounded, &f, sizeof rounded);
    std::memcpy(&base, &magic, sizeof base);
    bits = rounded - base;
  } else {
    // Rounding may carry into the exponent, also up to infinity: that is the right answer.
    bits = (u - 0x38000000u + 0x0fffu + ((u >> 13) & 1u)) >> 13;
  }
  return {static_cast<std::uint16_t>(sign | bits)};
#endif
}

}  // namespace trtseg
