// How a rehearsal's results are checked against ReferenceShare.

#include <algorithm>
#include <cmath>

#include "runtime/rehearsal_rank.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Index = std::size_t;

void update(Deviation& d, const std::vector<double>& got, const std::vector<double>& want) {
  TOPOMOE_ASSERT(got.size() == want.size());
  for (Index i = 0; i < want.size(); ++i) {
    const double difference = std::abs(got[i] - want[i]);
    d.difference = std::isfinite(difference) ? std::max(d.difference, difference) : HUGE_VAL;
    d.largest = std::max(d.largest, std::abs(want[i]));
  }
}

void add(std::vector<double>& to, const std::vector<double>& from) {
  to.resize(std::max(to.size(), from.size()));
  for (Index i = 0; i < from.size(); ++i) to[i] += from[i];
}

}  // namespace

// Each rank computes its TP slice of the reference; ranks that hold the whole group's tokens get the other slices.
void RehearsalRank::verify(RehearsalReport& report) {
  const Range slice = slice_of(rank_), routed = injected_by(rank_);
  ReferenceShare share(data_, group(), slice.begin, slice.end, routed.begin, routed.end,
                       plan_.job.dispatch_dtype == DispatchDType::fp8);
  std::vector<VerifiedTensor> tensors{{"output", {}}};
  if (trains())
    for (const char* name : {"token gradients", "router gradient", "gate gradients", "up gradients", "down gradients"})
      tensors.push_back({name, {}});
  for (int e = 0; e < shape_.experts; ++e) verify_expert(share, e, tensors);
  if (shape_.shared_ffn > 0) verify_shared(share, tensors);
  const std::vector<double> router = share.finish();

  const auto whole = [&](const char* step, const std::vector<double>& mine) {
    if (layout_.sequence_parallel) return mine;
    const auto same_group = [&](int peer) { return peer / layout_.tp == group(); };
    std::vector<double> all;
    for (const auto& piece : host_.exchange(
             step, [&](int peer) { return same_group(peer) ? mine : std::vector<double>(); },
             [&](int peer) {
               return same_group(peer) ? static_cast<Index>(slice_of(peer).size() * shape_.hidden) : 0;
             }))
      all.insert(all.end(), piece.begin(), piece.end());
    return all;
  };
  update(tensors[0].deviation, output_, whole("reference outputs", share.output));
  if (trains()) {
    update(tensors[1].deviation, token_grads_, whole("reference token gradients", share.token_grads));
    std::vector<double> got, want;
    for (const auto& piece : host_.gather("router gradients", router_grad_)) add(got, piece);
    for (const auto& piece : host_.gather("reference router gradients", router)) add(want, piece);
    update(tensors[2].deviation, got, want);
  }
  std::vector<double> mine;
  for (const VerifiedTensor& t : tensors) mine.insert(mine.end(), {t.deviation.difference, t.deviation.largest});
  for (const auto& one : host_.gather("deviations", mine))
    for (Index i = 0; 2 * i < one.size(); ++i) {
      Deviation& d = tensors[i].deviation;
      d.difference = std::max(d.difference, one[2 * i]), d.largest = std::max(d.largest, one[2 * i + 1]);
    }
  if (!shape_.gated)
    std::erase_if(tensors, [](const VerifiedTensor& t) {
      return t.name == "gate gradients" || t.name == "shared gate gradient";
    });
  report.verified = std::move(tensors);
}

