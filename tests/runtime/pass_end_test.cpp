// Passes on a device whose lanes run beside the host: a caller who only hands events over gets the same bits as one who
// waits for everything, and no call waits for its own end.

#include "runtime/pass_end.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <mutex>
#include <optional>

#include "tests/support/deferred_device.hpp"
#include "tests/support/soon.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/dispatch.hpp"

namespace topomoe::testing {
namespace {

struct Case {
  LayerCase layer;
  Schedule schedule;
};

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const std::string_view transport : transport_names())
    for (const auto& l : {layout(4, 1, 1, 4), layout(4, 2, 2, 2), layout(4, 2, 1, 4), layout(4, 2, 1, 4, true)})
      for (const auto& [chunks, pieces] : {std::pair{1, 1}, {4, 2}}) {
        const ScheduleRequest r = request(l, TokenSplit::sliced, chunks, pieces);
        if (!applies(transport, l, 2) || !find_transport(transport).refuses(r).empty()) continue;
        const LayerCase c{.layout = l, .gpus_per_node = 2, .shape = {12, 8, 8, 2, true}, .tokens = {19, 14, 0, 30}};
        out.push_back({c, build_schedule(transport, r)});
      }
  return out;
}

// Ids become those of copies, on the host: replicas, and a capacity that drops some.
std::vector<Case> settled_cases() {
  std::vector<Case> out = cases();
  std::erase_if(out, [](const Case& c) { return c.layer.layout.ep == 1; });
  for (Case& c : out) {
    const int ep = c.layer.layout.ep;
    for (int e = 0; e < c.layer.shape.experts; ++e) {
      c.layer.owners.push_back({e % ep});
      if (e % 3 == 0) c.layer.owners.back().push_back((e + 1) % ep);
    }
    c.layer.shape.capacity_factor = 0.75;
  }
  return out;
}

LayerCase smaller(LayerCase c) {
  c.tokens = {3, 9, 1, 0};
  c.seed = 2;
  return c;
}

using Bytes = std::vector<std::byte>;

// One micro-batch, as a caller's stream has it: inputs appear on the stream, results are copied away there, and then
// all of it is spoilt, on the stream as well.
struct Batch {
  Batch(const LayerCase& c, const ReferenceWeights& w, int rank)
      : given(c, w, rank), x(given.x.size()), dy(given.dy.size()), y(given.y.size()), dx(given.dx.size()) {}

  EventPtr forward(MoeLayer& layer, DeferredDevice& device, const LayerWeights& weights) {
    device.on_stream([this] { x = given.x; });
    handle.emplace(layer.forward(x.data(), given.rows, y.data(), weights, device.record_stream()));
    device.stream_waits(handle->done());
    device.on_stream([this] { outputs.push_back(y), spoil(y); });
    return handle->done();
  }
  EventPtr backward(MoeLayer& layer, DeferredDevice& device, const LayerWeights& weights, LayerGradients gradients) {
    device.on_stream([this] { dy = given.dy; });
    layer.backward(*handle, dy.data(), dx.data(), weights, gradients, device.record_stream());
    EventPtr done = handle->done();
    device.stream_waits(done);
    device.on_stream([this] { token_grads.push_back(dx), spoil(dx), spoil(dy), spoil(x); });
    handle.reset();
    return done;
  }
  static void spoil(Bytes& b) { std::fill(b.begin(), b.end(), std::byte{0xFF}); }

  RankTensors given;
  Bytes x, dy, y, dx;  // never moved: lanes know where they are
  std::vector<Bytes> outputs, token_grads;
  std::optional<MoeLayer::Handle> handle;
};

struct Results {
  std::vector<Bytes> y, dx;
  std::vector<float> drouter, dgate;
};

