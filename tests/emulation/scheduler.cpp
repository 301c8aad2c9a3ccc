// Long, for one thing: blocks, warps and threads as fibres, and all that one may wait for.
#include "scheduler.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulation {

Position position;

namespace {

constexpr size_t kStackBytes = 128 << 10;
constexpr int kInvalidConfiguration = 9;  // cudaErrorInvalidConfiguration

enum class State { kFresh, kReady, kAtBarrier, kAtExchange, kDone };
enum class Order { kForward, kReverse, kShuffled };

// A place where threads wait: file and line of the call.
struct Site {
  const char* file = "";
  int line = 0;
  bool operator==(const Site& o) const { return line == o.line && !std::strcmp(file, o.file); }
  std::string text() const { return std::string(file) + ":" + std::to_string(line); }
};

// A stack of its own and where it was left. AddressSanitizer has to be told of each change.
struct Context {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;  // callee-saved registers lie on the stack
#else
  ucontext_t registers;
#endif
  const void* stack = nullptr;
  size_t stack_bytes = 0;
  void* fake_stack = nullptr;
};

struct Fiber {
  Context context;
  std::unique_ptr<char[]> memory{new char[kStackBytes]};
  int thread = -1;
};

struct Thread {
  State state = State::kFresh;
  Fiber* fiber = nullptr;
  Site site;
  uint32_t mask = 0;
  uint64_t value = 0;
  Exchange received;
};

struct Settings {
  Order order = Order::kForward;
  uint64_t seed = 0;
} settings;

struct Log {
  uint64_t launches = 0;
  std::map<uintptr_t, uint64_t> launches_on;  // by stream
} launch_log;

int pending_error = 0;
std::mutex one_launch_at_a_time;

// The running launch. Only one exists, guarded by the mutex.
struct Launch {
  const char* kernel;
  Config config;
  const std::function<void()>* body;
  std::mt19937_64 random;
  std::vector<Thread> threads;
  std::vector<int> order;
  size_t cursor = 0;
  int done = 0;
  bool moved = false;  // some thread ran since the cursor last passed the start
  Context host;
  Context* active = nullptr;
  Fiber* entered = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> idle;
  std::set<void*> poisoned;
  std::unique_ptr<char[]> shared;
  std::string failure;

  int count() const { return static_cast<int>(threads.size()); }
  void run();
  void run_block(const dim3& block);
  void arrange(std::vector<int>& items);
  int next();
  void enter(int thread);
  void fiber_loop(Fiber* fiber);
  void switch_to(Context& target);
  void yield();
  void release_barrier();
  std::string stuck() const;
  [[noreturn]] void fail(const std::string& what);
};

Launch* current = nullptr;
int running = -1;  // index of the running thread in its block

void after_switch(Context& self) {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom;
  size_t bytes;
  __sanitizer_finish_switch_fiber(self.fake_stack, &bottom, &bytes);
  if (current->host.stack == nullptr) {  // first arrival on a fiber: we came from the host
    current->host.stack = bottom;
    current->host.stack_bytes = bytes;
  }
#else
  (void)self;
#endif
}

// First function on a fiber's stack.
void fiber_main() {
  Fiber* fiber = current->entered;
  after_switch(fiber->context);
  current->fiber_loop(fiber);
}

#if defined(__x86_64__)
// swapcontext would enter the kernel for the signal mask, twice for each thread at each barrier.
extern "C" void emulation_switch(void** save, void* load);
asm(R"(
.text
.type emulation_switch, @function
emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulation_switch, .-emulation_switch
)");

void prepare(Context& context) {
  auto top = reinterpret_cast<uintptr_t>(context.stack) + context.stack_bytes;
  void** frame = reinterpret_cast<void**>(top / 16 * 16) - 8;  // six registers, return, padding
  std::fill(frame, frame + 8, nullptr);
  frame[6] = reinterpret_cast<void*>(fiber_main);
  context.stack_pointer = frame;
}

void jump(Context& from, Context& to) { emulation_switch(&from.stack_pointer, to.stack_pointer); }
#else
void prepare(Context& context) {
  getcontext(&context.registers);
  context.registers.uc_stack.ss_sp = const_cast<void*>(context.stack);
  context.registers.uc_stack.ss_size = context.stack_bytes;
  context.registers.uc_link = nullptr;
  makecontext(&context.registers, fiber_main, 0);
}

void jump(Context& from, Context& to) { swapcontext(&from.registers, &to.registers); }
#endif

dim3 unflat(unsigned i, const dim3& n) { return {i % n.x, i / n.x % n.y, i / n.x / n.y}; }

void Launch::arrange(std::vector<int>& items) {
  std::iota(items.begin(), items.end(), 0);
  if (settings.order == Order::kReverse) std::reverse(items.begin(), items.end());
  if (settings.order == Order::kShuffled) std::shuffle(items.begin(), items.end(), random);
}

void Launch::switch_to(Context& target) {
  Context& self = *active;
  active = &target;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&self.fake_stack, target.stack, target.stack_bytes);
#endif
  jump(self, target);
  after_switch(self);
}

