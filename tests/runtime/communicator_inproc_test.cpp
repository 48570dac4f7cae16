// Ranks that are threads: the conformance suite, and what only they can promise (both sides of a wrong
// size hear of it, fail() unblocks everyone). Also the counting adaptor, which needs nothing more.

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "runtime/communicator_counting.hpp"
#include "tests/runtime/communicator_conformance.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

using Clock = std::chrono::steady_clock;
Clock::time_point in_ms(int ms) { return Clock::now() + std::chrono::milliseconds(ms); }

class Inproc : public ::testing::TestWithParam<std::tuple<int, ConformanceCase>> {};

TEST_P(Inproc, Conforms) {
  run_inproc(std::get<0>(GetParam()), [&](Communicator& c) {
    const auto device = make_cpu_device();
    std::get<1>(GetParam()).body(c, *device);
  });
}

TEST_P(Inproc, ConformsThroughTheCounter) {
  run_inproc(std::get<0>(GetParam()), [&](Communicator& raw) {
    CountingCommunicator c(raw);
    const auto device = make_cpu_device();
    std::get<1>(GetParam()).body(c, *device);
    EXPECT_EQ(c.sent()[static_cast<std::size_t>(c.rank())], Traffic{});
  });
}

INSTANTIATE_TEST_SUITE_P(Communicator, Inproc,
                         ::testing::Combine(::testing::Values(1, 2, 3, 4, 8), ::testing::ValuesIn(conformance_cases())),
                         [](const auto& test) {
                           return std::to_string(std::get<0>(test.param)) + "_" + std::get<1>(test.param).name;
                         });

TEST(InprocFailure, WrongSize_BothSidesHearBothSizes) {
  std::atomic<int> heard = 0;
  run_inproc(2, [&](Communicator& c) {
    const int both[] = {0, 1};
    const ChannelId channel = c.open_channel(both);
    char data[8] = {};
    const int peer = 1 - c.rank();
    const Outgoing send{peer, data, 8};
    const Incoming receive{peer, data, 4};
    const EventPtr event = c.rank() == 0 ? c.exchange(channel, {&send, 1}, {}, {.step = "out"})
                                         : c.exchange(channel, {}, {&receive, 1}, {.step = "in"});
    try {
      event->wait(in_ms(20000));
    } catch (const TransportError& e) {
      EXPECT_EQ(e.rank, c.rank());
      EXPECT_EQ(e.step, c.rank() == 0 ? "out" : "in");
      EXPECT_NE(std::string(e.what()).find("rank 0 sends 8 bytes (out), rank 1 expects 4 (in)"), std::string::npos)
          << e.what();
      ++heard;
    }
  });
  EXPECT_EQ(heard, 2);
}

TEST(InprocFailure, PeerNeverSends_DeadlineNamesRankAndStep) {
  run_inproc(2, [&](Communicator& c) {
    const int both[] = {0, 1};
    const ChannelId channel = c.open_channel(both);
    static char data[4];  // outlives the receive, which nobody takes back
    if (c.rank() == 1) return;
    const Incoming receive{1, data, sizeof data};
    const EventPtr event = c.exchange(channel, {}, {&receive, 1}, {.step = "dispatch.3"});
    EXPECT_FALSE(event->poll());
    try {
      event->wait(in_ms(20));
      ADD_FAILURE() << "no error";
    } catch (const TransportError& e) {
      EXPECT_EQ(e.rank, 0);
      EXPECT_EQ(e.peer, 1);
      EXPECT_EQ(e.culprit, 1);
      EXPECT_EQ(e.bytes, 4);
      EXPECT_EQ(e.step, "dispatch.3");
    }
  });
}

// 0 waits for 1, 1 for 2, 2 for nobody: 0 has never heard of 2 and names it all the same.
TEST(InprocFailure, PeerOnlyWaitsItself_WhomItWaitsForIsTheCulprit) {
  auto world = make_inproc_world(3);
  const int all[] = {0, 1, 2};
  static char data[2][4];
  const auto wait = [&](int rank, std::chrono::milliseconds patience) {
    Communicator& c = *world[static_cast<std::size_t>(rank)];
    const ChannelId channel = c.open_channel(all);
    const Incoming receive{rank + 1, data[rank], 4};
    try {
      c.exchange(channel, {}, {&receive, 1}, {.step = "s"})->wait(Clock::now() + patience);
    } catch (const TransportError& e) {
      c.fail(e.failure());
      return std::pair(e.peer, e.culprit);
    }
    return std::pair(-1, -1);
  };
  std::pair<int, int> of_1;
  std::thread second([&] { of_1 = wait(1, std::chrono::seconds(60)); });
  // 1 may come late: then it is the one that does not wait.
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_EQ(wait(0, std::chrono::milliseconds(50)), std::pair(1, 2));
  second.join();
  EXPECT_EQ(of_1, std::pair(2, 2));
}

