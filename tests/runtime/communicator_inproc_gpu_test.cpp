// Ranks that are threads with a GPU each, over the fake one: the conformance suite, that copies wait for both lanes,
// and what fail() and mistakes do. On real GPUs: communicator_nccl_test.cpp.

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "runtime/communicator_counting.hpp"
#include "tests/runtime/communicator_conformance.hpp"
#include "tests/runtime/fake_gpu.hpp"
#include "tests/support/soon.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

using Clock = std::chrono::steady_clock;
Clock::time_point in_ms(int ms) { return Clock::now() + std::chrono::milliseconds(ms); }

void run_gpus(int ranks, const std::function<void(Communicator&, Device&)>& body) {
  // Devices outlive all communicators: a rank's copies may be on another's lane.
  std::vector<std::unique_ptr<Device>> devices;
  for (int r = 0; r < ranks; ++r) devices.push_back(make_fake_gpu());
  run_inproc(ranks, [&](Communicator& c) {
    Device& device = *devices[static_cast<std::size_t>(c.rank())];
    use_device(c, device);
    body(c, device);
    device.synchronize(soon());
    c.barrier();
  });
}

class InprocGpu : public ::testing::TestWithParam<std::tuple<int, ConformanceCase>> {};

TEST_P(InprocGpu, Conforms) { run_gpus(std::get<0>(GetParam()), std::get<1>(GetParam()).body); }

INSTANTIATE_TEST_SUITE_P(Communicator, InprocGpu,
                         ::testing::Combine(::testing::Values(1, 2, 3, 4), ::testing::ValuesIn(conformance_cases())),
                         [](const auto& test) {
                           return std::to_string(std::get<0>(test.param)) + "_" + std::get<1>(test.param).name;
                         });

