#include "runtime/rehearsal.hpp"

#include <algorithm>
#include <cmath>

#include "runtime/caller_tensor.hpp"
#include "runtime/drawn_traffic.hpp"
#include "runtime/rehearsal_rank.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Index = std::size_t;
using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kDeadline = std::chrono::minutes(2);

}  // namespace

std::optional<RehearsalReport> RehearsalRank::run() {
  agree();
  std::vector<RankTrace> traces;
  std::vector<double> seconds;
  execute(traces, seconds);
  RehearsalReport report;
  const Intake intake = plan_.schedule.intake;
  if (intake == Intake::tp_gather || (intake == Intake::as_held && !plan_.layout.sequence_parallel))
    report.token_copies = plan_.layout.tp;
  report.bound = verification_bound(shape_.dtype);
  gather_runs(report, traces, seconds);
  if (rank_ == 0) predict(report);
  if (request_.verify) verify(report);
  if (rank_ != 0) return std::nullopt;
  return report;
}

// Everything that follows is collective: ranks with another plan or other sizes would wait for each other forever.
void RehearsalRank::agree() {
  const std::string hash = plan_hash(plan_);
  const auto half = [&](Index at) { return static_cast<double>(std::stoul(hash.substr(at, 8), nullptr, 16)); };
  const std::vector<double> mine{half(0),
                                 half(8),
                                 static_cast<double>(shape_.hidden),
                                 static_cast<double>(shape_.ffn),
                                 static_cast<double>(request_.size.tokens),
                                 static_cast<double>(request_.seed),
                                 static_cast<double>(request_.repeat),
                                 request_.verify ? 1.0 : 0.0};
  const auto all = host_.gather_on_all("agree on the plan", mine);
  for (Index r = 0; r < all.size(); ++r)
    if (all[r] != mine)
      throw InvalidInput(
          "plan", "hash " + hash,
          "rank " + std::to_string(r) + " was given another plan, size or seed; give all ranks the same");
}