// Back to the host, which picks the next thread; returns when this thread is picked again.
void Launch::yield() {
  const int self = running;
  switch_to(host);
  running = self;
  position.thread = unflat(self, config.block);
}

void Launch::fail(const std::string& what) {
  const dim3 b = position.block, t = position.thread;
  failure = std::string(kernel) + ", block (" + std::to_string(b.x) + ", " + std::to_string(b.y) +
            ", " + std::to_string(b.z) + "), thread (" + std::to_string(t.x) + ", " +
            std::to_string(t.y) + ", " + std::to_string(t.z) + "): " + what;
  switch_to(host);
  std::abort();  // a failed launch is never resumed
}

// Runs threads to their end until one waits or the next one already has a fiber. A thread that
// never waits so costs no switch.
void Launch::fiber_loop(Fiber* fiber) {
  for (;;) {
    const int self = fiber->thread;
    running = self;
    position.thread = unflat(self, config.block);
    (*body)();
    threads[self].state = State::kDone;
    threads[self].fiber = nullptr;
    ++done;
    while (cursor < order.size() && threads[order[cursor]].state == State::kDone) ++cursor;
    if (cursor < order.size() && threads[order[cursor]].state == State::kFresh) {
      fiber->thread = order[cursor++];
      threads[fiber->thread].fiber = fiber;
      continue;
    }
    idle.push_back(fiber);
    switch_to(host);
  }
}

void Launch::enter(int thread) {
  Thread& t = threads[thread];
  if (t.state == State::kFresh) {
    if (idle.empty()) {
      fibers.push_back(std::make_unique<Fiber>());
      Fiber* fiber = fibers.back().get();
      fiber->context.stack = fiber->memory.get();
      fiber->context.stack_bytes = kStackBytes;
      prepare(fiber->context);
      idle.push_back(fiber);
    }
    t.fiber = idle.back();
    idle.pop_back();
  }
  t.fiber->thread = thread;
  entered = t.fiber;
  switch_to(t.fiber->context);
}

// Next thread that can run, -1 when the block is done or has failed.
int Launch::next() {
  for (;;) {
    for (; cursor < order.size(); ++cursor) {
      const State s = threads[order[cursor]].state;
      if (s == State::kFresh || s == State::kReady) {
        moved = true;
        return order[cursor++];
      }
    }
    if (done == count()) return -1;
    if (!moved) release_barrier();
    if (!failure.empty()) return -1;
    moved = false;
    arrange(order);
    cursor = 0;
  }
}

std::string Launch::stuck() const {
  std::string text;
  std::vector<std::string> seen;
  for (const Thread& t : threads) {
    std::string what = "returned";
    if (t.state == State::kAtBarrier) what = "at the barrier of " + t.site.text();
    if (t.state == State::kAtExchange) what = "at the warp exchange of " + t.site.text();
    if (std::find(seen.begin(), seen.end(), what) == seen.end()) seen.push_back(what);
  }
  for (const std::string& what : seen) text += (text.empty() ? "" : ", others ") + what;
  return text;
}

// Called when no thread can run: lets a complete barrier open, anything else is an error.
void Launch::release_barrier() {
  for (const Thread& t : threads) {
    if (t.state != State::kAtBarrier || !(t.site == threads[0].site)) {
      failure = std::string(kernel) + ": threads diverge, some " + stuck();
      return;
    }
  }
  for (Thread& t : threads) t.state = State::kReady;
}

void Launch::run_block(const dim3& block) {
  position.block = block;
  std::fill(threads.begin(), threads.end(), Thread{});
  poisoned.clear();
  shared.reset(new char[config.shared_bytes]);  // its exact size, for AddressSanitizer
  std::memset(shared.get(), 0xFF, config.shared_bytes);
  arrange(order);
  cursor = 0;
  done = 0;
  moved = false;
  for (int thread = next(); thread >= 0 && failure.empty(); thread = next()) enter(thread);
}

