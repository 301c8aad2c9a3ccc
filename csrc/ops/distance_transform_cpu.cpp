#include "ops/distance_transform.h"

#include <limits>

#include "core/parallel.h"
#include "core/simd.h"

namespace trtseg {
namespace {

using u16 = std::uint16_t;
using i32 = std::int32_t;

constexpr i32 kFar = std::numeric_limits<i32>::max();
constexpr i64 kStrip = 256;  // columns at a time: a strip of a tall image fits the second-level cache

// Column x of a row, and its column distance squared: one parabola of the envelope.
struct Site {
  i32 x;
  i32 squared;
};

TRTSEG_CLONES
void first_row(const std::uint8_t* mask, u16* distance, i64 count) {
  for (i64 i = 0; i < count; ++i) distance[i] = mask[i] != 0 ? 0 : kNoSite;
}

TRTSEG_CLONES
void sweep_down(const std::uint8_t* mask, const u16* above, u16* distance, i64 count) {
  for (i64 i = 0; i < count; ++i) {
    const u16 next = static_cast<u16>(above[i] + (above[i] != kNoSite ? 1 : 0));
    distance[i] = mask[i] != 0 ? 0 : next;
  }
}

TRTSEG_CLONES
void sweep_up(const u16* below, u16* distance, i64 count) {
  for (i64 i = 0; i < count; ++i) {
    const u16 next = static_cast<u16>(below[i] + (below[i] != kNoSite ? 1 : 0));
    distance[i] = next < distance[i] ? next : distance[i];
  }
}

TRTSEG_CLONES
void square(const u16* distance, i32* squared, i64 count) {
  for (i64 i = 0; i < count; ++i) {
    const i32 d = distance[i];
    squared[i] = d == kNoSite ? kFar : d * d;
  }
}

TRTSEG_CLONES
i32 largest(const i32* squared, i64 count) {
  i32 most = 0;
  for (i64 i = 0; i < count; ++i) most = squared[i] > most ? squared[i] : most;
  return most;
}

TRTSEG_CLONES
void small_roots(const i32* squared, float* out, float limit, i64 count) {
  for (i64 i = 0; i < count; ++i) {
    const float distance = sqrtf(static_cast<float>(squared[i]));
    out[i] = distance < limit ? distance : limit;
  }
}

TRTSEG_CLONES
void large_roots(const i32* squared, float* out, float limit, i64 count) {
  for (i64 i = 0; i < count; ++i) {
    const float distance = static_cast<float>(sqrt(static_cast<double>(squared[i])));
    out[i] = distance < limit ? distance : limit;
  }
}

// The parabolas that can be lowest somewhere besides at their own x. One whose neighbours are both
// no higher is lowest at most at its own x, where `lower_segment` compares with it anyway: this
// passes over plateaus, such as the inside of an object, without touching the envelope.
int build_envelope(const u16* distance, const i32* squared, i64 width, i32 skip_from, Site* sites) {
  int count = 0;
  for (i64 x = 0; x < width; ++x) {
    const u16 d = distance[x];
    const bool left = x == 0 || distance[x - 1] <= d, right = x + 1 == width || distance[x + 1] <= d;
    if ((left & right) || squared[x] >= skip_from) continue;
    const Site site{static_cast<i32>(x), squared[x]};
    while (count >= 2 && is_hidden(sites[count - 2].x, sites[count - 2].squared,
                                   sites[count - 1].x, sites[count - 1].squared, site.x,
                                   site.squared)) {
      --count;
    }
    sites[count++] = site;
  }
  return count;
}

// squared[x] = min(squared[x], parabola of `site`).
inline void lower_segment(Site site, i64 begin, i64 end, i32* squared) {
  for (i64 x = begin; x < end; ++x) {
    const i32 d = static_cast<i32>(x) - site.x, candidate = d * d + site.squared;
    squared[x] = candidate < squared[x] ? candidate : squared[x];
  }
}

TRTSEG_CLONES
void lower_row(const Site* sites, int count, i64 width, i32* squared) {
  i64 begin = 0;
  for (int k = 0; k < count && begin < width; ++k) {
    i64 end = width;
    if (k + 1 < count) {
      end = first_closer(sites[k].x, sites[k].squared, sites[k + 1].x, sites[k + 1].squared);
      end = end < width ? end : width;
    }
    lower_segment(sites[k], begin, end, squared);
    begin = end > begin ? end : begin;
  }
}

struct Scratch {
  u16* distance;  // [H, W], within columns
  char* rows;     // one block per worker: sites, squares
  i64 row_bytes;
};

i64 plane_bytes(i64 height, i64 width) { return (height * width * 2 + 63) / 64 * 64; }
i64 row_bytes(i64 width) { return (width * 12 + 63) / 64 * 64; }

void transform_row(View<float, 2> out, const Scratch& scratch, i64 y, int worker, float limit) {
  const i64 width = out.shape[1];
  const u16* distance = scratch.distance + y * width;
  Site* sites = reinterpret_cast<Site*>(scratch.rows + worker * scratch.row_bytes);
  i32* squared = reinterpret_cast<i32*>(sites + width);
  square(distance, squared, width);
  // What is farther than the limit within its own column changes nothing.
  const double bound = static_cast<double>(limit) * limit;
  const i32 skip_from = bound < kFar ? static_cast<i32>(bound) + 1 : kFar;
  const int count = build_envelope(distance, squared, width, skip_from, sites);
  lower_row(sites, count, width, squared);
  const i32 most = largest(squared, width);
  if (most == kFar && skip_from == kFar) {  // nothing was skipped: no column has a True pixel
    for (i64 x = 0; x < width; ++x) out(y, x) = limit;
  } else if (most < (1 << 24)) {
    small_roots(squared, out.row(y), limit, width);
  } else {
    large_roots(squared, out.row(y), limit, width);
  }
}

}  // namespace

i64 distance_transform_scratch(i64 height, i64 width) {
  return plane_bytes(height, width) + max_threads() * row_bytes(width);
}

void distance_transform(View<const std::uint8_t, 2> mask, View<float, 2> out,
                        View<std::uint8_t, 1> memory, float limit, Stream) {
  const i64 height = mask.shape[0], width = mask.shape[1];
  Scratch scratch;
  scratch.distance = reinterpret_cast<u16*>(memory.data);
  scratch.rows = reinterpret_cast<char*>(memory.data + plane_bytes(height, width));
  scratch.row_bytes = row_bytes(width);
  parallel_for((width + kStrip - 1) / kStrip, 1, [=](i64 begin, i64 end, int) {
    for (i64 strip = begin; strip < end; ++strip) {
      const i64 x0 = strip * kStrip, count = width - x0 < kStrip ? width - x0 : kStrip;
      u16* d = scratch.distance + x0;
      first_row(mask.row(0) + x0, d, count);
      for (i64 y = 1; y < height; ++y) {
        sweep_down(mask.row(y) + x0, d + (y - 1) * width, d + y * width, count);
      }
      for (i64 y = height - 1; y-- > 0;) sweep_up(d + (y + 1) * width, d + y * width, count);
    }
  });
  parallel_for(height, 8192 / width + 1, [=](i64 begin, i64 end, int worker) {
    for (i64 y = begin; y < end; ++y) {
      transform_row(out, scratch, y, worker, limit);
    }
  });
}

}  // namespace trtseg
