// The host side of the NCCL backend over a fake GPU (fake_gpu.hpp): the same conformance suite, and what
// it does when a peer fails. What NCCL itself does is for communicator_nccl_test.cpp, on GPUs.

#include <gtest/gtest.h>
#include <nccl.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "runtime/communicator_counting.hpp"
#include "tests/runtime/communicator_conformance.hpp"
#include "tests/runtime/fake_gpu.hpp"
#include "tests/support/layer_cases.hpp"
#include "tests/support/soon.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/communicator_nccl.hpp"
#include "topomoe/device_cpu.hpp"
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
    device->synchronize(soon());
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
    device->synchronize(soon());  // the abort ended the transfer
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

// A layer asks before it opens a channel: exchanges are ordered on the lanes of one device alone.
TEST(NcclFactory, AnyOtherDevice_IsRefused) {
  run_nccl(1, [](Communicator& c, Device& d) {
    EXPECT_EQ(c.refuses(d), "");
    EXPECT_EQ(c.refuses(*make_fake_gpu()), "NCCL exchanges on the lanes of the device that it was made with, fake gpu");
    EXPECT_NE(c.refuses(*make_cpu_device()), "");
  });
}

// Rank 1's GPU hangs before its part of a transfer, and no host waits for the pass. Rank 0 notices in the next one,
// where it waits for what its router chose: by then, and with the name of the transfer.
TEST(NcclFailure, LaneWaitsForAPeerThatHangs_NextForwardNamesItInTime) {
  const LayerCase c{.layout = layout(2, 1, 1, 2), .gpus_per_node = 2, .shape = {8, 4, 4, 2, true}, .tokens = {9, 5}};
  const Schedule schedule = build_schedule("flat", request(c.layout, TokenSplit::replicated, 1));
  const auto transfer = std::find_if(schedule.forward.begin(), schedule.forward.end(),
                                     [](const Step& s) { return s.kind == StepKind::exchange; });
  ASSERT_NE(transfer, schedule.forward.end());
  const ReferenceWeights weights = make_weights(c);
  run_inproc(2, [&](Communicator& host) {
    const auto device = make_fake_gpu();
    const auto nccl = make_nccl_communicator(*device, host.rank(), host.size(), broadcast_over(host));
    RankTensors t(c, weights, host.rank());
    MoeLayer layer = make_layer(c, schedule, *nccl, *device, std::chrono::milliseconds(500));
    const auto forward = [&] { return layer.forward(t.x.data(), t.rows, t.y.data(), t.weights()); };
    for (int warm = 0; warm < 3; ++warm) forward();
    device->synchronize(soon());
    host.barrier();
    {
      std::optional<Stall> stall;
      if (host.rank() == 1) stall.emplace(*device, Lane::copy);  // where rows are packed
      const auto hangs = forward();
      if (host.rank() == 0) {
        const auto begin = Clock::now();
        try {
          forward();
          ADD_FAILURE() << "no error";
        } catch (const TransportError& e) {
          EXPECT_EQ(e.rank, 0);
          EXPECT_EQ(e.peer, 1);
          EXPECT_EQ(e.step, transfer->name) << e.what();
        }
        EXPECT_LT(Clock::now() - begin, std::chrono::seconds(20));
      }
      host.barrier();
    }
    host.barrier();
  });
}

std::set<const void*> all_of(const std::vector<const void*>& list) { return {list.begin(), list.end()}; }

// World and two channels, on two ranks: six comms, each finalized, then destroyed, once.
TEST(NcclEnd, EveryComm_IsFinalizedAndDestroyedOnce) {
  (void)fake_nccl();
  run_nccl(2, [](Communicator& c, Device&) {
    for (const std::vector<int>& members : {std::vector<int>{0, 1}, std::vector<int>{c.rank()}})
      c.open_channel(members);
  });
  const FakeNccl all = fake_nccl();
  EXPECT_EQ(all.made.size(), 6);
  EXPECT_EQ(all.finalized.size(), 6);
  EXPECT_EQ(all_of(all.finalized), all_of(all.made));
  EXPECT_EQ(all.destroyed.size(), 6);
  EXPECT_TRUE(all.aborted.empty());
}

TEST(NcclEnd, AfterAFailure_EveryCommIsAbortedOnce) {
  (void)fake_nccl();
  run_nccl(2, [](Communicator& c, Device&) {
    const int both[] = {0, 1};
    c.open_channel(both);
    c.barrier();
    c.fail({.rank = c.rank(), .step = "s", .why = "w"});
    c.fail({.rank = c.rank(), .step = "s", .why = "again"});
  });
  const FakeNccl all = fake_nccl();
  EXPECT_EQ(all.aborted.size(), 4);
  EXPECT_EQ(all_of(all.aborted), all_of(all.made));
  EXPECT_TRUE(all.destroyed.empty());
}