TEST(InprocFailure, Fail_UnblocksWaitsAndBarriers) {
  std::atomic<int> unblocked = 0;
  const auto begin = Clock::now();
  EXPECT_THROW(
      run_inproc(4,
                 [&](Communicator& c) {
                   const int all[] = {0, 1, 2, 3};
                   const ChannelId channel = c.open_channel(all);
                   static char data[4][4];
                   if (c.rank() == 0) {
                     std::this_thread::sleep_for(std::chrono::milliseconds(10));
                     c.fail({.rank = 0, .culprit = 0, .step = "none", .why = "the power is out"});
                     return;
                   }
                   const Incoming receive{0, data[c.rank()], 4};
                   try {
                     if (c.rank() == 1)
                       c.barrier();
                     else
                       c.exchange(channel, {}, {&receive, 1}, {.step = "s"})->wait(in_ms(60000));
                   } catch (const TransportError& e) {
                     EXPECT_NE(std::string(e.what()).find("rank 0 failed: the power is out"), std::string::npos)
                         << e.what();
                     EXPECT_EQ(e.culprit, 0);
                     EXPECT_EQ(e.peer, 0);
                     ++unblocked;
                     throw;
                   }
                 }),
      TransportError);
  EXPECT_EQ(unblocked, 3);
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(30));
}

// An exchange started after the failure must not wait for its deadline either.
TEST(InprocFailure, AfterFail_ExchangeFailsAtOnce) {
  auto world = make_inproc_world(2);
  const int both[] = {0, 1};
  const ChannelId channel = world[0]->open_channel(both);
  world[1]->open_channel(both);
  world[1]->fail({.rank = 1, .culprit = 1, .step = "none", .why = "gone"});
  char data[4] = {};
  const Incoming receive{1, data, 4};
  EXPECT_THROW(world[0]->exchange(channel, {}, {&receive, 1}, {.step = "s"})->wait(in_ms(60000)), TransportError);
  EXPECT_THROW(world[0]->barrier(), TransportError);
}

// Of several that are missing the culprit is the peer to name: 0 waits for 2 and 1, and 2 only waits for 1 itself.
TEST(InprocFailure, SeveralPeersMissing_TheCulpritIsNamedAsPeer) {
  auto world = make_inproc_world(3);
  const int all[] = {0, 1, 2};
  static char data[3][4];
  for (auto& c : world) c->open_channel(all);
  std::thread second([&] {
    const Incoming receive{1, data[2], 4};
    EXPECT_THROW(world[2]->exchange(0, {}, {&receive, 1}, {.step = "s"})->wait(in_ms(60000)), TransportError);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const Incoming receives[] = {{2, data[0], 4}, {1, data[1], 4}};
  try {
    world[0]->exchange(0, {}, receives, {.step = "s"})->wait(in_ms(20));
    ADD_FAILURE() << "no error";
  } catch (const TransportError& e) {
    EXPECT_EQ(e.peer, 1);
    EXPECT_EQ(e.culprit, 1);
    EXPECT_EQ(e.bytes, 8);
    world[0]->fail(e.failure());
  }
  second.join();
}

TEST(InprocFailure, RankStaysAway_BarrierHasADeadlineAndNamesIt) {
  auto world = make_inproc_world(3, std::chrono::milliseconds(300));
  std::thread first([&] { EXPECT_THROW(world[0]->barrier(), TransportError); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // else 0 were one that stays away, too
  try {
    world[1]->barrier();
    ADD_FAILURE() << "no error";
  } catch (const TransportError& e) {
    EXPECT_EQ(e.rank, 1);
    EXPECT_EQ(e.peer, 2);
    EXPECT_EQ(e.culprit, 2);
    EXPECT_EQ(e.step, "barrier");
  }
  first.join();
}

TEST(InprocWorld, NoRanks_IsRefused) { EXPECT_THROW(make_inproc_world(0), InvalidInput); }

// Channel {2, 0} of rank 2: peer 1 is world rank 0. Counted: 10 bytes of payload and 3 + 4 of metadata, in
// three messages; not counted: the transfer to oneself and the empty one.
TEST(Counting, ByWorldRank_PayloadAndMetadataApart) {
  run_inproc(3, [](Communicator& raw) {
    CountingCommunicator c(raw);
    const std::vector<int> pair = c.rank() == 1 ? std::vector<int>{1} : std::vector<int>{2, 0};
    raw.open_channel(pair);  // ids of the adaptor and of what it wraps need not agree
    const ChannelId channel = c.open_channel(pair);
    if (c.rank() == 1) return;
    char out[16] = {}, in[16] = {};
    const auto send = [&](std::vector<Outgoing> sends, std::vector<Incoming> receives, bool metadata) {
      c.exchange(channel, sends, receives, {.step = "s", .metadata = metadata})->wait(in_ms(20000));
    };
    if (c.rank() == 2) {
      send({{1, out, 10}, {0, out, 5}}, {{0, in, 5}}, false);
      send({{1, out, 3}}, {}, true);
      send({{1, out, 4}, {1, out, 0}}, {}, true);
      EXPECT_EQ(c.sent()[0], (Traffic{10, 7, 3}));
      EXPECT_EQ(c.sent()[1], Traffic{});
      EXPECT_EQ(c.sent()[2], Traffic{});
      c.reset();
      EXPECT_EQ(c.sent(), std::vector<Traffic>(3));
    } else {
      for (const std::size_t bytes : {10U, 3U, 4U}) send({}, {{0, in, bytes}}, bytes != 10);
      EXPECT_EQ(c.sent(), std::vector<Traffic>(3));
    }
  });
}

}  // namespace
}  // namespace topomoe::testing
