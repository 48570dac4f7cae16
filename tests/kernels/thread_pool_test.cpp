#include "kernels/thread_pool.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <stdexcept>

#include "kernels/cpu_context.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

#if defined(__linux__)
#include <sched.h>
#endif

namespace topomoe::test {
namespace {

using kernels::ThreadPool;
using std::chrono::milliseconds;

constexpr milliseconds kAsleep{20};  // a hundred times what a worker spins

// Counts calls, and those that are not from the thread that made it.
struct Calls {
  std::thread::id maker = std::this_thread::get_id();
  std::atomic<long> all{0}, from_elsewhere{0};
  ProgressHook hook() {
    return {[](void* state) {
              auto& c = *static_cast<Calls*>(state);
              ++c.all;
              if (std::this_thread::get_id() != c.maker) ++c.from_elsewhere;
            },
            this};
  }
};

TEST(ThreadPool, EachPieceIsDoneOnce_OnAnyNumberOfThreads) {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const std::int64_t pieces : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> done(static_cast<std::size_t>(pieces));
      std::atomic<int> strange{0};
      pool.run(pieces, {}, [&](std::int64_t piece, int worker) {
        ++done[static_cast<std::size_t>(piece)];
        if (worker < 0 || worker >= threads) ++strange;
      });
      for (const auto& times : done) ASSERT_EQ(times, 1);
      EXPECT_EQ(strange, 0);
    }
  }
}

// What one run writes the next one reads, from whichever thread: under ThreadSanitizer a race would show.
TEST(ThreadPool, ManyShortRuns_SeeEachOthersWrites) {
  ThreadPool pool(3);
  std::vector<long> values(8, 0);
  for (int run = 0; run < 3000; ++run)
    pool.run(8, {}, [&](std::int64_t piece, int) { values[static_cast<std::size_t>((piece + run) % 8)] += 1; });
  for (const long v : values) EXPECT_EQ(v, 3000);
}

// Each worker waits until all have begun, so that none can do two.
TEST(ThreadPool, Workers_RunAtTheSameTime) {
  constexpr int kThreads = 3;
  ThreadPool pool(kThreads);
  std::atomic<int> begun{0};
  std::atomic<unsigned> workers{0};
  pool.run(kThreads, {}, [&](std::int64_t, int worker) {
    ++begun;
    while (begun < kThreads) std::this_thread::yield();
    workers |= 1U << worker;
  });
  EXPECT_EQ(workers, 7U);
}

TEST(ThreadPool, HookIsTheCallersOwn_AndCalledWhileItWaits) {
  Calls calls;
  ThreadPool pool(2);
  std::atomic<bool> other_began{false};
  pool.run(2, calls.hook(), [&](std::int64_t, int worker) {
    if (worker == 0) {
      while (!other_began) std::this_thread::yield();
    } else {
      other_began = true;
      std::this_thread::sleep_for(kAsleep);  // the caller has nothing left to do
    }
  });
  EXPECT_EQ(calls.from_elsewhere, 0);
  EXPECT_GE(calls.all, 2);  // after its own piece, and in the wait
  const long before = calls.all;
  ThreadPool alone(1);
  alone.run(5, calls.hook(), [](std::int64_t, int) {});
  EXPECT_EQ(calls.all, before + 5);
}

// Of the caller's piece, of a worker's, of the hook: run() throws it once nobody works any more, and the pool lives on.
TEST(ThreadPool, WhatIsThrown_ComesOutOfRun) {
  ThreadPool pool(2);
  for (const int thrower : {0, 1}) {
    std::atomic<int> begun{0}, working{0};
    const auto run = [&] {
      pool.run(2, {}, [&](std::int64_t, int worker) {
        ++working, ++begun;
        while (begun < 2) std::this_thread::yield();
        if (worker != thrower) std::this_thread::sleep_for(milliseconds(2));
        --working;
        if (worker == thrower) throw std::runtime_error("piece");
      });
    };
    EXPECT_THROW(run(), std::runtime_error);
    EXPECT_EQ(working, 0);
  }
  const ProgressHook thrower{[](void*) { throw std::logic_error("hook"); }, nullptr};
  EXPECT_THROW(pool.run(100, thrower, [](std::int64_t, int) {}), std::logic_error);
  int alone = 0;
  EXPECT_THROW(ThreadPool().run(5, thrower, [&](std::int64_t, int) { ++alone; }), std::logic_error);
  EXPECT_EQ(alone, 1);
  std::atomic<int> done{0};
  pool.run(100, {}, [&](std::int64_t, int) { ++done; });
  EXPECT_EQ(done, 100);
}