void RehearsalRank::execute(std::vector<RankTrace>& traces, std::vector<double>& seconds) {
  const Index hidden = static_cast<Index>(shape_.hidden), ffn = static_cast<Index>(shape_.ffn);
  const Range held = held_by(rank_), shard = shard_of(rank_);
  std::vector<float> x(static_cast<Index>(held.size()) * hidden), dy(x.size());
  std::vector<std::int32_t> ids(static_cast<Index>(shape_.top_k));
  for (std::int64_t t = held.begin; t < held.end; ++t) {
    const Index row = static_cast<Index>(t - held.begin) * hidden;
    data_.token(group(), t, {&x[row], hidden}, ids);
    data_.output_gradient(group(), t, {&dy[row], hidden});
  }
  std::vector<float> gate, up, down;
  for (const int copy : held_by_place_of(rank_)) {
    const RehearsalData::Expert w = data_.expert(placement_.expert_of(copy));
    const auto rows = [&](const std::vector<float>& from, std::vector<float>& to) {
      to.insert(to.end(), from.begin() + shard.begin * shape_.hidden, from.begin() + shard.end * shape_.hidden);
    };
    rows(w.gate, gate), rows(w.up, up);
    for (Index m = 0; m < hidden; ++m) {
      const auto row = w.down.begin() + static_cast<std::ptrdiff_t>(m * ffn);
      down.insert(down.end(), row + shard.begin, row + shard.end);
    }
  }
  const RehearsalData::Expert shared = data_.shared();
  const Range its = shared_shard_of(rank_);
  std::vector<float> s_gate(shared.gate.begin() + its.begin * shape_.hidden,
                            shared.gate.begin() + its.end * shape_.hidden),
      s_up(shared.up.begin() + its.begin * shape_.hidden, shared.up.begin() + its.end * shape_.hidden), s_down;
  for (std::int64_t m = 0; m < shape_.hidden; ++m) {
    const auto row = shared.down.begin() + m * shape_.shared_ffn;
    s_down.insert(s_down.end(), row + its.begin, row + its.end);
  }
  const CallerTensor ws_gate(device_, encode(s_gate, shape_.dtype)), ws_up(device_, encode(s_up, shape_.dtype)),
      ws_down(device_, encode(s_down, shape_.dtype)), mix(device_, as_bytes(data_.mix())),
      bias(device_, as_bytes(data_.selection_bias())), ds_gate(device_, s_gate.size() * 4),
      ds_up(device_, s_up.size() * 4), ds_down(device_, s_down.size() * 4), d_mix(device_, mix.bytes);
  const CallerTensor router(device_, as_bytes(data_.router())), w_gate(device_, encode(gate, shape_.dtype)),
      w_up(device_, encode(up, shape_.dtype)), w_down(device_, encode(down, shape_.dtype)),
      tokens(device_, encode(x, shape_.dtype)), dout(device_, encode(dy, shape_.dtype));
  const CallerTensor y(device_, tokens.bytes), dx(device_, tokens.bytes), d_router(device_, router.bytes),
      d_gate(device_, gate.size() * 4), d_up(device_, up.size() * 4), d_down(device_, down.size() * 4);
  const bool gated = shape_.gated;  // what has no gate is given none
  const LayerWeights weights{router.floats(),
                             gated ? w_gate.memory.get() : nullptr,
                             w_up.memory.get(),
                             w_down.memory.get(),
                             data_.selection_bias().empty() ? nullptr : bias.floats(),
                             gated ? ws_gate.memory.get() : nullptr,
                             ws_up.memory.get(),
                             ws_down.memory.get(),
                             mix.floats()};
  const LayerGradients gradients{d_router.floats(),
                                 gated ? d_gate.floats() : nullptr,
                                 d_up.floats(),
                                 d_down.floats(),
                                 gated ? ds_gate.floats() : nullptr,
                                 ds_up.floats(),
                                 ds_down.floats(),
                                 d_mix.floats()};
  MoeLayer layer(plan_.schedule, layout_, plan_.topology.gpus_per_node, shape_, counting_, device_,
                 request_.deadline.value_or(kDeadline),
                 request_.memory ? *request_.memory : memory_of_plan(plan_, request_.size));
  for (int i = 0; i < request_.repeat; ++i) {
    for (const CallerTensor* t : {&d_router, &d_gate, &d_up, &d_down, &ds_gate, &ds_up, &ds_down, &d_mix})
      device_.zero(Lane::compute, t->memory.get(), t->bytes);
    device_.synchronize(std::chrono::steady_clock::now() + request_.deadline.value_or(kDeadline));
    counting_.reset();
    counting_.barrier();
    overflow_rounds_ = -layer.counters().overflow_rounds;
    const auto begin = Clock::now();
    const auto now = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
    if (traces.size() == kRunsKept || (i == 2 && traces.size() == 2)) traces.erase(traces.begin());
    RankTrace& trace = traces.emplace_back();
    trace.forward_begin_s = now();
    MoeLayer::Handle handle = layer.forward(tokens.memory.get(), held.size(), y.memory.get(), weights);
    trace.forward = layer.last_trace().steps;
    trace.backward_begin_s = now();
    if (trains()) {
      layer.backward(handle, dout.memory.get(), dx.memory.get(), weights, gradients);
      trace.backward = layer.last_trace().steps;
    }
    seconds.push_back(now());
    overflow_rounds_ += layer.counters().overflow_rounds;
  }
  output_ = decode(y.read(), shape_.dtype), token_grads_ = decode(dx.read(), shape_.dtype);
  const auto gradient = [](const CallerTensor& t) { return decode(t.read(), DType::f32); };
  router_grad_ = gradient(d_router), gate_grad_ = gradient(d_gate), up_grad_ = gradient(d_up),
  down_grad_ = gradient(d_down);
  shared_grads_ = {gradient(ds_gate), gradient(ds_up), gradient(ds_down)};
  mix_grad_ = gradient(d_mix);
}

