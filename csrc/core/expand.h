// Rows of a small map stretched to the width of a large one: the horizontal half of a bilinear
// upsampling, done once per source row and kept while the output rows that need it pass by.
#pragma once

#include "core/bilinear.h"
#include "core/parallel.h"
#include "core/simd.h"

namespace trtseg {

// The taps of up to kTile output columns, relative to the first source column that they read.
struct ColumnTaps {
  i64 base;          // that column
  i64 span;          // how many source columns the taps reach
  bool identity;     // output column i is source column base + i
  int first[kTile];
  int second[kTile];
  float weight[kTile];
};

void make_column_taps(ColumnTaps& taps, i64 x0, i64 count, i64 source, i64 output);

// out[i] = lerp(source[first[i]], source[second[i]], weight[i]); `source` is the row's start.
void expand_row(const float* source, const ColumnTaps& taps, i64 count, float* out);
void expand_row(const half* source, const ColumnTaps& taps, i64 count, float* out);

// The two stretched rows between which an output row lies. Ascending output rows reuse them.
class RowPair {
 public:
  // After this, `top` and `bottom` hold rows tap.first and tap.second of `plane`.
  template <class T>
  void move_to(Tap tap, const T* plane, i64 stride, const ColumnTaps& taps, i64 count) {
    if (rows_[1 - slot_] == tap.first && rows_[slot_] != tap.first) slot_ = 1 - slot_;
    load(slot_, tap.first, plane, stride, taps, count);
    if (tap.second == tap.first) {
      bottom_ = top();
      return;
    }
    load(1 - slot_, tap.second, plane, stride, taps, count);
    bottom_ = pointer_[1 - slot_];
  }
  void forget() { rows_[0] = rows_[1] = -1; }

  const float* top() const { return pointer_[slot_]; }
  const float* bottom() const { return bottom_; }

 private:
  template <class T>
  void load(int slot, i64 row, const T* plane, i64 stride, const ColumnTaps& taps, i64 count) {
    if (rows_[slot] == row) return;
    const T* source = plane + row * stride;
    if (taps.identity) {
      pointer_[slot] = read_tile(source + taps.base, buffer_[slot], count);
    } else {
      expand_row(source, taps, count, buffer_[slot]);
      pointer_[slot] = buffer_[slot];
    }
    rows_[slot] = row;
  }

  i64 rows_[2] = {-1, -1};
  int slot_ = 0;
  const float* pointer_[2] = {};
  const float* bottom_ = nullptr;
  float buffer_[2][kTile];
};

// Calls f(y0, y1, x0, count) over tiles of so many rows and up to kTile columns, in parallel.
template <class F>
void for_tiles(i64 height, i64 width, i64 rows, F&& f) {
  const i64 tiles = (width + kTile - 1) / kTile, bands = (height + rows - 1) / rows;
  parallel_for(tiles * bands, 1, [&](i64 begin, i64 end, int) {
    for (i64 i = begin; i < end; ++i) {
      const i64 y0 = i / tiles * rows, x0 = i % tiles * kTile;
      f(y0, y0 + rows < height ? y0 + rows : height, x0, width - x0 < kTile ? width - x0 : kTile);
    }
  });
}

}  // namespace trtseg
