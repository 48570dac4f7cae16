#include "kernels/thread_pool.hpp"

#if defined(__linux__)
#include <sched.h>
#endif

namespace topomoe::kernels {
namespace {

// A hundred microseconds or so: kernels of one layer follow each other closer than a sleeping thread wakes up.
constexpr int kSpins = 4000;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

int allowed_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  return 1;
}

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  round_.fetch_add(1);
  round_.notify_all();
  for (std::thread& t : workers_) t.join();
}

void ThreadPool::run_shared(std::int64_t pieces, const ProgressHook& hook, Job job) {
  job_ = job, pieces_ = pieces;
  next_.store(0, std::memory_order_relaxed);
  busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::int64_t i = next_.fetch_add(1); i < pieces; i = next_.fetch_add(1)) job.call(job.state, i, 0), hook();
  while (busy_.load(std::memory_order_acquire) > 0) {
    hook();
    for (int spin = 0; spin < 64 && busy_.load(std::memory_order_acquire) > 0; ++spin) relax();
    // Where threads share a CPU the one that is waited for must get it.
    if (busy_.load(std::memory_order_acquire) > 0) std::this_thread::yield();
  }
}

void ThreadPool::work(int worker) {
  std::uint32_t seen = 0;
  for (;;) {
    int spins = 0;
    while (round_.load(std::memory_order_acquire) == seen) {
      if (++spins < kSpins)
        relax();
      else
        round_.wait(seen, std::memory_order_acquire);
    }
    ++seen;
    if (stop_) return;
    for (std::int64_t i = next_.fetch_add(1); i < pieces_; i = next_.fetch_add(1)) job_.call(job_.state, i, worker);
    busy_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace topomoe::kernels
