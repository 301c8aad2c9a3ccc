// Runs loops over rows of floats with the widest vectors of the machine that executes them, in a
// library that still loads on any x86-64.
#pragma once

#include "core/half.h"
#include "core/view.h"

// In front of a function: compile it for several instruction sets; the dynamic loader picks one.
// What it calls must be inline. Multiply and add are never fused, so all of them agree to the bit.
// Needs the indirect functions of glibc. GCC knows the levels' names from version 12 on.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
#define TRTSEG_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TRTSEG_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define TRTSEG_CLONES
#endif

// In front of a loop whose iterations are independent of each other, which the compiler cannot see
// where an output may be the very array of an input.
#if defined(__clang__)
#define TRTSEG_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define TRTSEG_INDEPENDENT _Pragma("GCC ivdep")
#elif defined(_MSC_VER)
#define TRTSEG_INDEPENDENT __pragma(loop(ivdep))
#else
#define TRTSEG_INDEPENDENT
#endif

namespace trtseg {

// Floats that a loop handles at a time: a few such rows fit the first-level cache and the stack.
constexpr i64 kTile = 512;

// Brings the cache line of `address` closer, where the compiler knows how.
inline void prefetch(const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address);
#else
  static_cast<void>(address);
#endif
}

// Whole rows of halves at a time.
void to_floats(const half* source, float* target, i64 count);
void from_floats(const float* source, half* target, i64 count);

// `count` (<= kTile) values as floats: where they lie if they are floats, else in `buffer`.
inline const float* read_tile(const float* source, float*, i64) { return source; }
inline const float* read_tile(const half* source, float* buffer, i64 count) {
  to_floats(source, buffer, count);
  return buffer;
}

// Where to compute values that end in `target`, and the step that brings them there.
inline float* begin_tile(float* target, float*) { return target; }
inline float* begin_tile(half*, float* buffer) { return buffer; }
inline void end_tile(float*, const float*, i64) {}
inline void end_tile(half* target, const float* buffer, i64 count) {
  from_floats(buffer, target, count);
}

}  // namespace trtseg