TEST(ThreadPool, AfterAPieceThrew_NoOtherIsBegun) {
  ThreadPool pool(2);
  std::atomic<int> begun{0};
  EXPECT_THROW(pool.run(1'000'000, {},
                        [&](std::int64_t, int) {
                          ++begun;
                          throw std::runtime_error("each");
                        }),
               std::runtime_error);
  EXPECT_LE(begun, 2);
}

TEST(ThreadPool, WorkersThatSleep_WakeForARunAndForTheEnd) {
  {
    const ThreadPool never_used(3);
    std::this_thread::sleep_for(kAsleep);
  }
  ThreadPool pool(2);
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(kAsleep);
    std::atomic<int> begun{0};
    pool.run(2, {}, [&](std::int64_t, int) {
      ++begun;
      while (begun < 2) std::this_thread::yield();  // ends only with the other one awake
    });
  }
}

TEST(ThreadPool, NoThreads_IsRefused) {
  EXPECT_THROW(ThreadPool(0), InvalidInput);
  EXPECT_THROW(make_cpu_device({}, {.threads = -1}), InvalidInput);
}

#if defined(__linux__)
// On a thread of its own: affinity is a thread's.
TEST(ThreadPool, Affinity_IsTheMakers) {
  std::thread([] {
    cpu_set_t all, one;
    ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    std::size_t cpu = 0;
    while (!CPU_ISSET(cpu, &all)) ++cpu;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    EXPECT_EQ(kernels::allowed_cpus(), CPU_COUNT(&all));
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(kernels::allowed_cpus(), 1);
    ThreadPool pool(2);
    std::atomic<int> begun{0}, elsewhere{0};
    pool.run(2, {}, [&](std::int64_t, int) {
      ++begun;
      while (begun < 2) std::this_thread::yield();
      cpu_set_t mine;
      if (sched_getaffinity(0, sizeof mine, &mine) != 0 || !CPU_EQUAL(&mine, &one)) ++elsewhere;
    });
    EXPECT_EQ(elsewhere, 0);
  }).join();
}
#endif

TEST(Share, PartsCoverAllItemsOnce) {
  ThreadPool pool(3);
  for (ThreadPool* const threads : {static_cast<ThreadPool*>(nullptr), &pool})
    for (const std::int64_t items : {0, 1, 5, 1000})
      for (const std::int64_t operations : {0, 1, 1 << 16, 1 << 30}) {
        std::vector<std::atomic<int>> done(static_cast<std::size_t>(items));
        kernels::share({kernels::best_isa(), threads}, items, operations, [&](std::int64_t first, std::int64_t last) {
          ASSERT_LT(first, last);
          for (std::int64_t i = first; i < last; ++i) ++done[static_cast<std::size_t>(i)];
        });
        for (const auto& times : done) ASSERT_EQ(times, 1);
      }
}

// 64 items of a quarter of Progress's budget: at least 16 calls.
TEST(Share, HookIsCalledAsOftenAsProgressSays) {
  ThreadPool pool(2);
  for (ThreadPool* const threads : {static_cast<ThreadPool*>(nullptr), &pool}) {
    Calls calls;
    std::atomic<long> parts{0};
    kernels::share({kernels::best_isa(), threads, calls.hook()}, 64, kernels::Progress::kOperationsPerCall / 4,
                   [&](std::int64_t, std::int64_t) { ++parts; });
    EXPECT_GE(parts, 16);
    EXPECT_EQ(calls.from_elsewhere, 0);
    if (threads == nullptr) {
      EXPECT_EQ(calls.all, parts);
    }
  }
}

}  // namespace
}  // namespace topomoe::test
