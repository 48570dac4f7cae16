// When a rank fails in the middle of a layer, no other rank waits for it, none touches its memory any more
// (AddressSanitizer and ThreadSanitizer look), and each says what happened.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <latch>
#include <mutex>
#include <thread>

#include "tests/support/drawn_counts.hpp"
#include "tests/support/layer_cases.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

using Clock = std::chrono::steady_clock;

struct Crash : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Passes everything on; tests override what they disturb.
class Adaptor : public Communicator {
 public:
  explicit Adaptor(Communicator& inner) : inner_(inner) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  ChannelId open_channel(std::span<const int> members) override { return inner_.open_channel(members); }
  EventPtr exchange(ChannelId channel, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const ExchangeInfo& info) override {
    return inner_.exchange(channel, sends, receives, info);
  }
  void progress() override { inner_.progress(); }
  void barrier() override { inner_.barrier(); }
  void fail(const Failure& failure) noexcept override { inner_.fail(failure); }

 protected:
  Communicator& inner_;
};

enum class Moment { at_start, at_wait };

// Crashes in its n-th exchange.
class CrashingCommunicator final : public Adaptor {
 public:
  CrashingCommunicator(Communicator& inner, int nth, Moment moment) : Adaptor(inner), left_(nth), moment_(moment) {}
  EventPtr exchange(ChannelId channel, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const ExchangeInfo& info) override {
    const bool now = left_-- == 0;
    if (now && moment_ == Moment::at_start) throw Crash("crash in " + std::string(info.step));
    EventPtr event = inner_.exchange(channel, sends, receives, info);
    return now ? std::make_shared<CrashingEvent>() : event;
  }
  bool crashed() const { return left_ < 0; }

 private:
  struct CrashingEvent final : Event {
    bool poll() override { return false; }
    void wait(Clock::time_point) override { throw Crash("crash in wait"); }
  };
  int left_;
  Moment moment_;
};

enum class Outcome { fine, crash, transport_error };

// Forward, backward and a barrier on all ranks, of which one crashes; nothing here aborts but the layer.
struct Run {
  std::vector<Outcome> outcomes;
  std::vector<std::string> messages;
  bool crashed = false;
};

Run run_with_crash(const LayerCase& c, const Schedule& schedule, int crashing, int nth, Moment moment) {
  const ReferenceWeights weights = make_weights(c);
  const auto world = static_cast<std::size_t>(c.layout.world);
  Run run{std::vector(world, Outcome::fine), std::vector<std::string>(world)};
  auto communicators = make_inproc_world(c.layout.world);
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < world; ++r)
    threads.emplace_back([&, r, rank = static_cast<int>(r)] {
      CrashingCommunicator communicator(*communicators[r], rank == crashing ? nth : 1 << 30, moment);
      try {
        // All memory of the rank dies on its way out, as a caller's would.
        const auto device = make_cpu_device();
        RankTensors t(c, weights, rank);
        MoeLayer layer = make_layer(c, schedule, communicator, *device, std::chrono::seconds(60));
        auto handle = layer.forward(t.x.data(), t.rows, t.y.data(), t.weights());
        layer.backward(handle, t.dy.data(), t.dx.data(), t.weights(), t.gradients());
        communicator.barrier();
      } catch (const Crash& e) {
        run.outcomes[r] = Outcome::crash, run.messages[r] = e.what();
      } catch (const TransportError& e) {
        run.outcomes[r] = Outcome::transport_error, run.messages[r] = e.what();
      }
      if (rank == crashing) run.crashed = communicator.crashed();
    });
  for (auto& t : threads) t.join();
  return run;
}

void crash_everywhere(const LayerCase& c, const Schedule& schedule, int crashing) {
  SCOPED_TRACE(describe(c) + ", " + schedule.name);
  for (const Moment moment : {Moment::at_start, Moment::at_wait})
    for (int nth = 0;; ++nth) {
      SCOPED_TRACE("exchange " + std::to_string(nth));
      const Run run = run_with_crash(c, schedule, crashing, nth, moment);
      if (!run.crashed) {  // it has no more exchanges
        EXPECT_GT(nth, 5);
        break;
      }
      for (std::size_t r = 0; r < run.outcomes.size(); ++r) {
        EXPECT_EQ(run.outcomes[r], static_cast<int>(r) == crashing ? Outcome::crash : Outcome::transport_error)
            << "rank " << r;
        if (static_cast<int>(r) == crashing) continue;
        EXPECT_NE(run.messages[r].find("rank " + std::to_string(r)), std::string::npos) << run.messages[r];
        EXPECT_NE(run.messages[r].find("crash in"), std::string::npos) << run.messages[r];
      }
    }
}

