// Threads beside the caller for host kernels: a kernel hands over numbered pieces, whoever is free takes the next.
//
//   pool.run(pieces, hook, [&](std::int64_t piece, int worker) { ... });   // returns when all are done
//
// Which thread does a piece is chance; what a piece computes must not depend on it. `worker` is 0 (the caller) to
// threads() - 1, to index scratch with. The caller calls the hook after each of its pieces and while it waits, so that
// a piece should take less than half a millisecond. It waits for workers that have begun a piece, never for one that
// sleeps or has no CPU. Workers inherit the affinity of whoever makes the pool; they spin for a moment after a run,
// then sleep. Whatever a piece or the hook throws, run() throws once all have stopped (the first of several); pieces
// that had not begun are not done then. Not thread-safe: a rank owns its pool. A run inside a run is not allowed.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "topomoe/device.hpp"

namespace topomoe::kernels {

// CPUs that this thread may run on; 1 where that is unknown.
int allowed_cpus();

class ThreadPool {
 public:
  // threads: the caller's included, at least 1. With 1 nothing is started and a run is a loop. MissingEnvironment where
  // the system does not give so many.
  explicit ThreadPool(int threads = 1);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  template <class F>
  void run(std::int64_t pieces, const ProgressHook& hook, F&& piece) {
    if (workers_.empty() || pieces < 2) {
      for (std::int64_t i = 0; i < pieces; ++i) piece(i, 0), hook();
      return;
    }
    using Piece = std::remove_reference_t<F>;
    run_shared(
        pieces, hook,
        {[](const void* f, std::int64_t i, int worker) { (*static_cast<Piece*>(const_cast<void*>(f)))(i, worker); },
         std::addressof(piece)});
  }

 private:
  struct Job {
    void (*call)(const void*, std::int64_t, int) = nullptr;
    const void* state = nullptr;
  };
  void run_shared(std::int64_t pieces, const ProgressHook& hook, Job job);
  void take_pieces(int worker, const ProgressHook& hook) noexcept;
  void failed() noexcept;
  void end_workers();
  bool enter();
  void work(int worker);

  std::vector<std::thread> workers_;
  Job job_;
  std::int64_t pieces_ = 0;
  std::exception_ptr error_;
  std::atomic<bool> has_failed_{false};
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<std::int64_t> next_{0};
  // Number of the run, a bit that says whether workers may still join it, and how many have joined and not left.
  alignas(64) std::atomic<std::uint64_t> gate_{0};
  alignas(64) std::atomic<std::uint32_t> runs_{0};  // workers sleep until it changes
};

}  // namespace topomoe::kernels
