#include "ops/jaccard.h"

#include "core/parallel.h"
#include "core/simd.h"

namespace trtseg {
namespace {

constexpr i64 kLanes = 16;              // partial sums, whatever the machine's vectors
constexpr i64 kChunk = 16 * kTile;      // pixels whose sums are one entry of the scratch memory

struct Sums {
  double intersection;
  double union_;
};

i64 smaller(i64 a, i64 b) { return a < b ? a : b; }
i64 chunks_of(i64 pixels) { return (pixels + kChunk - 1) / kChunk; }

// A tile's target at the width of the floats that it selects, once for all masks: to unpack the
// bytes again for every mask takes longer than the sums themselves.
TRTSEG_CLONES
void widen(const std::uint8_t* target, i64 count, std::int32_t* wide) {
  for (i64 i = 0; i < count; ++i) wide[i] = target[i];
}

// `ahead`, as long as the tile, is asked for meanwhile: a hardware prefetcher loses its thread when
// the masks take turns.
template <class T>
TRTSEG_CLONES void add_tile(const float* mask, const std::int32_t* target, i64 count,
                            const T* ahead, Sums& sums) {
  float intersections[kLanes] = {}, unions[kLanes] = {};
  i64 i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    prefetch(ahead + i);
    for (i64 k = 0; k < kLanes; ++k) {
      intersections[k] += jaccard_intersection(mask[i + k], target[i + k]);
      unions[k] += jaccard_union(mask[i + k], target[i + k]);
    }
  }
  for (i64 k = 0; i + k < count; ++k) {
    intersections[k] += jaccard_intersection(mask[i + k], target[i + k]);
    unions[k] += jaccard_union(mask[i + k], target[i + k]);
  }
  float intersection = 0.0f, union_ = 0.0f;
  for (i64 k = 0; k < kLanes; ++k) {
    intersection += intersections[k];
    union_ += unions[k];
  }
  sums.intersection += intersection;
  sums.union_ += union_;
}

TRTSEG_CLONES
void write_slopes(const std::int32_t* target, float object, float background, i64 count,
                  float* out) {
  for (i64 i = 0; i < count; ++i) out[i] = jaccard_slope(object, background, target[i]);
}

bool is_inside(View<const std::int32_t, 2> pixels, i64 i, i64 height, i64 width) {
  const i64 y = pixels(i, 0), x = pixels(i, 1);
  return y >= 0 && y < height && x >= 0 && x < width;
}

template <class T>
void add_to_clicks(View<T, 3> grad, i64 m, View<const std::int32_t, 2> pixels, float value) {
  for (i64 i = 0; i < pixels.shape[0]; ++i) {
    if (!is_inside(pixels, i, grad.shape[1], grad.shape[2])) continue;
    T& g = grad(m, pixels(i, 0), pixels(i, 1));
    g = from_float<T>(to_float(g) + value);
  }
}

}  // namespace

i64 jaccard_scratch(i64 masks, i64 height, i64 width) {
  return chunks_of(height * width) * masks * static_cast<i64>(sizeof(Sums));
}

template <class T>
void jaccard(View<const T, 3> masks, View<const std::uint8_t, 2> target,
                  View<const std::int32_t, 2> positive, View<const std::int32_t, 2> negative,
                  View<float, 1> loss, View<float, 1> penalty, View<float, 2> sums,
                  View<std::uint8_t, 1> scratch, Stream) {
  const i64 count = masks.shape[0], pixels = masks.shape[1] * masks.shape[2];
  const i64 chunks = chunks_of(pixels);
  Sums* partial = reinterpret_cast<Sums*>(scratch.data);  // [chunks, M]
  parallel_for(chunks, 1, [=](i64 begin, i64 end, int) {
    float buffer[kTile];
    std::int32_t wide[kTile];
    for (i64 chunk = begin; chunk < end; ++chunk) {
      const i64 stop = smaller((chunk + 1) * kChunk, pixels);
      Sums* sum = partial + chunk * count;
      for (i64 m = 0; m < count; ++m) sum[m] = {0.0, 0.0};
      for (i64 start = chunk * kChunk; start < stop; start += kTile) {
        const i64 n = smaller(kTile, stop - start);
        widen(target.data + start, n, wide);
        for (i64 m = 0; m < count; ++m) {
          const T* mask = masks.row(m, 0) + start;
          const T* ahead = start + 2 * n <= pixels ? mask + n : mask;
          add_tile(read_tile(mask, buffer, n), wide, n, ahead, sum[m]);
        }
      }
    }
  });
  for (i64 m = 0; m < count; ++m) {
    Sums total{0.0, 0.0};
    for (i64 chunk = 0; chunk < chunks; ++chunk) {
      total.intersection += partial[chunk * count + m].intersection;
      total.union_ += partial[chunk * count + m].union_;
    }
    sums(m, 0) = static_cast<float>(total.intersection);
    sums(m, 1) = static_cast<float>(total.union_);
    loss(m) = jaccard_loss(sums(m, 0), sums(m, 1));
    float disobeyed = 0.0f;
    for (i64 i = 0; i < positive.shape[0]; ++i) {
      if (is_inside(positive, i, masks.shape[1], masks.shape[2])) {
        disobeyed += 1.0f - to_float(masks(m, positive(i, 0), positive(i, 1)));
      }
    }
    for (i64 i = 0; i < negative.shape[0]; ++i) {
      if (is_inside(negative, i, masks.shape[1], masks.shape[2])) {
        disobeyed += to_float(masks(m, negative(i, 0), negative(i, 1)));
      }
    }
    penalty(m) = disobeyed;
  }
}

template <class T>
void jaccard_gradient(View<const std::uint8_t, 2> target,
                           View<const std::int32_t, 2> positive,
                           View<const std::int32_t, 2> negative, View<const float, 2> sums,
                           View<const float, 1> loss_weight, View<const float, 1> penalty_weight,
                           View<T, 3> grad, Stream) {
  const i64 count = grad.shape[0], pixels = grad.shape[1] * grad.shape[2];
  parallel_for(chunks_of(pixels), 1, [=](i64 begin, i64 end, int) {
    float buffer[kTile];
    std::int32_t wide[kTile];
    const i64 stop = smaller(end * kChunk, pixels);
    for (i64 start = begin * kChunk; start < stop; start += kTile) {
      const i64 n = smaller(kTile, stop - start);
      widen(target.data + start, n, wide);
      for (i64 m = 0; m < count; ++m) {
        T* out = grad.row(m, 0) + start;
        float* result = begin_tile(out, buffer);
        write_slopes(wide, loss_weight(m) * jaccard_object_slope(sums(m, 1)),
                     loss_weight(m) * jaccard_background_slope(sums(m, 0), sums(m, 1)), n, result);
        end_tile(out, result, n);
      }
    }
  });
  for (i64 m = 0; m < count; ++m) {
    add_to_clicks(grad, m, positive, -penalty_weight(m));
    add_to_clicks(grad, m, negative, penalty_weight(m));
  }
}

TRTSEG_FLOATS(jaccard);
TRTSEG_FLOATS(jaccard_gradient);

}  // namespace trtseg
