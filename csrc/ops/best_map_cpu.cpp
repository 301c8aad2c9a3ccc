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

template void best_map<float, float>(View<const float, 3>, View<const float, 1>,
                                          View<float, 2>, Stream);
template void best_map<float, half>(View<const float, 3>, View<const half, 1>, View<float, 2>,
                                         Stream);
template void best_map<half, float>(View<const half, 3>, View<const float, 1>, View<half, 2>,
                                         Stream);
template void best_map<half, half>(View<const half, 3>, View<const half, 1>, View<half, 2>,
                                        Stream);

}  // namespace trtseg
