#include "core/parallel.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace trtseg {
namespace {

constexpr int kMaxThreads = 64;

int count_cores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
#endif
  return cores < 1 ? 1 : cores > kMaxThreads ? kMaxThreads : cores;
}

struct Job {
  i64 count;
  i64 grain;
  detail::Body body;
  void* context;
};

// Takes ranges until none is left.
void work(const Job& job, std::atomic<i64>& next, int worker) {
  for (;;) {
    const i64 begin = next.fetch_add(job.grain, std::memory_order_relaxed);
    if (begin >= job.count) return;
    const i64 end = begin + job.grain < job.count ? begin + job.grain : job.count;
    job.body(job.context, begin, end, worker);
  }
}

// A pool is never destroyed: its threads sleep until the process ends, and a forked child, which has
// none of its parent's threads, simply makes a new one.
class Pool {
 public:
  // False if another loop holds the pool.
  bool run(const Job& job, int threads) {
    std::unique_lock<std::mutex> loop(loop_, std::try_to_lock);
    if (!loop.owns_lock()) return false;
    {
      std::lock_guard<std::mutex> lock(state_);
      start(threads - 1);
      job_ = job;
      next_.store(0, std::memory_order_relaxed);
      helpers_ = threads - 1;
      open_ = true;
      ++generation_;
    }
    wake_.notify_all();
    work(job, next_, 0);
    // Only those who joined are waited for: a thread that wakes late finds the job closed.
    std::unique_lock<std::mutex> lock(state_);
    open_ = false;
    done_.wait(lock, [this] { return inside_ == 0; });
    return true;
  }

 private:
  void start(int helpers) {
    for (; started_ < helpers; ++started_) {
      try {
        std::thread([this, worker = started_ + 1] { serve(worker); }).detach();
      } catch (const std::system_error&) {
        return;  // the system grants no more threads: fewer do the work
      }
    }
  }

  void serve(int worker);

  std::mutex loop_;
  std::mutex state_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::atomic<i64> next_{0};
  Job job_{};
  int helpers_ = 0;
  int inside_ = 0;
  int started_ = 0;
  bool open_ = false;
  std::uint64_t generation_ = 0;
};

thread_local bool inside_loop = false;
std::atomic<Pool*> pool{nullptr};
std::atomic<int> threads_wanted{0};

void Pool::serve(int worker) {
  inside_loop = true;
  std::uint64_t seen = 0;
  std::unique_lock<std::mutex> lock(state_);
  for (;;) {
    wake_.wait(lock, [&] { return generation_ != seen; });
    seen = generation_;
    if (!open_ || worker > helpers_) continue;
    ++inside_;
    const Job job = job_;
    lock.unlock();
    work(job, next_, worker);
    lock.lock();
    if (--inside_ == 0) done_.notify_one();
  }
}

Pool& current_pool() {
  Pool* found = pool.load(std::memory_order_acquire);
  if (found != nullptr) return *found;
  Pool* made = new Pool;
  if (!pool.compare_exchange_strong(found, made, std::memory_order_acq_rel)) {
    delete made;
    return *found;
  }
#if defined(__unix__) || defined(__APPLE__)
  static const int registered = pthread_atfork(nullptr, nullptr, [] {
    pool.store(nullptr, std::memory_order_release);
    inside_loop = false;
  });
  static_cast<void>(registered);
#endif
  return *made;
}

}  // namespace

int max_threads() {
  static const int count = count_cores();
  return count;
}

int num_threads() {
  const int wanted = threads_wanted.load(std::memory_order_relaxed);
  return wanted == 0 ? max_threads() : wanted;
}

void set_num_threads(int count) {
  const int most = max_threads();
  threads_wanted.store(count < 1 ? 1 : count > most ? most : count, std::memory_order_relaxed);
}

void detail::run(i64 count, i64 grain, Body body, void* context) {
  if (count <= 0) return;
  if (grain < 1) grain = 1;
  const i64 ranges = (count + grain - 1) / grain;
  const int threads = static_cast<int>(ranges < num_threads() ? ranges : num_threads());
  const Job job{count, grain, body, context};
  if (threads > 1 && !inside_loop) {
    inside_loop = true;
    const bool ran = current_pool().run(job, threads);
    inside_loop = false;
    if (ran) return;
  }
  std::atomic<i64> next{0};
  work(job, next, 0);
}

}  // namespace trtseg
