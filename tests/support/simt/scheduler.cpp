// Compiled without any sanitizer. What fibers run here calls nothing that ThreadSanitizer intercepts (allocation,
// memcpy): it would take the scheduler's own data for shared memory of the kernel.
#include "tests/support/simt/scheduler.hpp"

#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/support/simt/fiber_pool.hpp"
#include "tests/support/simt/sanitizers.hpp"

// The ends of where `__shared__` variables lie: shared.ld.
extern "C" {
extern std::byte __start_simt_shared[];
extern std::byte __stop_simt_shared[];
}

namespace topomoe::simt {

Position here;

namespace {

enum class State : std::uint8_t { fresh, ready, running, in_barrier, in_warp, ended };

struct Thread {
  State state = State::fresh;
  Fiber* fiber = nullptr;
  Index index;
  // What it waits in.
  const char* what = "";
  Place place;
  WarpOp op = WarpOp::sync;
  unsigned mask = 0, source = 0;
  std::uint64_t value = 0, result = 0;
};

alignas(1024) std::byte dynamic_memory[kMostShared];
std::uint64_t random_state = 1;

std::uint64_t draw(std::uint64_t below) {  // splitmix64 (Steele, Lea, Flood 2014); its bias plays no part here
  std::uint64_t z = random_state += 0x9E3779B97F4A7C15U;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return (z ^ (z >> 31)) % below;
}

// All bits set: NaN as float and bf16, -1 as an index. Volatile, or it becomes memset, which sanitizers would check.
void spoil(std::byte* memory, std::size_t bytes) {
  std::size_t i = 0;
  for (; i + 8 <= bytes; i += 8) *reinterpret_cast<volatile std::uint64_t*>(memory + i) = ~std::uint64_t{0};
  for (; i < bytes; ++i) *reinterpret_cast<volatile std::uint8_t*>(memory + i) = 0xFF;
}

std::string text(const Index& i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}
std::string hex(unsigned mask) {
  std::string digits = "0x";
  for (int shift = 28; shift >= 0; shift -= 4) digits += "0123456789abcdef"[mask >> shift & 15U];
  return digits;
}
bool same(const Place& a, const Place& b) {
  return a.line() == b.line() && a.column() == b.column() && a.file_name() == b.file_name();
}

FiberPool pool;
unsigned long launches = 0;

class Grid {
 public:
  Grid(const Shape& shape, void (*body)(void*), void* arguments)
      : body_(body), arguments_(arguments), threads_(std::size_t{shape.block.x} * shape.block.y * shape.block.z) {
    ready_.resize(threads_.size());
    waiting_lanes_.resize((threads_.size() + kWarp - 1) / kWarp);
    here.block_size = shape.block;
    here.grid_size = shape.grid;
    for (unsigned i = 0; i < threads_.size(); ++i)
      threads_[i].index = {i % shape.block.x, i / shape.block.x % shape.block.y, i / shape.block.x / shape.block.y};
    ++launches;
  }

  // On the host's own stack.
  void run_block(const Index& block) {
    here.block = block;
    for (unsigned i = 0; i < threads_.size(); ++i) {
      threads_[i].state = State::fresh;
      ready_[i] = i;
    }
    ready_count_ = threads_.size();
    ended_ = at_barrier_ = 0;
    for (unsigned& lanes : waiting_lanes_) lanes = 0;
    go_on();
  }
  bool over() const { return ended_ == threads_.size(); }
  std::string trouble() const;

  // On a fiber.
  void thread_ends() {
    me().state = State::ended;
    ++ended_;
    pool.give_back(me().fiber);
    go_on();
  }
  void run_thread() const { body_(arguments_); }
  unsigned current() const { return current_; }
  int barrier(const char* what, bool vote, const Place& place);
  std::uint64_t with_warp(WarpOp op, const char* what, unsigned mask, std::uint64_t value, unsigned source,
                          const Place& place);

  Fiber host;

 private:
  Thread& me() { return threads_[current_]; }
  void make_ready(unsigned thread) {
    threads_[thread].state = State::ready;
    ready_[ready_count_++] = thread;
  }
  // To a thread that can go on, or to the host when there is none.
  void go_on() {
    if (ready_count_ == 0) return Fiber::switch_to(host);
    const std::size_t drawn = draw(ready_count_);
    const unsigned next = ready_[drawn];
    ready_[drawn] = ready_[--ready_count_];
    Thread& thread = threads_[next];
    if (thread.state == State::fresh) thread.fiber = pool.take();
    thread.state = State::running;
    current_ = next;
    here.thread = thread.index;
    Fiber::switch_to(*thread.fiber);
  }
  void give_up(const char* why) {
    misuse_ = why;
    Fiber::switch_to(host);
  }
  // Each of them sees what all of them did before.
  template <class Threads>
  void order(Threads&& each, void* at) {
    if (!sees_races()) return;
    each([&](const Thread& t) {
      become(t.fiber->identity());
      __tsan_release(at);
    });
    each([&](const Thread& t) {
      become(t.fiber->identity());
      __tsan_acquire(at);
    });
    become(me().fiber->identity());
  }
  std::string waits(const Thread& thread) const {
    return std::string(thread.what) + (thread.state == State::in_warp ? ", mask " + hex(thread.mask) + "," : "") +
           " at " + thread.place.file_name() + ":" + std::to_string(thread.place.line());
  }

