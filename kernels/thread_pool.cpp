#include "kernels/thread_pool.hpp"

#include <string>
#include <system_error>
#include <utility>

#include "topomoe/error.hpp"

#if defined(__linux__)
#include <sched.h>
#endif

namespace topomoe::kernels {
namespace {

// A hundred microseconds or so: kernels of one layer follow each other closer than a sleeping thread wakes up.
constexpr int kSpins = 4000;

constexpr std::uint64_t kJoined = (std::uint64_t{1} << 31) - 1, kOpen = kJoined + 1, kRun = std::uint64_t{1} << 32;

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
  if (threads < 1) throw InvalidInput("threads", std::to_string(threads), "at least 1");
  workers_.reserve(static_cast<std::size_t>(threads) - 1);
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::system_error& error) {
    const std::size_t started = workers_.size() + 1;
    end_workers();
    throw MissingEnvironment("threads: the system gives " + std::to_string(started) + " of " + std::to_string(threads) +
                             ": " + error.what());
  }
}

ThreadPool::~ThreadPool() { end_workers(); }

void ThreadPool::end_workers() {
  stop_ = true;
  runs_.fetch_add(1);
  runs_.notify_all();
  for (std::thread& t : workers_) t.join();
}

void ThreadPool::failed() noexcept {
  if (!has_failed_.exchange(true)) error_ = std::current_exception();
  next_.store(pieces_);
}

void ThreadPool::take_pieces(int worker, const ProgressHook& hook) noexcept {
  try {
    for (std::int64_t i = next_.fetch_add(1); i < pieces_; i = next_.fetch_add(1))
      job_.call(job_.state, i, worker), hook();
  } catch (...) {
    failed();
  }
}

void ThreadPool::run_shared(std::int64_t pieces, const ProgressHook& hook, Job job) {
  job_ = job, pieces_ = pieces;
  next_.store(0, std::memory_order_relaxed);
  gate_.store((gate_.load(std::memory_order_relaxed) & ~(kRun - 1)) + kRun + kOpen, std::memory_order_release);
  runs_.fetch_add(1, std::memory_order_release);
  runs_.notify_all();
  take_pieces(0, hook);
  gate_.fetch_and(~kOpen);
  while ((gate_.load(std::memory_order_acquire) & kJoined) > 0) {
    try {
      if (!has_failed_.load(std::memory_order_relaxed)) hook();
    } catch (...) {
      failed();
    }
    for (int spin = 0; spin < 64 && (gate_.load(std::memory_order_acquire) & kJoined) > 0; ++spin) relax();
    // Where threads share a CPU the one that is waited for must get it.
    if ((gate_.load(std::memory_order_acquire) & kJoined) > 0) std::this_thread::yield();
  }
  if (has_failed_.exchange(false)) std::rethrow_exception(std::exchange(error_, nullptr));
}

// A worker that wakes up late finds the run closed: nobody waits for it, and it reads nothing of the next one.
bool ThreadPool::enter() {
  std::uint64_t gate = gate_.load(std::memory_order_acquire);
  while ((gate & kOpen) != 0)
    if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel, std::memory_order_acquire)) return true;
  return false;
}

void ThreadPool::work(int worker) {
  std::uint32_t seen = 0;
  for (;;) {
    for (int spins = 0; runs_.load(std::memory_order_acquire) == seen;) {
      if (++spins < kSpins)
        relax();
      else
        runs_.wait(seen, std::memory_order_acquire);
    }
    seen = runs_.load(std::memory_order_acquire);
    if (stop_) return;
    if (!enter()) continue;
    take_pieces(worker, {});
    gate_.fetch_sub(1, std::memory_order_acq_rel);
  }
}

}  // namespace topomoe::kernels
