// One rank of a rehearsal: what rehearsal.cpp runs and rehearsal_verify.cpp checks. Internal to the two.
#pragma once

#include "runtime/communicator_counting.hpp"
#include "runtime/host_exchange.hpp"
#include "runtime/rehearsal.hpp"
#include "runtime/rehearsal_reference.hpp"

namespace topomoe {

// [begin, end) of tokens or columns.
struct Range {
  std::int64_t begin, end;
  std::int64_t size() const { return end - begin; }
};

inline Range part(std::int64_t n, int parts, int index) {
  return {part_begin(n, parts, index), part_begin(n, parts, index + 1)};
}

// One rank of a rehearsal.
class RehearsalRank {
 public:
  RehearsalRank(const Plan& plan, const RehearsalRequest& request, Communicator& communicator, Device& device)
      : plan_(plan),
        layout_(plan.layout),
        request_(request),
        shape_(request.size.shape),
        data_(shape_, request.seed),
        groups_(plan.layout, plan.topology.gpus_per_node),
        placement_(shape_.experts, layout_.ep, shape_.expert_owners),
        host_(communicator, request.deadline.value_or(std::chrono::minutes(10))),
        counting_(communicator),
        device_(device),
        rank_(communicator.rank()) {}

  std::optional<RehearsalReport> run();

 private:
  bool trains() const { return plan_.job.phase == Phase::train; }
  int group() const { return rank_ / layout_.tp; }
  Range slice_of(int rank) const { return part(request_.size.tokens, layout_.tp, groups_.index_in(Role::tp, rank)); }
  Range held_by(int rank) const { return layout_.sequence_parallel ? slice_of(rank) : Range{0, request_.size.tokens}; }
  // Copies of experts, ascending.
  std::span<const int> held_by_place_of(int rank) const { return placement_.held_by(groups_.index_in(Role::ep, rank)); }
  // Of the TP group's tokens those that a rank sends into the exchange.
  Range injected_by(int rank) const {
    if (plan_.schedule.intake == Intake::tp_slice) return slice_of(rank);
    return plan_.schedule.intake == Intake::tp_gather ? Range{0, request_.size.tokens} : held_by(rank);
  }
  Range shard_of(int rank) const { return part(shape_.ffn, layout_.etp, groups_.index_in(Role::etp, rank)); }
  Range shared_shard_of(int rank) const {
    return part(shape_.shared_ffn, layout_.tp, groups_.index_in(Role::tp, rank));
  }

  void agree();
  void execute(std::vector<RankTrace>& traces, std::vector<double>& seconds);
  void predict(RehearsalReport& report);
  void gather_runs(RehearsalReport& report, const std::vector<RankTrace>& mine, const std::vector<double>& seconds);
  void verify(RehearsalReport& report);
  void verify_expert(ReferenceShare& share, int expert, std::vector<VerifiedTensor>& tensors);
  void verify_shared(ReferenceShare& share, std::vector<VerifiedTensor>& tensors);
  std::vector<std::int32_t> injected_ids(int rank, std::vector<std::vector<std::int32_t>>& by_group) const;

  const Plan& plan_;
  const Layout& layout_;
  const RehearsalRequest& request_;
  const LayerShape& shape_;
  RehearsalData data_;
  RankGroups groups_;
  ExpertPlacement placement_;
  HostExchange host_;
  CountingCommunicator counting_;
  Device& device_;
  int rank_;
  std::int64_t overflow_rounds_ = 0;  // of the last repetition
  // Results of the last repetition.
  std::vector<double> output_, token_grads_, router_grad_, gate_grad_, up_grad_, down_grad_;
  std::array<std::vector<double>, 3> shared_grads_;  // gate, up, down
  std::vector<double> mix_grad_;
};

}  // namespace topomoe