// Of the shared expert and its gate, by rank 0. Each rank has its shard's gradient of its TP group's tokens, and in the
// reference that of its slice of them: either way the sum over ranks is the gradient.
void RehearsalRank::verify_shared(ReferenceShare& share, std::vector<VerifiedTensor>& tensors) {
  std::vector<double> mix;
  const ReferenceShare::ExpertGradients reference = share.run_shared(mix);
  if (!trains()) return;
  const Index hidden = static_cast<Index>(shape_.hidden), ffn = static_cast<Index>(shape_.shared_ffn);
  const std::array<const std::vector<double>*, 3> wanted{&reference.gate, &reference.up, &reference.down};
  const char* const names[] = {"shared gate gradient", "shared up gradient", "shared down gradient"};
  for (Index tensor = 0; tensor < 3; ++tensor) {
    std::vector<double> got(ffn * hidden), want;
    int rank = 0;
    for (const auto& piece : host_.gather(names[tensor], shared_grads_[tensor])) {
      const Range shard = shared_shard_of(rank++);
      const Index first = static_cast<Index>(shard.begin), width = static_cast<Index>(shard.size());
      for (Index i = 0; i < piece.size(); ++i)
        got[tensor < 2 ? first * hidden + i : i / width * ffn + first + i % width] += piece[i];
    }
    for (const auto& piece : host_.gather("reference of a shared gradient", *wanted[tensor])) add(want, piece);
    tensors.push_back({names[tensor], {}});
    if (rank_ == 0) update(tensors.back().deviation, got, want);
  }
  if (shape_.shared_gate == SharedGate::none) return;
  std::vector<double> got, want;
  for (const auto& piece : host_.gather("gradient of the shared expert's gate", mix_grad_)) add(got, piece);
  for (const auto& piece : host_.gather("reference of the shared expert's gate", mix)) add(want, piece);
  tensors.push_back({"gradient of the shared expert's gate", {}});
  if (rank_ == 0) update(tensors.back().deviation, got, want);
}

// One rank sums up what all say of one expert: ranks take turns, so that no one needs memory for all experts.
void RehearsalRank::verify_expert(ReferenceShare& share, int expert, std::vector<VerifiedTensor>& tensors) {
  const ReferenceShare::ExpertGradients reference = share.run_expert(expert);
  if (!trains()) return;
  const int judge = expert % host_.size();
  const Index hidden = static_cast<Index>(shape_.hidden), ffn = static_cast<Index>(shape_.ffn), matrix = hidden * ffn;
  // Place among the experts of a rank; -1 where it has none.
  const auto local = [&](int rank) {
    int index = 0;
    for (const int copy : held_by_place_of(rank)) {
      if (placement_.expert_of(copy) == expert) return index;
      ++index;
    }
    return -1;
  };
  const auto holds = [&](int rank) { return local(rank) >= 0; };
  const auto shard_size = [&](int rank) { return static_cast<Index>(shard_of(rank).size()) * hidden; };
  std::vector<double> mine;
  for (const auto* g : {&reference.gate, &reference.up, &reference.down}) mine.insert(mine.end(), g->begin(), g->end());
  if (holds(rank_)) {
    const auto begin = static_cast<std::ptrdiff_t>(static_cast<Index>(local(rank_)) * shard_size(rank_));
    const auto end = begin + static_cast<std::ptrdiff_t>(shard_size(rank_));
    for (const auto* g : {&gate_grad_, &up_grad_, &down_grad_})
      mine.insert(mine.end(), g->begin() + begin, g->begin() + end);
  }
  const auto all = host_.exchange(
      "expert gradients", [&](int peer) { return peer == judge ? mine : std::vector<double>(); },
      [&](int peer) { return rank_ == judge ? 3 * matrix + (holds(peer) ? 3 * shard_size(peer) : 0) : 0; });
  if (rank_ != judge) return;
  std::vector<std::vector<double>> got(3, std::vector<double>(matrix)), want = got;
  for (int peer = 0; peer < host_.size(); ++peer) {
    const std::vector<double>& values = all[static_cast<Index>(peer)];
    for (Index i = 0; i < 3 * matrix; ++i) want[i / matrix][i % matrix] += values[i];
    if (!holds(peer)) continue;
    const double* from = values.data() + 3 * matrix;
    const Index f0 = static_cast<Index>(shard_of(peer).begin), width = static_cast<Index>(shard_of(peer).size());
    for (Index tensor = 0; tensor < 2; ++tensor)
      for (Index i = 0; i < width * hidden; ++i) got[tensor][f0 * hidden + i] += *from++;
    for (Index m = 0; m < hidden; ++m)
      for (Index f = 0; f < width; ++f) got[2][m * ffn + f0 + f] += *from++;
  }
  for (Index tensor = 0; tensor < 3; ++tensor) update(tensors[3 + tensor].deviation, got[tensor], want[tensor]);
}

}  // namespace topomoe