CUstream_st& stream(Device& d, Lane lane) { return *static_cast<CUstream_st*>(d.native_queue(lane)); }
void pause(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

// What is sent is written, and what is received into is read, by work that both lanes have yet to do when the exchange
// starts. Whoever comes second does the copy: both turns.
TEST(InprocGpuOrder, WorkOfBothLanesBeforeTheExchange_IsDoneBeforeTheCopy) {
  for (const int late : {0, 1}) {
    run_gpus(2, [&](Communicator& c, Device& d) {
      const int both[] = {0, 1};
      const ChannelId channel = c.open_channel(both);
      int data = c.rank() == 0 ? 1 : 2, read = 0;
      const Outgoing send{1, &data, sizeof data};
      const Incoming receive{0, &data, sizeof data};
      if (c.rank() == late) pause(10);
      stream(d, Lane::copy).add([&data, &read, rank = c.rank()] {
        pause(20);
        if (rank == 0)
          data = 3;
        else
          read = data;
      });
      const ExchangeInfo info{.step = "s", .lane = Lane::copy, .memory = MemorySpace::cuda};
      const EventPtr event =
          c.rank() == 0 ? c.exchange(channel, {&send, 1}, {}, info) : c.exchange(channel, {}, {&receive, 1}, info);
      event->wait(in_ms(20000));
      if (c.rank() == 1) {
        EXPECT_EQ(read, 2);
        EXPECT_EQ(data, 3);
      }
      c.barrier();
    });
  }
}

// As with NCCL the end is behind all that the lane was told before, though nothing is moved.
TEST(InprocGpuOrder, NothingToMove_IsOverWhenTheLaneIs) {
  run_gpus(1, [](Communicator& c, Device& d) {
    const int me[] = {0};
    const ChannelId channel = c.open_channel(me);
    std::atomic<bool> done = false;
    stream(d, Lane::copy).add([&] {
      pause(20);
      done = true;
    });
    c.exchange(channel, {}, {}, {.step = "s", .lane = Lane::copy, .memory = MemorySpace::cuda})->wait(in_ms(20000));
    EXPECT_TRUE(done);
  });
}

// The lane is held up: not over, though both ranks came, and the deadline names the peer.
TEST(InprocGpuFailure, LaneNeverGetsThere_DeadlineNamesPeerStepAndBytes) {
  std::atomic<bool> go = false;
  run_gpus(2, [&](Communicator& c, Device& d) {
    const int both[] = {0, 1};
    const ChannelId channel = c.open_channel(both);
    long out = 7, in = 0;
    const int peer = 1 - c.rank();
    const Outgoing send{peer, &out, sizeof out};
    const Incoming receive{peer, &in, sizeof in};
    if (c.rank() == 1)
      stream(d, Lane::inter_node).add([&] {
        while (!go) pause(1);
      });
    const EventPtr event = c.exchange(channel, {&send, 1}, {&receive, 1}, {.step = "s", .memory = MemorySpace::cuda});
    c.barrier();
    EXPECT_FALSE(event->poll());
    try {
      event->wait(in_ms(30));
      ADD_FAILURE() << "no error";
    } catch (const TransportError& e) {
      EXPECT_EQ(e.rank, c.rank());
      EXPECT_EQ(e.peer, peer);
      EXPECT_EQ(e.step, "s");
      EXPECT_EQ(e.bytes, 16);
    }
    c.barrier();
    go = true;
    event->wait(in_ms(20000));
    EXPECT_EQ(in, 7);
    c.barrier();
  });
}

// fail() returns when no lane uses the buffers any more.
TEST(InprocGpuFailure, Fail_WaitsForCopiesUnderWay) {
  run_inproc(2, [](Communicator& host) {
    static std::vector<std::unique_ptr<Communicator>> world;
    static std::vector<std::unique_ptr<Device>> devices;
    static std::atomic<bool> copied;
    if (host.rank() == 0) {
      copied = false;
      world = make_inproc_world(2);
      devices.clear();
      for (Communicator* c : {world[0].get(), world[1].get()}) {
        devices.push_back(make_fake_gpu());
        use_device(*c, *devices.back());
      }
    }
    host.barrier();
    const auto rank = static_cast<std::size_t>(host.rank());
    const int both[] = {0, 1};
    const ChannelId channel = world[rank]->open_channel(both);
    long data = 0;
    const Outgoing send{1, &data, sizeof data};
    const Incoming receive{0, &data, sizeof data};
    const ExchangeInfo info{.step = "s", .memory = MemorySpace::cuda};
    stream(*devices[rank], Lane::inter_node).add([] {
      pause(50);
      copied = true;
    });
    const EventPtr event = rank == 0 ? world[0]->exchange(channel, {&send, 1}, {}, info)
                                     : world[1]->exchange(channel, {}, {&receive, 1}, info);
    host.barrier();
    world[rank]->fail({.rank = 0, .culprit = 0, .step = "none", .why = "w"});
    EXPECT_TRUE(copied);
    host.barrier();
    if (rank == 0) world.clear(), devices.clear();
  });
}

TEST(InprocGpuFailure, DeviceIsNotKnown_IsRefused) {
  const auto world = make_inproc_world(1);
  const int me[] = {0};
  const ChannelId channel = world[0]->open_channel(me);
  EXPECT_THROW(world[0]->exchange(channel, {}, {}, {.step = "s", .memory = MemorySpace::cuda}), InvalidInput);
  CountingCommunicator counting(*world[0]);
  EXPECT_THROW(use_device(counting, *make_fake_gpu()), InvalidInput);
}

TEST(InprocGpuFailure, OneSideInHostMemory_BothHearIt) {
  std::atomic<int> heard = 0;
  run_gpus(2, [&](Communicator& c, Device&) {
    const int both[] = {0, 1};
    const ChannelId channel = c.open_channel(both);
    char data[4] = {};
    const Outgoing send{1, data, 4};
    const Incoming receive{0, data, 4};
    const EventPtr event = c.rank() == 0
                               ? c.exchange(channel, {&send, 1}, {}, {.step = "out", .memory = MemorySpace::cuda})
                               : c.exchange(channel, {}, {&receive, 1}, {.step = "in"});
    try {
      event->wait(in_ms(20000));
    } catch (const TransportError& e) {
      EXPECT_NE(e.why.find("rank 0 sends GPU memory (out), rank 1 expects it in host memory (in)"), std::string::npos)
          << e.why;
      ++heard;
    }
    c.barrier();
  });
  EXPECT_EQ(heard, 2);
}

}  // namespace
}  // namespace topomoe::testing
