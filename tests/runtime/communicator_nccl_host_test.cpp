// The host side of the NCCL backend over a fake GPU (fake_gpu.hpp): the same conformance suite, and what
// it does when a peer fails. What NCCL itself does is for communicator_nccl_test.cpp, on GPUs.

#include <gtest/gtest.h>

#include <mutex>
#include <string>
#include <vector>

#include "runtime/communicator_counting.hpp"
#include "runtime/communicator_inproc.hpp"
#include "runtime/communicator_nccl.hpp"
#include "tests/runtime/communicator_conformance.hpp"
#include "tests/runtime/fake_gpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

using Clock = std::chrono::steady_clock;

void run_nccl(int ranks, const std::function<void(Communicator&, Device&)>& body) {
  run_inproc(ranks, [&](Communicator& host) {
    const auto device = make_fake_gpu();
    const auto nccl = make_nccl_communicator(*device, host.rank(), host.size(), broadcast_over(host));
    EXPECT_EQ(nccl->rank(), host.rank());
    EXPECT_EQ(nccl->size(), host.size());
    body(*nccl, *device);
    device->synchronize();
    host.barrier();
  });
}

class NcclHost : public ::testing::TestWithParam<std::tuple<int, ConformanceCase>> {};

TEST_P(NcclHost, Conforms) { run_nccl(std::get<0>(GetParam()), std::get<1>(GetParam()).body); }

INSTANTIATE_TEST_SUITE_P(Communicator, NcclHost,
                         ::testing::Combine(::testing::Values(1, 2, 3, 4), ::testing::ValuesIn(conformance_cases())),
                         [](const auto& test) {
                           return std::to_string(std::get<0>(test.param)) + "_" + std::get<1>(test.param).name;
                         });

// The second exchange, on another lane, must come after the first: both have the same size.
TEST(NcclOrder, OneChannelOnTwoLanes_IsMatchedInOrderOfStart) {
  run_nccl(2, [](Communicator& c, Device& d) {
    const int both[] = {0, 1};
    const ChannelId channel = c.open_channel(both);
    const int peer = 1 - c.rank();
    std::vector<int> out(64), in(64);
    std::vector<EventPtr> events;
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = static_cast<int>(i) + 100 * c.rank();
      const Outgoing send{peer, &out[i], sizeof(int)};
      const Incoming receive{peer, &in[i], sizeof(int)};
      const bool flip = (i * 7 + static_cast<std::size_t>(c.rank()) * 3) % 5 < 2;  // lanes need not agree
      events.push_back(
          c.exchange(channel, {&send, 1}, {&receive, 1},
                     {.step = "s", .lane = flip ? Lane::intra_node : Lane::inter_node, .memory = d.memory_space()}));
    }
    for (const EventPtr& e : events) e->wait(Clock::now() + std::chrono::seconds(60));
    for (std::size_t i = 0; i < in.size(); ++i) EXPECT_EQ(in[i], static_cast<int>(i) + 100 * peer);
  });
}

TEST(NcclFailure, PeerNeverSends_DeadlineNamesRankAndStep_ThenAbortEndsIt) {
  run_inproc(2, [](Communicator& host) {
    const auto device = make_fake_gpu();
    const auto c = make_nccl_communicator(*device, host.rank(), 2, broadcast_over(host));
    const int both[] = {0, 1};
    const ChannelId channel = c->open_channel(both);
    char data[4];
    const Incoming receive{1, data, sizeof data};
    if (host.rank() == 0) {
      try {
        c->exchange(channel, {}, {&receive, 1}, {.step = "counts", .metadata = true})
            ->wait(Clock::now() + std::chrono::milliseconds(50));
        ADD_FAILURE() << "no error";
      } catch (const TransportError& e) {
        EXPECT_EQ(e.rank, 0);
        EXPECT_EQ(e.peer, 1);
        EXPECT_EQ(e.step, "counts");
      }
      c->fail({.rank = 0, .culprit = 1, .step = "counts", .why = "rank 1 never came"});
      try {
        c->barrier();
        ADD_FAILURE() << "no error";
      } catch (const TransportError& e) {
        EXPECT_EQ(e.culprit, 1);
        EXPECT_NE(std::string(e.what()).find("rank 1 never came"), std::string::npos) << e.what();
      }
    }
    host.barrier();
    device->synchronize();  // the abort ended the transfer
  });
}

TEST(NcclFailure, TransportBreaks_NextCallsSayWhichRank) {
  run_nccl(1, [](Communicator& c, Device& d) {
    const int me[] = {0};
    const ChannelId channel = c.open_channel(me);
    char out[8] = {}, in[8] = {};
    const Outgoing send{0, out, 8};
    const Incoming receive{0, in, 4};  // what NCCL cannot match ends as its asynchronous error
    EXPECT_THROW(c.exchange(channel, {&send, 1}, {&receive, 1}, {.step = "a", .metadata = true})
                     ->wait(Clock::now() + std::chrono::seconds(20)),
                 TransportError);
    EXPECT_THROW(c.exchange(channel, {&send, 1}, {&receive, 1}, {.step = "b", .memory = d.memory_space()}),
                 TransportError);
    EXPECT_THROW(c.progress(), TransportError);
    EXPECT_THROW(c.barrier(), TransportError);
  });
}

TEST(NcclFailure, RanksDisagreeOnMembers_IsRefused) {
  run_nccl(1, [](Communicator& c, Device&) {
    EXPECT_THROW(c.open_channel(std::vector<int>{0, 1}), InvalidInput);
    EXPECT_THROW(c.open_channel(std::vector<int>{1}), InvalidInput);
  });
}

}  // namespace
}  // namespace topomoe::testing
