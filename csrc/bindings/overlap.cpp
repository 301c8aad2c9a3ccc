// Whether the arrays of one call share memory. An output that overlaps with an input would be read
// after it was written, in an order that depends on the number of threads.
#include <algorithm>

#include "bindings/array.h"

namespace trtseg {
namespace {

struct Bytes {
  std::uintptr_t begin, end;
};

i64 magnitude(i64 value) { return value < 0 ? -value : value; }

// What the elements span whose axes have strides below `limit`, from the first element on.
Bytes span(const Region& region, i64 limit) {
  i64 low = 0, high = 0;
  for (std::size_t i = 0; i < region.shape.size(); ++i) {
    if (region.shape[i] < 2 || magnitude(region.stride[i]) >= limit) continue;
    (region.stride[i] < 0 ? low : high) += (region.shape[i] - 1) * region.stride[i];
  }
  const auto data = reinterpret_cast<std::uintptr_t>(region.data);
  return {data + low, data + high + region.item};
}

// Whether all larger strides are multiples of `period`: then `span` repeats at that distance.
bool repeats(const Region& region, i64 period) {
  for (std::size_t i = 0; i < region.shape.size(); ++i) {
    const i64 stride = magnitude(region.stride[i]);
    if (region.shape[i] > 1 && stride >= period && stride % period != 0) return false;
  }
  return true;
}

// Two crops of one array lie apart if their rows, or their planes, do.
bool apart_within(const Region& a, const Region& b, i64 period) {
  if (period < 1 || !repeats(a, period) || !repeats(b, period)) return false;
  const Bytes p = span(a, period), q = span(b, period);
  const auto distance = static_cast<std::uintptr_t>(period);
  const std::uintptr_t from = p.begin % distance, to = q.begin % distance;
  return (to + distance - from) % distance >= p.end - p.begin &&
         (from + distance - to) % distance >= q.end - q.begin;
}

constexpr i64 kAll = INT64_MAX;

}  // namespace

bool may_overlap(const Region& a, const Region& b) {
  const Bytes p = span(a, kAll), q = span(b, kAll);
  if (p.end <= q.begin || q.end <= p.begin) return false;
  for (const Region* region : {&a, &b}) {
    for (std::size_t i = 0; i < region->shape.size(); ++i) {
      if (region->shape[i] < 2) continue;
      if (apart_within(a, b, magnitude(region->stride[i]))) return false;
    }
  }
  return true;
}

bool overlaps_itself(const Region& region) {
  std::vector<std::pair<i64, i64>> axes;  // (stride, shape)
  for (std::size_t i = 0; i < region.shape.size(); ++i) {
    if (region.shape[i] > 1) axes.emplace_back(magnitude(region.stride[i]), region.shape[i]);
  }
  std::sort(axes.begin(), axes.end());
  i64 inner = region.item;
  for (const auto& [stride, shape] : axes) {
    if (stride < inner) return true;
    inner += (shape - 1) * stride;
  }
  return false;
}

bool is_same(const Region& a, const Region& b) {
  if (a.data != b.data || a.item != b.item || a.shape != b.shape) return false;
  for (std::size_t i = 0; i < a.shape.size(); ++i) {
    if (a.shape[i] > 1 && a.stride[i] != b.stride[i]) return false;
  }
  return true;
}

}  // namespace trtseg