// Two micro-batches outstanding at once, of sizes that grow; the host waits for nothing until the end.
Results run(const Case& c, Communicator& inner, std::uint64_t seed, bool events) {
  const int rank = inner.rank();
  const LayerCase small = smaller(c.layer);
  const ReferenceWeights weights = make_weights(c.layer);
  DeferredDevice device(seed);
  DeferredCommunicator communicator(inner, device);
  Batch a(small, weights, rank), b(c.layer, weights, rank);
  RankTensors& t = b.given;
  MoeLayer layer = make_layer(c.layer, c.schedule, communicator, device);
  const auto settle = [&] {
    if (!events) device.synchronize(soon());
  };
  for (int step = 0; step < 4; ++step) {
    for (Batch* batch : {&a, &b}) batch->forward(layer, device, t.weights()), settle();
    for (Batch* batch : {&a, &b}) batch->backward(layer, device, t.weights(), t.gradients()), settle();
  }
  if (events) {
    EXPECT_EQ(device.counts.synchronizes, 0);
  }
  device.synchronize(soon());
  inner.barrier();
  Results r{a.outputs, a.token_grads, t.drouter, t.dgate};
  r.y.insert(r.y.end(), b.outputs.begin(), b.outputs.end());
  r.dx.insert(r.dx.end(), b.token_grads.begin(), b.token_grads.end());
  return r;
}

void expect_the_same_bits(const std::vector<Case>& all) {
  for (const Case& c : all) {
    SCOPED_TRACE(c.schedule.name + ", " + describe(c.layer));
    std::mutex mutex;
    run_inproc(c.layer.layout.world, [&](Communicator& inner) {
      const Results expected = run(c, inner, 1, false);
      for (std::uint64_t seed = 2; seed < 4; ++seed) {
        const Results actual = run(c, inner, seed, true);
        const std::lock_guard lock(mutex);
        ASSERT_EQ(expected.y.size(), 8U);
        EXPECT_EQ(actual.y, expected.y) << "seed " << seed;
        EXPECT_EQ(actual.dx, expected.dx) << "seed " << seed;
        EXPECT_EQ(actual.drouter, expected.drouter) << "seed " << seed;
        EXPECT_EQ(actual.dgate, expected.dgate) << "seed " << seed;
      }
    });
  }
}

TEST(PassEnd, CallerOnlyHandsEventsOver_GetsTheSameBits) { expect_the_same_bits(cases()); }
TEST(PassEnd, CallerOnlyHandsEventsOver_ReplicasAndCapacity_GetsTheSameBits) { expect_the_same_bits(settled_cases()); }

// Of what its own router chose, once; and of ids that other ranks' rows bring, where a map goes by those.
long host_reads(const Schedule& schedule, const std::vector<Step>& steps) {
  const auto route = std::find_if(schedule.forward.begin(), schedule.forward.end(),
                                  [](const Step& s) { return s.kind == StepKind::route; });
  const int own = root_of(schedule, route->out[0].buffer);
  return std::count_if(steps.begin(), steps.end(), [&](const Step& s) {
    if (s.kind != StepKind::index) return s.kind == StepKind::route;
    const int ids = schedule.maps[static_cast<std::size_t>(s.map)].ids.buffer;
    return ids >= 0 && root_of(schedule, ids) != own;
  });
}

// Where rows travel without ids the host waits once in a forward, for what its router chose, and never in a backward.
TEST(PassEnd, RowsWithoutIds_AreReadForOnceInAForwardAndNeverInABackward) {
  for (const auto& all : {cases(), settled_cases()})
    for (const Case& c : all) {
      if (c.schedule.name.find("flat") == std::string::npos && c.schedule.name.find("two_level") == std::string::npos)
        continue;
      EXPECT_EQ(host_reads(c.schedule, c.schedule.forward), 1) << c.schedule.name;
      EXPECT_EQ(host_reads(c.schedule, c.schedule.backward), 0) << c.schedule.name;
    }
}