constexpr NcclOptions kHasty{.barrier_deadline = std::chrono::milliseconds(50)};

TEST(NcclDeadline, RankNeverJoins_IsAnErrorAndTheCommAborted) {
  (void)fake_nccl();
  const auto device = make_fake_gpu();
  try {
    make_nccl_communicator(
        *device, 0, 2, [](void*, std::size_t) {}, kHasty);
    ADD_FAILURE() << "no error";
  } catch (const TransportError& e) {
    EXPECT_EQ(e.rank, 0);
    EXPECT_EQ(e.peer, 1);
    EXPECT_EQ(e.step, "join 2 ranks");
  }
  const FakeNccl all = fake_nccl();
  EXPECT_EQ(all.made.size(), 1);
  EXPECT_EQ(all.aborted, all.made);
}

TEST(NcclDeadline, RankOpensNoChannel_IsAnErrorAndTheWorldAborted) {
  (void)fake_nccl();
  run_inproc(2, [](Communicator& host) {
    const auto device = make_fake_gpu();
    {
      const auto c = make_nccl_communicator(*device, host.rank(), 2, broadcast_over(host), kHasty);
      const int both[] = {0, 1};
      if (host.rank() == 0) {
        try {
          c->open_channel(both);
          ADD_FAILURE() << "no error";
        } catch (const TransportError& e) {
          EXPECT_EQ(e.peer, 1);
          EXPECT_EQ(e.step, "open channel");
          c->fail(e.failure());
        }
      }
      host.barrier();
      if (host.rank() == 1) c->fail({.rank = 1, .step = "s", .why = "rank 0 failed"});
    }
    host.barrier();
  });
  const FakeNccl all = fake_nccl();
  EXPECT_EQ(all.made.size(), 2);
  EXPECT_EQ(all_of(all.aborted), all_of(all.made));
}

ncclComm_t join_as_caller(Communicator& host, bool blocking) {
  ncclUniqueId id{};
  if (host.rank() == 0) {
    EXPECT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  }
  broadcast_over(host)(&id, sizeof id);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = blocking ? 1 : 0;
  ncclComm_t comm = nullptr;
  ncclCommInitRankConfig(&comm, host.size(), id, host.rank(), &config);
  ncclResult_t state = ncclInProgress;
  while (state == ncclInProgress) ncclCommGetAsyncError(comm, &state);
  return comm;
}

class NcclCallersComm : public ::testing::TestWithParam<bool> {};

// One that works on it, then one that fails: the caller's comm is none of ours, and can still be split afterwards.
TEST_P(NcclCallersComm, IsSplitFromAndNeverTouched) {
  (void)fake_nccl();
  std::array<const void*, 2> theirs{};
  run_inproc(2, [&](Communicator& host) {
    const ncclComm_t callers = join_as_caller(host, GetParam());
    theirs[static_cast<std::size_t>(host.rank())] = callers;
    for (const bool fails : {false, true, false}) {
      host.barrier();
      const auto device = make_fake_gpu();
      const auto c = make_nccl_communicator(*device, callers);
      EXPECT_EQ(c->rank(), host.rank());
      conformance_cases()[1].body(*c, *device);
      c->barrier();
      device->synchronize(soon());
      host.barrier();
      if (fails) c->fail({.rank = 0, .step = "s", .why = "w"});
    }
  });
  const FakeNccl all = fake_nccl();
  EXPECT_EQ(all.made.size(), 2 + 3 * 4);  // the caller's; a world and a channel each time
  EXPECT_EQ(all.destroyed.size(), 2 * 4);
  EXPECT_EQ(all.aborted.size(), 4);
  for (const auto* list : {&all.finalized, &all.destroyed, &all.aborted})
    for (const void* comm : theirs) EXPECT_EQ(std::count(list->begin(), list->end(), comm), 0);
}

INSTANTIATE_TEST_SUITE_P(Communicator, NcclCallersComm, ::testing::Values(true, false),
                         [](const auto& test) { return test.param ? "Blocking" : "NonBlocking"; });

// Nor when the other rank never splits: then the caller's comm stays busy, and is the caller's to abort.
TEST(NcclDeadline, RankNeverSplitsTheCallersComm_ItIsNotAborted) {
  run_inproc(2, [](Communicator& host) {
    const ncclComm_t callers = join_as_caller(host, false);
    host.barrier();
    if (host.rank() == 0) {
      (void)fake_nccl();
      const auto device = make_fake_gpu();
      try {
        make_nccl_communicator(*device, callers, kHasty);
        ADD_FAILURE() << "no error";
      } catch (const TransportError& e) {
        EXPECT_EQ(e.rank, 0);
        EXPECT_EQ(e.peer, 1);
        EXPECT_EQ(e.step, "split the caller's communicator");
      }
      EXPECT_TRUE(fake_nccl().aborted.empty());
    }
    host.barrier();
    ncclCommAbort(callers);
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
