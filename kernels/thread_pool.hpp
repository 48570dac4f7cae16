// Threads beside the caller for host kernels: a kernel hands over numbered pieces, whoever is free takes the next.
//
//   pool.run(pieces, hook, [&](std::int64_t piece, int worker) { ... });   // returns when all are done
//
// Which thread does a piece is chance; what a piece computes must not depend on it. `worker` is 0 (the caller) to
// threads() - 1, to index scratch with. The caller calls the hook after each piece and while it waits, so that a piece
// should take less than half a millisecond. Workers inherit the affinity of whoever makes the pool; they spin for a
// moment after a run, then sleep. Not thread-safe: a rank owns its pool. What pieces throw ends the process: they do
// not.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "topomoe/device.hpp"

namespace topomoe::kernels {

// CPUs that this thread may run on; 1 where that is unknown.
int allowed_cpus();

class ThreadPool {
 public:
  // threads: the caller's included, at least 1. With 1 nothing is started and a run is a loop.
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
    run_shared(pieces, hook,
               {[](void* f, std::int64_t i, int worker) { (*static_cast<std::remove_reference_t<F>*>(f))(i, worker); },
                const_cast<void*>(static_cast<const void*>(&piece))});
  }

 private:
  struct Job {
    void (*call)(void*, std::int64_t, int) = nullptr;
    void* state = nullptr;
  };
  void run_shared(std::int64_t pieces, const ProgressHook& hook, Job job);
  void work(int worker);

  std::vector<std::thread> workers_;
  Job job_;
  std::int64_t pieces_ = 0;
  alignas(64) std::atomic<std::int64_t> next_{0};
  alignas(64) std::atomic<std::uint32_t> round_{0};  // a run begins when it grows; workers sleep on it
  alignas(64) std::atomic<int> busy_{0};             // workers that have not left the run
  std::atomic<bool> stop_{false};
};

}  // namespace topomoe::kernels