// The host of a steady pass waits where it reads ids, and nowhere else.
void expect_steady_steps(const std::vector<Case>& all) {
  for (const Case& c : all) {
    SCOPED_TRACE(c.schedule.name + ", " + describe(c.layer));
    const ReferenceWeights weights = make_weights(c.layer);
    std::mutex mutex;
    run_inproc(c.layer.layout.world, [&](Communicator& inner) {
      DeferredDevice device(7);
      DeferredCommunicator communicator(inner, device);
      Batch batch(c.layer, weights, inner.rank());
      RankTensors& t = batch.given;
      MoeLayer layer = make_layer(c.layer, c.schedule, communicator, device);
      for (int warm = 0; warm < 3; ++warm) {
        batch.forward(layer, device, t.weights());
        batch.backward(layer, device, t.weights(), t.gradients());
      }
      device.synchronize(soon());
      const auto before = device.counts;
      const EventPtr forward = batch.forward(layer, device, t.weights());
      const auto between = device.counts;
      const auto outputs = batch.outputs.size();
      const EventPtr backward = batch.backward(layer, device, t.weights(), t.gradients());
      const auto after = device.counts;
      const auto gradients = batch.token_grads.size();
      {
        const std::lock_guard lock(mutex);
        EXPECT_EQ(after.synchronizes, before.synchronizes);
        EXPECT_EQ(after.allocations, before.allocations);
        EXPECT_EQ(after.waits, before.waits);
        EXPECT_EQ(between.host_reads - before.host_reads, host_reads(c.schedule, c.schedule.forward));
        EXPECT_EQ(after.host_reads - between.host_reads, host_reads(c.schedule, c.schedule.backward));
        EXPECT_EQ(outputs, 3U);  // so far those of the warm-up
        EXPECT_EQ(gradients, 3U);
        EXPECT_NE(forward, nullptr);
        EXPECT_NE(backward, nullptr);
        if (backward) {
          EXPECT_NE(backward->native_event(), nullptr);
        }
      }
      if (backward) backward->wait(std::chrono::steady_clock::now() + std::chrono::seconds(60));
      const std::lock_guard lock(mutex);
      EXPECT_EQ(layer.last_trace().steps.size(), c.schedule.backward.size());
      for (const StepTrace& step : layer.last_trace().steps) EXPECT_GT(step.end_s, 0) << step.name;
      EXPECT_TRUE(forward && forward->poll());  // what comes after it is over
    });
  }
}

TEST(PassEnd, SteadyStep_HostWaitsForNoLaneAndTheCallerForOneEvent) { expect_steady_steps(cases()); }
TEST(PassEnd, SteadyStep_ReplicasAndCapacity_TheSame) { expect_steady_steps(settled_cases()); }

// A forward that its caller does not wait for hangs in a transfer; the host is the first to notice, in the next one.
TEST(PassEnd, LaneNeverEnds_NextForwardSaysInTimeWhichRankAndStep) {
  const Case c = cases().front();
  const ReferenceWeights weights = make_weights(c.layer);
  const auto first_transfer = std::find_if(c.schedule.forward.begin(), c.schedule.forward.end(), [](const Step& s) {
    return s.kind == StepKind::exchange && s.lane == Lane::inter_node;
  });
  ASSERT_NE(first_transfer, c.schedule.forward.end());
  std::mutex mutex;
  run_inproc(c.layer.layout.world, [&](Communicator& inner) {
    DeferredDevice device(5);
    DeferredCommunicator communicator(inner, device);
    Batch batch(c.layer, weights, inner.rank());
    MoeLayer layer = make_layer(c.layer, c.schedule, communicator, device, std::chrono::milliseconds(300));
    for (int warm = 0; warm < 3; ++warm) batch.forward(layer, device, batch.given.weights());
    device.synchronize(soon());
    device.stall(Lane::inter_node);
    const EventPtr hangs = batch.forward(layer, device, batch.given.weights());
    const auto begin = std::chrono::steady_clock::now();
    const auto expect_error = [&](const auto& call) {
      try {
        call();
        const std::lock_guard lock(mutex);
        ADD_FAILURE() << "no error";
      } catch (const TransportError& e) {
        const std::lock_guard lock(mutex);
        EXPECT_EQ(e.rank, inner.rank());
        EXPECT_EQ(e.step, first_transfer->name) << e.what();
      }
    };
    expect_error([&] { batch.forward(layer, device, batch.given.weights()); });
    expect_error([&] { hangs->wait(std::chrono::steady_clock::now()); });
    const std::lock_guard lock(mutex);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
  });
}

// What the caller's stream was to do before the pass never comes.
TEST(PassEnd, CallersStreamNeverGetsThere_IsSaid) {
  const Case c = cases().front();
  const ReferenceWeights weights = make_weights(c.layer);
  std::mutex mutex;
  run_inproc(c.layer.layout.world, [&](Communicator& inner) {
    DeferredDevice device(5);
    DeferredCommunicator communicator(inner, device);
    RankTensors t(c.layer, weights, inner.rank());
    MoeLayer layer = make_layer(c.layer, c.schedule, communicator, device, std::chrono::milliseconds(300));
    device.stall(Lane::copy);
    const EventPtr never = device.record(Lane::copy);
    try {
      layer.forward(t.x.data(), t.rows, t.y.data(), t.weights(), never);
      const std::lock_guard lock(mutex);
      ADD_FAILURE() << "no error";
    } catch (const TransportError& e) {
      const std::lock_guard lock(mutex);
      EXPECT_EQ(e.rank, inner.rank());
      EXPECT_EQ(e.why, "what the caller's stream does before this pass is not over in time");
    }
  });
}

