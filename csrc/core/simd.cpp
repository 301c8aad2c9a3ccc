#include "core/simd.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define TRTSEG_F16C 1
#include <immintrin.h>
#endif

namespace trtseg {
namespace {

TRTSEG_CLONES
void to_floats_portable(const half* source, float* target, i64 count) {
  for (i64 i = 0; i < count; ++i) target[i] = to_float(source[i]);
}

TRTSEG_CLONES
void from_floats_portable(const float* source, half* target, i64 count) {
  for (i64 i = 0; i < count; ++i) target[i] = from_float<half>(source[i]);
}

#if defined(TRTSEG_F16C)
const bool has_f16c = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");

__attribute__((target("avx2,f16c"))) i64 to_floats_f16c(const half* source, float* target,
                                                        i64 count) {
  i64 i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + i));
    _mm256_storeu_ps(target + i, _mm256_cvtph_ps(bits));
  }
  return i;
}

__attribute__((target("avx2,f16c"))) i64 from_floats_f16c(const float* source, half* target,
                                                          i64 count) {
  i64 i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i bits = _mm256_cvtps_ph(_mm256_loadu_ps(source + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target + i), bits);
  }
  return i;
}
#endif

}  // namespace

void to_floats(const half* source, float* target, i64 count) {
  i64 done = 0;
#if defined(TRTSEG_F16C)
  if (has_f16c) done = to_floats_f16c(source, target, count);
#endif
  to_floats_portable(source + done, target + done, count - done);
}

void from_floats(const float* source, half* target, i64 count) {
  i64 done = 0;
#if defined(TRTSEG_F16C)
  if (has_f16c) done = from_floats_f16c(source, target, count);
#endif
  from_floats_portable(source + done, target + done, count - done);
}

}  // namespace trtseg
