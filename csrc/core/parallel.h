// All cores of the host, without OpenMP: a small pool that starts at the first parallel loop (never
// at import), sleeps between loops and survives a fork.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/view.h"

namespace trtseg {

// The machine's cores, and never more than 64. Does not change while the process lives, so scratch
// memory can be sized by it.
int max_threads();

// How many threads a loop uses at present, the caller's own included: 1 .. max_threads().
int num_threads();

// Clamped to 1 .. max_threads().
void set_num_threads(int count);

namespace detail {
// body(context, begin, end, worker) for consecutive ranges of at most `grain` items.
using Body = void (*)(void* context, i64 begin, i64 end, int worker);
void run(i64 count, i64 grain, Body body, void* context);
}  // namespace detail

// Calls f(begin, end, worker) over 0 .. count in ranges of `grain` items (the last may be shorter),
// each range once, from up to num_threads() threads. `worker` is below max_threads() and no two
// concurrent calls of one loop share it. `f` must not throw. A loop inside a loop, or a loop
// started while another thread's loop holds the pool, runs on the calling thread alone.
template <class F>
void parallel_for(i64 count, i64 grain, F&& f) {
  using Function = std::remove_reference_t<F>;
  detail::run(
      count, grain,
      [](void* context, i64 begin, i64 end, int worker) {
        (*static_cast<Function*>(context))(begin, end, worker);
      },
      const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace trtseg