// The layer goes while its lanes still work: they end first.
TEST(PassEnd, LayerDiesBeforeItsPassIsOver_WaitsForIt) {
  const Case c = cases().front();
  const ReferenceWeights weights = make_weights(c.layer);
  std::mutex mutex;
  run_inproc(c.layer.layout.world, [&](Communicator& inner) {
    Batch one(c.layer, weights, inner.rank()), other(c.layer, weights, inner.rank());
    const auto pass = [&](Batch& batch, bool wait) {
      DeferredDevice device(3);
      DeferredCommunicator communicator(inner, device);
      {
        MoeLayer layer = make_layer(c.layer, c.schedule, communicator, device);
        batch.forward(layer, device, batch.given.weights());
        if (wait) device.synchronize(soon());
        batch.handle.reset();
      }
      device.synchronize(soon());
      inner.barrier();
    };
    pass(one, true);
    pass(other, false);
    const std::lock_guard lock(mutex);
    EXPECT_EQ(one.outputs, other.outputs);
  });
}

// dispatch and combine around experts on the caller's stream.
TEST(PassEnd, DispatchAndCombineOnEvents_GiveTheSameBits) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.schedule.name + ", " + describe(c.layer));
    const ReferenceWeights weights = make_weights(c.layer);
    const auto chosen = expect_layer(c.layer).ids;
    const auto K = static_cast<std::size_t>(c.layer.shape.top_k);
    std::mutex mutex;
    run_inproc(c.layer.layout.world, [&](Communicator& inner) {
      const auto rank = static_cast<std::size_t>(inner.rank());
      const auto run_once = [&](std::uint64_t seed, bool events) {
        DeferredDevice device(seed);
        DeferredCommunicator communicator(inner, device);
        RankTensors t(c.layer, weights, inner.rank());
        const DispatchShape shape{c.layer.shape.hidden, c.layer.shape.experts, c.layer.shape.top_k, c.layer.dtype};
        Dispatcher dispatcher(c.schedule, c.layer.layout, c.layer.gpus_per_node, shape, communicator, device);
        std::vector<std::int32_t> ids(chosen[rank].size());
        std::vector<float> gates(ids.size()), gate_grads(ids.size());
        const auto settle = [&] {
          if (!events) device.synchronize(soon());
        };
        // Each expert doubles; its backward too.
        const auto experts = [&](std::span<const ExpertBatch> batches) {
          for (const ExpertBatch& b : batches)
            device.on_stream([b, hidden = c.layer.shape.hidden] {
              std::int64_t rows = 0;
              for (const std::int64_t n : b.rows) rows += n;
              for (std::int64_t i = 0; i < rows * hidden; ++i)
                static_cast<float*>(b.outputs)[i] = 2 * static_cast<const float*>(b.inputs)[i];
            });
        };
        device.on_stream([&] {
          ids = chosen[rank];
          for (std::size_t i = 0; i < gates.size(); ++i) gates[i] = 1.0F / static_cast<float>(K + i);
        });
        auto handle = dispatcher.dispatch(t.x.data(), t.rows, ids.data(), gates.data(), device.record_stream());
        settle();
        device.stream_waits(handle.done());
        experts(handle.batches());
        dispatcher.combine(handle, t.y.data(), device.record_stream());
        settle();
        device.stream_waits(handle.done());
        device.on_stream([&] { t.dy = t.y; });
        const auto batches = dispatcher.combine_backward(handle, t.dy.data(), device.record_stream());
        settle();
        device.stream_waits(handle.done());
        experts(batches);
        dispatcher.dispatch_backward(handle, t.dx.data(), gate_grads.data(), device.record_stream());
        handle.done()->wait(std::chrono::steady_clock::now() + std::chrono::seconds(60));
        device.synchronize(soon());
        inner.barrier();
        return std::tuple(t.y, t.dx, gate_grads);
      };
      const auto expected = run_once(1, false);
      for (std::uint64_t seed = 2; seed < 4; ++seed) {
        const auto actual = run_once(seed, true);
        const std::lock_guard lock(mutex);
        EXPECT_EQ(actual, expected) << "seed " << seed;
      }
    });
  }
}

}  // namespace
}  // namespace topomoe::testing
