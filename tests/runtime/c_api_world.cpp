#include "tests/runtime/c_api_world.hpp"

#include <gtest/gtest.h>

#include <thread>

namespace topomoe::testing {

void on_c_ranks(const Plan& plan, const std::function<void(const CRank&)>& body) {
  const std::string text = write_plan(plan);
  topomoe_plan* read = nullptr;
  ASSERT_EQ(topomoe_plan_read(text.data(), text.size(), "planned in the test", &read), TOPOMOE_OK)
      << topomoe_last_error();
  std::vector<topomoe_communicator*> ranks(static_cast<std::size_t>(plan.layout.world));
  ASSERT_EQ(topomoe_inproc_world(plan.layout.world, ranks.data()), TOPOMOE_OK) << topomoe_last_error();
  std::vector<std::thread> threads;
  for (int r = 0; r < plan.layout.world; ++r)
    threads.emplace_back([&, r] {
      topomoe_communicator* const mine = ranks[static_cast<std::size_t>(r)];
      body({read, mine, r});
      if (::testing::Test::HasFailure()) topomoe_communicator_abort(mine, "the test failed");
    });
  for (std::thread& t : threads) t.join();
  for (topomoe_communicator* c : ranks) topomoe_communicator_free(c);
  topomoe_plan_free(read);
}

}  // namespace topomoe::testing