void Launch::run() {
  const dim3 g = config.grid;
  threads.resize(static_cast<size_t>(config.block.x) * config.block.y * config.block.z);
  order.resize(threads.size());
  std::vector<int> blocks(static_cast<size_t>(g.x) * g.y * g.z);
  arrange(blocks);
  active = &host;
  position.block_size = config.block;
  position.grid_size = g;
  for (int b : blocks) {
    run_block(unflat(static_cast<unsigned>(b), g));
    if (!failure.empty()) throw std::runtime_error("emulation: " + failure);
  }
}

}  // namespace

void launch(const char* kernel, const Config& config, const std::function<void()>& thread) {
  const std::lock_guard<std::mutex> lock(one_launch_at_a_time);
  const dim3 g = config.grid, b = config.block;
  const bool shape_ok = g.x && g.y && g.z && b.x && b.y && b.z && g.x <= 0x7FFFFFFFu &&
                        g.y <= 65535 && g.z <= 65535 && b.x <= 1024 && b.y <= 1024 && b.z <= 64 &&
                        static_cast<uint64_t>(b.x) * b.y * b.z <= 1024;
  if (!shape_ok || config.shared_bytes > (48u << 10)) {
    pending_error = kInvalidConfiguration;
    return;
  }
  ++launch_log.launches;
  ++launch_log.launches_on[reinterpret_cast<uintptr_t>(config.stream)];
  Launch l;
  l.kernel = kernel;
  l.config = config;
  l.body = &thread;
  l.random.seed(settings.seed);
  current = &l;
  try {
    l.run();
  } catch (...) {
    current = nullptr;
    throw;
  }
  current = nullptr;
}

void poison_static_shared(void* data, size_t bytes) {
  if (current->poisoned.insert(data).second) std::memset(data, 0xFF, bytes);
}

void* dynamic_shared() { return current->shared.get(); }

void block_barrier(const char* file, int line) {
  Thread& t = current->threads[running];
  t.state = State::kAtBarrier;
  t.site = {file, line};
  current->yield();
}

int lane() { return running % 32; }

const Exchange& warp_exchange(uint32_t mask, uint64_t value, const char* file, int line) {
  Launch& l = *current;
  const int first = running / 32 * 32, size = std::min(32, l.count() - first);
  const uint32_t whole = size == 32 ? ~0u : (1u << size) - 1;
  if (!(mask >> lane() & 1)) l.fail("the mask of a warp exchange lacks the calling lane");
  // Launches with a ragged last warp commonly pass the full mask; hardware ignores the lanes
  // that do not exist.
  mask &= whole;
  Thread& self = l.threads[running];
  self.state = State::kAtExchange;
  self.site = {file, line};
  self.mask = mask;
  self.value = value;
  bool all = true;
  for (int i = 0; i < size; ++i) {
    if (!(mask >> i & 1)) continue;
    const Thread& t = l.threads[first + i];
    if (t.state == State::kDone) l.fail("a warp exchange names a lane that has returned");
    const bool here = t.state == State::kAtExchange;
    if (here && (!(t.site == self.site) || t.mask != mask)) {
      l.fail("lanes of a warp meet at different exchanges: " + t.site.text() + " and " +
             self.site.text());
    }
    all = here;
    if (!all) break;  // the one that comes last looks at every lane
  }
  if (all) {
    Exchange gathered{};
    gathered.present = mask;
    for (int i = 0; i < size; ++i) gathered.value[i] = l.threads[first + i].value;
    for (int i = 0; i < size; ++i) {
      if (!(mask >> i & 1)) continue;
      l.threads[first + i].received = gathered;
      l.threads[first + i].state = State::kReady;
    }
    // Unfair on purpose: the warps that come first run ahead of the others as far as they can.
    l.cursor = 0;
  }
  l.yield();
  return self.received;
}

void kernel_error(const char* what) { current->fail(what); }

int last_error(bool reset) {
  const int error = pending_error;
  if (reset) pending_error = 0;
  return error;
}

}  // namespace emulation

// For the tests, through ctypes.
#pragma GCC visibility push(default)
extern "C" {
void emulation_set_order(int order, uint64_t seed) {
  emulation::settings.order = static_cast<emulation::Order>(order);
  emulation::settings.seed = seed;
}
uint64_t emulation_launches() { return emulation::launch_log.launches; }
uint64_t emulation_launches_on(uint64_t stream) {
  return emulation::launch_log.launches_on[static_cast<uintptr_t>(stream)];
}
}
#pragma GCC visibility pop