  void (*body_)(void*);
  void* arguments_;
  std::vector<Thread> threads_;
  std::vector<unsigned> ready_;  // the first ready_count_
  std::vector<unsigned> waiting_lanes_;
  std::size_t ready_count_ = 0, ended_ = 0, at_barrier_ = 0;
  unsigned current_ = 0;
  const char* misuse_ = nullptr;  // by the current thread
};

Grid* grid = nullptr;
// Addresses that stand for what orders threads: the grid's ends, and in each block anew its barrier and those of its
// warps, by lowest lane.
std::uint64_t launch_edge, end_edge, block_edges[1 + kMostThreads];

// For ThreadSanitizer's reports.
void name_thread() {
  char name[128], *end = name;
  const auto add = [&](const char* words, const Index& index) {
    for (; *words != 0; ++words) *end++ = *words;
    for (const unsigned value : {index.x, index.y, index.z}) {
      unsigned tens = 1;
      while (value / tens >= 10) tens *= 10;
      for (; tens > 0; tens /= 10) *end++ = static_cast<char>('0' + value / tens % 10);
      *end++ = ' ';
    }
  };
  add("block ", here.block);
  add("thread ", here.thread);
  *end = 0;
  __tsan_set_fiber_name(Fiber::running().identity(), name);
}

void fiber_body() {
  for (;;) {
    Fiber& fiber = Fiber::running();
    if (sees_races()) {
      if (fiber.launch != launches) __tsan_acquire(&launch_edge);
      fiber.launch = launches;
      name_thread();
    }
    grid->run_thread();
    grid->thread_ends();
  }
}

int Grid::barrier(const char* what, bool vote, const Place& place) {
  me().state = State::in_barrier;
  me().what = what;
  me().place = place;
  me().value = vote ? 1 : 0;
  ++at_barrier_;
  bool complete = at_barrier_ == threads_.size();
  for (std::size_t i = 0; complete && i < threads_.size(); ++i) complete = same(threads_[i].place, place);
  if (complete) {
    std::uint64_t votes = 0;
    for (const Thread& thread : threads_) votes += thread.value;
    order(
        [&](auto&& each) {
          for (const Thread& thread : threads_) each(thread);
        },
        &block_edges[0]);
    for (unsigned i = 0; i < threads_.size(); ++i) {
      threads_[i].result = votes;
      make_ready(i);
    }
    at_barrier_ = 0;
  }
  go_on();
  return static_cast<int>(me().result);
}

std::uint64_t Grid::with_warp(WarpOp op, const char* what, unsigned mask, std::uint64_t value, unsigned source,
                              const Place& place) {
  const unsigned warp = current_ / kWarp, lane = current_ % kWarp, first = warp * kWarp;
  Thread& mine = me();
  mine.state = State::in_warp;
  mine.what = what;
  mine.place = place;
  mine.op = op;
  mine.mask = mask;
  mine.value = value;
  mine.source = source;
  if ((mask >> lane & 1U) == 0) give_up("whose mask leaves out the lane that calls it");
  unsigned& waiting = waiting_lanes_[warp];
  waiting |= 1U << lane;
  bool complete = (waiting & mask) == mask;
  const auto each_lane = [&](auto&& f) {
    for (unsigned i = 0; i < kWarp; ++i)
      if (mask >> i & 1U) f(threads_[first + i]);
  };
  if (complete) {
    each_lane([&](const Thread& t) { complete = complete && t.op == op && t.mask == mask && same(t.place, place); });
  }
  if (complete) {
    std::uint64_t ballot = 0;
    for (unsigned i = 0; i < kWarp; ++i)
      if ((mask >> i & 1U) && threads_[first + i].value != 0) ballot |= std::uint64_t{1} << i;
    each_lane([&](Thread& t) {
      switch (op) {
        case WarpOp::sync: break;
        case WarpOp::shuffle:
          t.result = (mask >> t.source & 1U) ? threads_[first + t.source].value : ~std::uint64_t{0};
          break;
        case WarpOp::ballot: t.result = ballot; break;
        case WarpOp::match:
          t.result = 0;
          for (unsigned i = 0; i < kWarp; ++i)
            if ((mask >> i & 1U) && threads_[first + i].value == t.value) t.result |= std::uint64_t{1} << i;
          break;
      }
    });
    // The lowest lane takes part in all that uses its edge, so no other lanes are ordered by it.
    if (op == WarpOp::sync) order(each_lane, &block_edges[1 + first + static_cast<unsigned>(__builtin_ctz(mask))]);
    waiting &= ~mask;
    for (unsigned i = 0; i < kWarp; ++i)
      if (mask >> i & 1U) make_ready(first + i);
  }
  go_on();
  return me().result;
}

// What keeps the first thread that waits from going on.
std::string Grid::trouble() const {
  const std::string block = " of block " + text(here.block) + " ";
  if (misuse_ != nullptr) {
    const Thread& thread = threads_[current_];
    return "thread " + text(thread.index) + block + "calls " + waits(thread) + " " + misuse_;
  }
  const auto other = [&](const Thread& thread) {
    return "thread " + text(thread.index) +
           (thread.state == State::ended ? " has ended" : " waits in " + waits(thread));
  };
  for (unsigned i = 0; i < threads_.size(); ++i) {
    const Thread& thread = threads_[i];
    const std::string beginning = "thread " + text(thread.index) + block + "waits in " + waits(thread) + ", but ";
    if (thread.state == State::in_barrier) {
      for (const Thread& t : threads_)
        if (t.state != State::in_barrier || !same(t.place, thread.place)) return beginning + other(t);
    } else if (thread.state == State::in_warp) {
      for (unsigned lane = 0; lane < kWarp; ++lane) {
        if ((thread.mask >> lane & 1U) == 0) continue;
        const std::size_t at = i / kWarp * kWarp + lane;
        if (at >= threads_.size()) return beginning + "the block has no lane " + std::to_string(lane) + " in that warp";
        const Thread& t = threads_[at];
        if (t.state != State::in_warp || t.op != thread.op || t.mask != thread.mask || !same(t.place, thread.place))
          return beginning + "lane " + std::to_string(lane) + ", " + other(t);
      }
    }
  }
  return "block " + text(here.block) + " stands still, for no reason that the scheduler knows";
}

// A random permutation of the blocks.
std::vector<std::uint32_t> order_of_blocks(const Index& size) {
  std::vector<std::uint32_t> order(std::size_t{size.x} * size.y * size.z);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::size_t other = draw(i + 1);
    order[i] = order[other];
    order[other] = static_cast<std::uint32_t>(i);
  }
  return order;
}

void begin_shared(const Shape& shape) {
  if (!sees_addresses()) return;
  __asan_unpoison_memory_region(dynamic_memory, kMostShared);
  __asan_poison_memory_region(dynamic_memory + shape.shared_bytes, kMostShared - shape.shared_bytes);
}

void renew_shared(const Shape& shape) {
  const auto bytes = static_cast<std::size_t>(__stop_simt_shared - __start_simt_shared);
  spoil(__start_simt_shared, bytes);
  spoil(dynamic_memory, shape.shared_bytes);
  forget_accesses(__start_simt_shared, bytes);
  forget_accesses(dynamic_memory, shape.shared_bytes);
  forget_accesses(block_edges, sizeof block_edges);
}

}  // namespace

