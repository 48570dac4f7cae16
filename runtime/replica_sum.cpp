#include "runtime/replica_sum.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <vector>

#include "kernels/ordered_sum.hpp"

namespace topomoe {
namespace {

using Index = std::size_t;

// One expert that this rank holds a replica of: where each replica's gradients come to lie, one after another.
struct Shared {
  int expert = 0, local = 0;
  std::byte* blocks = nullptr;
};

class ReplicaSum {
 public:
  ReplicaSum(const ExecutorContext& c, const LayerGradients& g)
      : c_(c),
        elements_(c.shape.hidden * (c.shape.ffn / c.groups.layout().etp)),
        matrix_(static_cast<Index>(elements_) * sizeof(float)),
        place_(c.groups.index_in(Role::ep, c.rank)) {
    for (const ExpertGradients& t : {g.gate, g.up, g.down})
      if (t) tensors_.push_back(t);
    Index bytes = 0;
    for (const int copy : c.placement.held_by(place_)) {
      const int expert = c.placement.expert_of(copy);
      if (replicas(expert) < 2) continue;
      shared_.push_back({expert, c.placement.index_at_place(copy)});
      bytes += part() * static_cast<Index>(replicas(expert));
    }
    blocks_ = c.device.allocate(std::max<Index>(1, bytes));
    std::byte* at = blocks_.get();
    for (Shared& s : shared_) s.blocks = at, at += part() * static_cast<Index>(replicas(s.expert));
  }

  void run() {
    for (const Shared& s : shared_)
      for (Index i = 0; i < tensors_.size(); ++i)
        c_.device.copy(kLane, block(s, place_) + i * matrix_, gradient(s, i), matrix_);
    c_.device.wait(kLane, exchange(), deadline());
    for (const Shared& s : shared_) {
      c_.device.ordered_sum(kLane, {.out = s.blocks,
                                    .in = s.blocks,
                                    .rows = 1,
                                    .columns = static_cast<std::int64_t>(part() / sizeof(float)),
                                    .blocks = replicas(s.expert),
                                    .dtype = DType::f32});
      for (Index i = 0; i < tensors_.size(); ++i)
        c_.device.copy(kLane, gradient(s, i), s.blocks + i * matrix_, matrix_);
    }
    if (const EventPtr over = c_.device.record(kLane)) over->wait(deadline());
  }

 private:
  static constexpr Lane kLane = Lane::compute;
  std::chrono::steady_clock::time_point deadline() const { return std::chrono::steady_clock::now() + c_.deadline; }
  int replicas(int expert) const { return c_.placement.replicas(expert); }
  Index part() const { return tensors_.size() * matrix_; }
  std::byte* gradient(const Shared& s, Index tensor) const {
    return reinterpret_cast<std::byte*>(tensors_[tensor].of(s.local, elements_));
  }
  // Of the replica at a place; null where there is none.
  std::byte* block(const Shared& s, int place) const {
    for (int i = 0; i < replicas(s.expert); ++i)
      if (c_.placement.place_of(c_.placement.copy_for(s.expert, i)) == place)
        return s.blocks + static_cast<Index>(i) * part();
    return nullptr;
  }

  // One message an expert and replica, in order of expert on both sides.
  EventPtr exchange() const {
    std::vector<Outgoing> sends;
    std::vector<Incoming> receives;
    for (int peer = 0; peer < c_.placement.places(); ++peer)
      for (const Shared& s : shared_)
        if (std::byte* const theirs = peer == place_ ? nullptr : block(s, peer)) {
          sends.push_back({peer, block(s, place_), part()});
          receives.push_back({peer, theirs, part()});
        }
    return c_.communicator.exchange(c_.channels.of(Role::ep), sends, receives,
                                    {.step = "sum over replicas", .lane = kLane, .memory = c_.device.memory_space()});
  }

  const ExecutorContext& c_;
  std::vector<ExpertGradients> tensors_;  // without a gate two
  std::int64_t elements_;                 // of a matrix
  Index matrix_;                          // bytes of it
  int place_;
  std::vector<Shared> shared_;
  DeviceMemory blocks_;
};

}  // namespace

void sum_over_replicas(const ExecutorContext& context, const LayerGradients& gradients) {
  if (!context.placement.replicated() || !gradients.up) return;
  std::optional<ReplicaSum> sum;  // what a peer may still read or write when this rank gives up
  try {
    sum.emplace(context, gradients).run();
  } catch (const std::exception& e) {
    context.communicator.fail(failure_of(e, context.rank));
    throw;
  }
}

}  // namespace topomoe
