// Fibers of all launches, so that a grid of 65,535 blocks makes no more of them than a block or two have threads.
//
// Without ThreadSanitizer a thread takes the fiber that was left last, often the one that chooses it. With it, that
// which was left first: as there are twice as many as threads in a block, no two threads of a block, nor of a block and
// the next, are one fiber, whose accesses would be ordered.
#pragma once

#include <memory>
#include <vector>

#include "tests/support/simt/fiber.hpp"
#include "tests/support/simt/sanitizers.hpp"

namespace topomoe::simt {

class FiberPool {
 public:
  // For blocks of so many threads. All fibers are free then.
  void provide(std::size_t threads, void (*body)()) {
    const std::size_t count = sees_races() ? 2 * threads : threads;
    while (all_.size() < count) all_.push_back(std::make_unique<Fiber>(body));
    free_.clear();
    for (const auto& fiber : all_) free_.push_back(fiber.get());
    first_ = 0;
    left_ = free_.size();
  }
  Fiber* take() {
    --left_;
    if (!sees_races()) return free_[left_];
    Fiber* taken = free_[first_];
    first_ = (first_ + 1) % free_.size();
    return taken;
  }
  void give_back(Fiber* fiber) {
    free_[sees_races() ? (first_ + left_) % free_.size() : left_] = fiber;
    ++left_;
  }
  // For fibers that were left in the middle of a thread.
  void drop() { all_.clear(); }
  const std::vector<std::unique_ptr<Fiber>>& all() const { return all_; }

 private:
  std::vector<std::unique_ptr<Fiber>> all_;
  std::vector<Fiber*> free_;  // a ring: left_ of them from first_ on; a stack without ThreadSanitizer
  std::size_t first_ = 0, left_ = 0;
};

}  // namespace topomoe::simt