// To rank 0, as numbers: names and kinds are in the schedule that all have.
void RehearsalRank::gather_runs(RehearsalReport& report, const std::vector<RankTrace>& mine,
                                const std::vector<double>& seconds) {
  std::vector<double> numbers;
  ClassBytes payload, metadata;
  for (int peer = 0; peer < host_.size(); ++peer) {
    const Traffic& sent = counting_.sent()[static_cast<Index>(peer)];
    const bool inside = peer / groups_.gpus_per_node() == rank_ / groups_.gpus_per_node();
    (inside ? payload.inside : payload.between) += sent.payload_bytes;
    (inside ? metadata.inside : metadata.between) += sent.metadata_bytes;
  }
  numbers.insert(numbers.end(), {payload.inside, payload.between, metadata.inside, metadata.between,
                                 static_cast<double>(overflow_rounds_)});
  numbers.insert(numbers.end(), seconds.begin(), seconds.end());
  for (const RankTrace& trace : mine) {
    numbers.insert(numbers.end(), {trace.forward_begin_s, trace.backward_begin_s});
    for (const auto* pass : {&trace.forward, &trace.backward})
      for (const StepTrace& s : *pass)
        numbers.insert(numbers.end(),
                       {s.begin_s, s.end_s, s.payload_bytes, s.metadata_bytes, static_cast<double>(s.dropped)});
  }

  report.seconds.assign(seconds.size(), 0.0);
  report.runs.resize(mine.size());
  for (const auto& all : host_.gather("gather the traces", numbers)) {
    if (all.empty()) continue;  // not rank 0
    report.counted_payload.inside += all[0], report.counted_payload.between += all[1];
    report.counted_metadata.inside += all[2], report.counted_metadata.between += all[3];
    // EP groups that share no rank agree apart.
    report.overflow_rounds = std::max(report.overflow_rounds, static_cast<std::int64_t>(all[4]));
    Index at = 5;
    for (double& s : report.seconds) s = std::max(s, all[at++]);
    for (Index run = 0; run < mine.size(); ++run) {
      RankTrace& trace = report.runs[run].emplace_back(mine[run]);
      trace.forward_begin_s = all[at++], trace.backward_begin_s = all[at++];
      for (auto* pass : {&trace.forward, &trace.backward})
        for (StepTrace& s : *pass) {
          s.begin_s = all[at], s.end_s = all[at + 1], s.payload_bytes = all[at + 2], s.metadata_bytes = all[at + 3];
          s.dropped = static_cast<std::int64_t>(all[at + 4]);
          at += 5;
        }
    }
    report.ranks.push_back(report.runs.back().back());
  }
}

// Experts of the tokens that a rank injects, drawn again from the seed.
std::vector<std::int32_t> RehearsalRank::injected_ids(int rank,
                                                      std::vector<std::vector<std::int32_t>>& by_group) const {
  const auto k = static_cast<Index>(shape_.top_k);
  const int g = rank / layout_.tp;
  auto& ids = by_group[static_cast<Index>(g)];
  std::vector<float> row(static_cast<Index>(shape_.hidden));
  for (std::int64_t t = static_cast<std::int64_t>(ids.size() / k); t < request_.size.tokens; ++t) {
    ids.resize(ids.size() + k);
    data_.token(g, t, row, {ids.data() + ids.size() - k, k});
  }
  const Range injected = injected_by(rank);
  return {ids.begin() + injected.begin * shape_.top_k, ids.begin() + injected.end * shape_.top_k};
}

void RehearsalRank::predict(RehearsalReport& report) {
  std::vector<std::vector<std::int32_t>> by_group(static_cast<Index>(layout_.world / layout_.tp));
  const DrawnCounts counts(
      plan_.schedule, groups_, shape_, [&](int r) { return held_by(r).size(); },
      [&](int r) { return injected_ids(r, by_group); });
  const auto visit = [&](const Step& step, int rank, int peer, double bytes) {
    ClassBytes& sum = step.metadata ? report.predicted_metadata : report.predicted_payload;
    (rank / groups_.gpus_per_node() == peer / groups_.gpus_per_node() ? sum.inside : sum.between) += bytes;
  };
  each_transfer(plan_.schedule, plan_.schedule.forward, groups_, shape_, counts, visit);
  if (trains()) each_transfer(plan_.schedule, plan_.schedule.backward, groups_, shape_, counts, visit);
}

std::optional<RehearsalReport> rehearse(const Plan& plan, const RehearsalRequest& request, Communicator& communicator,
                                        Device& device) {
  if (communicator.size() != plan.layout.world)
    throw InvalidInput("ranks", std::to_string(communicator.size()),
                       "the plan has " + std::to_string(plan.layout.world));
  return RehearsalRank(plan, request, communicator, device).run();
}

}  // namespace topomoe