TEST(LayerFailure, CrashInAnyExchange_AllOthersGetTransportError) {
  const LayerCase sharded{.layout = layout(4, 2, 2, 2), .gpus_per_node = 2, .tokens = {7, 5}};
  for (const auto split : {TokenSplit::replicated, TokenSplit::sliced})
    crash_everywhere(sharded, build_schedule("flat", request(sharded.layout, split, 2)), 1);
  const LayerCase dedup{.layout = layout(4, 2, 1, 4, true), .gpus_per_node = 2, .tokens = {7, 5, 0, 3}};
  for (const auto split : {TokenSplit::replicated, TokenSplit::sliced})
    crash_everywhere(dedup, build_schedule("node_dedup", request(dedup.layout, split, 1)), 2);
}

TEST(LayerFailure, RankNeverComes_OthersGiveUpAtTheDeadlineAndSoDoesItLater) {
  const LayerCase c{.layout = layout(4, 1, 1, 4), .gpus_per_node = 2, .tokens = {3}};
  const Schedule schedule = build_schedule("flat", request(c.layout, TokenSplit::sliced, 2));
  const ReferenceWeights weights = make_weights(c);
  auto communicators = make_inproc_world(4);
  std::vector<std::string> messages(4);
  const auto call = [&](int rank) {
    const auto r = static_cast<std::size_t>(rank);
    const auto device = make_cpu_device();
    RankTensors t(c, weights, rank);
    MoeLayer layer = make_layer(c, schedule, *communicators[r], *device, std::chrono::milliseconds(100));
    try {
      layer.forward(t.x.data(), t.rows, t.y.data(), t.weights());
    } catch (const TransportError& e) {
      messages[r] = e.what();
      EXPECT_EQ(e.rank, rank);
      EXPECT_EQ(e.step, "counts");
      EXPECT_EQ(e.culprit, 0);
    }
  };
  std::vector<std::thread> threads;
  for (int rank = 1; rank < 4; ++rank) threads.emplace_back(call, rank);
  for (auto& t : threads) t.join();
  call(0);
  for (const std::string& m : messages) EXPECT_NE(m.find("deadline"), std::string::npos) << m;
}

// A peer that arrives between a rank's giving up and its abort still copies from what the rank posted: that
// must be alive, and hold the counts.
TEST(LayerFailure, PeerArrivesWhileARankGivesUp_ReadsLiveCounts) {
  const LayerCase c{.layout = layout(2, 1, 1, 2), .gpus_per_node = 2, .shape = {8, 4, 16, 2, true}, .tokens = {6}};
  const Schedule schedule = build_schedule("flat", request(c.layout, TokenSplit::sliced, 1));
  const ReferenceWeights weights = make_weights(c);
  const DrawnCounts expected(c, expect_layer(c).ids, true, 1);
  std::latch gave_up(1), arrived(1);

  struct GivingUp final : Adaptor {
    GivingUp(Communicator& inner, std::latch& mine, std::latch& theirs)
        : Adaptor(inner), gave_up(mine), arrived(theirs) {}
    void fail(const Failure& failure) noexcept override {
      gave_up.count_down();
      arrived.wait();
      inner_.fail(failure);
    }
    std::latch &gave_up, &arrived;
  };
  struct Arriving final : Adaptor {
    Arriving(Communicator& inner, std::latch& mine) : Adaptor(inner), arrived(mine) {}
    EventPtr exchange(ChannelId channel, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                      const ExchangeInfo& info) override {
      EventPtr event = inner_.exchange(channel, sends, receives, info);
      if (counts.empty()) {
        counts.resize(receives[0].bytes / sizeof(std::int32_t));
        std::memcpy(counts.data(), receives[0].data, receives[0].bytes);
        arrived.count_down();
      }
      return event;
    }
    std::latch& arrived;
    std::vector<std::int32_t> counts;
  };

  auto world = make_inproc_world(2);
  GivingUp giving_up(*world[0], gave_up, arrived);
  Arriving arriving(*world[1], arrived);
  const auto call = [&](Communicator& communicator, std::chrono::milliseconds deadline) {
    const auto device = make_cpu_device();
    RankTensors t(c, weights, communicator.rank());
    MoeLayer layer = make_layer(c, schedule, communicator, *device, deadline);
    EXPECT_THROW(layer.forward(t.x.data(), t.rows, t.y.data(), t.weights()), TransportError);
  };
  std::thread first([&] { call(giving_up, std::chrono::milliseconds(20)); });
  gave_up.wait();
  call(arriving, std::chrono::seconds(30));
  first.join();
  ASSERT_EQ(arriving.counts.size(), 8U);
  for (int e = 8; e < 16; ++e)
    EXPECT_EQ(arriving.counts[static_cast<std::size_t>(e - 8)], expected.count(Symbol::pairs, 0, 0, e))
        << "expert " << e;
}

}  // namespace
}  // namespace topomoe::testing