std::string refusal(const Shape& shape, std::size_t most_shared_bytes) {
  const Index &g = shape.grid, &b = shape.block;
  const std::uint64_t threads = std::uint64_t{b.x} * b.y * b.z;
  if (threads == 0 || threads > kMostThreads || b.z > 64)
    return "blocks of " + text(b) + " threads: 1 to " + std::to_string(kMostThreads) + ", z at most 64";
  if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7FFFFFFFU || g.y > 65535 || g.z > 65535)
    return "a grid of " + text(g) + " blocks: x at most 2^31 - 1, y and z 65,535, none 0";
  const std::size_t most = std::min(most_shared_bytes, kMostShared);
  if (shape.shared_bytes > most)
    return std::to_string(shape.shared_bytes) + " bytes of dynamic shared memory: at most " + std::to_string(most) +
           " (cudaFuncSetAttribute allows up to " + std::to_string(kMostShared) + ")";
  return "";
}

std::string launch(const Shape& shape, void (*body)(void*), void* arguments) {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  Grid now(shape, body, arguments);
  grid = &now;
  const std::size_t threads = std::size_t{shape.block.x} * shape.block.y * shape.block.z;
  pool.provide(threads, fiber_body);
  begin_shared(shape);
  if (sees_races()) __tsan_release(&launch_edge);

  std::string trouble;
  for (const std::uint32_t block : order_of_blocks(shape.grid)) {
    renew_shared(shape);
    now.run_block({block % shape.grid.x, block / shape.grid.x % shape.grid.y, block / shape.grid.x / shape.grid.y});
    if (now.over()) continue;
    trouble = now.trouble();
    break;
  }
  if (sees_races()) {
    for (const auto& fiber : pool.all()) {
      if (fiber->launch != launches) continue;
      become(fiber->identity());
      __tsan_release(&end_edge);
    }
    become(now.host.identity());
    __tsan_acquire(&end_edge);
  }
  if (!trouble.empty()) pool.drop();  // threads are left in the middle
  grid = nullptr;
  return trouble;
}

void set_seed(std::uint64_t seed) { random_state = seed; }

void* dynamic_shared() { return dynamic_memory; }
int barrier(const char* what, bool vote, const Place& place) { return grid->barrier(what, vote, place); }
std::uint64_t with_warp(WarpOp op, const char* what, unsigned mask, std::uint64_t value, unsigned source,
                        const Place& place) {
  return grid->with_warp(op, what, mask, value, source, place);
}
unsigned linear_thread() { return grid->current(); }

}  // namespace topomoe::simt
