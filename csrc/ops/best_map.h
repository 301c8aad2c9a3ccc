// The map that a selector's scores prefer, chosen where the scores are.
#pragma once

#include "core/half.h"
#include "core/view.h"

namespace trtseg {

// Index of the largest of scores [M]; the first of equals. NaN never wins, but keeps the first
// place when it has it.
template <class S>
TRTSEG_HD inline i64 best_index(View<const S, 1> scores) {
  i64 best = 0;
  for (i64 i = 1; i < scores.shape[0]; ++i) {
    if (to_float(scores(i)) > to_float(scores(best))) best = i;
  }
  return best;
}

// out [h, w] = maps [M, h, w] at best_index(scores), M at least 1. Rows may be strided. T, S: float,
// half.
template <class T, class S>
void best_map(View<const T, 3> maps, View<const S, 1> scores, View<T, 2> out, Stream stream);

}  // namespace trtseg
