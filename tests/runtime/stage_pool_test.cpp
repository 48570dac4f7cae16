#include "runtime/stage_pool.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace topomoe::testing {
namespace {

struct Flag final : Event {
  bool over = false;
  bool poll() override { return over; }
  void wait(std::chrono::steady_clock::time_point) override {}
};

struct Pool {
  std::vector<std::size_t> allocated;
  StagePool pool{[this](std::size_t bytes) {
    allocated.push_back(bytes);
    return DeviceMemory(new std::byte[bytes], [](std::byte* p) { delete[] p; });
  }};
  std::byte* copy(std::size_t bytes, const std::shared_ptr<Flag>& used) {
    StagePool::Stage& s = pool.take(bytes);
    EXPECT_GE(s.bytes, bytes);
    s.used = used;
    return s.memory.get();
  }
};

TEST(StagePool, CopyUnderWay_KeepsItsMemory_OneThatIsOverGivesItToTheNext) {
  Pool p;
  const auto a = std::make_shared<Flag>(), b = std::make_shared<Flag>();
  std::byte* const first = p.copy(100, a);
  std::byte* const second = p.copy(100, b);
  EXPECT_NE(first, second);
  b->over = true;
  EXPECT_EQ(p.copy(100, std::make_shared<Flag>()), second);  // the first one still hangs
  a->over = true;
  EXPECT_EQ(p.copy(1, std::make_shared<Flag>()), first);
  EXPECT_EQ(p.pool.size(), 2U);
}

TEST(StagePool, LargerThanAllThatIsFree_GetsMemoryOfItsOwn) {
  Pool p;
  const auto over = std::make_shared<Flag>();
  over->over = true;
  p.copy(1, over);
  p.copy(100'000, over);  // 2^17 = 131072 hold it, the 65536 of the first do not
  p.copy(131'072, over);
  p.copy(131'073, over);
  EXPECT_EQ(p.allocated, (std::vector<std::size_t>{65536, 131072, 262144}));
  for (int i = 0; i < 100; ++i) p.copy(static_cast<std::size_t>(i) * 2000, over);
  EXPECT_EQ(p.allocated.size(), 3U);
}

}  // namespace
}  // namespace topomoe::testing
