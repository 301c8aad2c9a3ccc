#include "ops/best_map.h"

#include <cstring>

namespace trtseg {

template <class T, class S>
void best_map(View<const T, 3> maps, View<const S, 1> scores, View<T, 2> out, Stream) {
  const i64 best = best_index(scores);
  for (i64 y = 0; y < out.shape[0]; ++y) {
    std::memcpy(out.row(y), maps.row(best, y), static_cast<std::size_t>(out.shape[1]) * sizeof(T));
  }
}

TRTSEG_INSTANCE(best_map<float, float>);
TRTSEG_INSTANCE(best_map<float, half>);
TRTSEG_INSTANCE(best_map<half, float>);
TRTSEG_INSTANCE(best_map<half, half>);

}  // namespace trtseg
