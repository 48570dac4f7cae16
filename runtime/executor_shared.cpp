// Steps of the shared expert, and what the router's losses come to.
#include <algorithm>

#include "kernels/mix.hpp"
#include "runtime/executor.hpp"

namespace topomoe {
namespace {

template <class T>
T* as(std::byte* p) {
  return reinterpret_cast<T*>(p);
}

}  // namespace

// The loss of a TP group is the mean of its ranks': where they route different tokens, each counts 1/t.
double Executor::loss_share() const {
  const bool distinct = c_.schedule.intake == Intake::tp_slice ||
                        (c_.schedule.intake == Intake::as_held && c_.groups.layout().sequence_parallel);
  return distinct ? 1.0 / c_.groups.layout().tp : 1.0;
}

// state_.ids are what the router chose; `sums` as kernels::Router::loss_sums, on the device, or null.
void Executor::report_routing(const Step& s, std::int64_t rows, const std::byte* sums) {
  RouterReport& r = state_.report;
  const auto experts = static_cast<std::size_t>(c_.shape.experts);
  r.balance_loss = r.z_loss = 0;
  r.chosen.assign(experts, 0);
  for (const std::int32_t id : state_.ids)
    if (id >= 0) ++r.chosen[static_cast<std::size_t>(id)];
  state_.score_grads.assign(experts, 0.0F);
  state_.z_grad = 0;
  if (sums == nullptr || rows == 0) return;
  std::vector<float>& host = state_.loss_sums;
  host.resize(experts + 1);
  read(s, host.data(), sums, host.size() * sizeof(float));
  const double tokens = static_cast<double>(rows), choices = tokens * c_.shape.top_k,
               balance = static_cast<double>(c_.shape.router.balance_loss) * c_.shape.experts,
               z = static_cast<double>(c_.shape.router.z_loss);
  for (std::size_t e = 0; e < experts; ++e) {
    const double share = static_cast<double>(r.chosen[e]) / choices;
    r.balance_loss += balance * share * static_cast<double>(host[e]) / tokens;
    state_.score_grads[e] = static_cast<float>(loss_share() * balance * share / tokens);
  }
  r.z_loss = z * static_cast<double>(host[experts]) / tokens;
  state_.z_grad = static_cast<float>(loss_share() * 2 * z / tokens);
}

void Executor::shared(const Step& s) {
  m_.expert_offsets.assign({0, at(s.in[0]).rows});
  Ffn f{.offsets = m_.expert_offsets,
        .width = c_.shape.shared_ffn / c_.groups.layout().tp,
        .gate = weights_.shared_gate,
        .up = weights_.shared_up,
        .down = weights_.shared_down,
        .packed = c_.packed != nullptr ? c_.packed->shared.get() : nullptr};
  if (gradients_ != nullptr)
    f.gate_grad = gradients_->shared_gate, f.up_grad = gradients_->shared_up, f.down_grad = gradients_->shared_down;
  ffn(s, f);
}

void Executor::mix(const Step& s, std::size_t step) {
  const SharedGate gate = s.kind == StepKind::add ? SharedGate::none : c_.shape.shared_gate;
  if (s.kind != StepKind::mix_backward) {
    const Span shared = at(s.in.back()), out = at(s.out[0]);
    c_.device.mix(s.lane, {.tokens = s.kind == StepKind::mix ? at(s.in[0]).data : nullptr,
                           .weight = weights_.mix,
                           .shared = shared.data,
                           .out = out.data,
                           .routed = s.kind == StepKind::mix ? at(s.out[1]).data : nullptr,
                           .rows = out.rows,
                           .columns = c_.shape.hidden,
                           .gate = gate,
                           .dtype = c_.shape.dtype});
    return;
  }
  const Span tokens = at(s.in[0]);
  std::byte* const scratch =
      slot(m_.arenas.slots().of_scratch(true, step), tokens.rows * kernels::gates_of(gate), sizeof(float));
  c_.device.mix_backward(s.lane,
                         {.tokens = tokens.data,
                          .weight = weights_.mix,
                          .out_grad = at(s.in[1]).data,
                          .routed = at(s.in[2]).data,
                          .shared = at(s.in[3]).data,
                          .routed_grad = at(s.out[0]).data,
                          .shared_grad = at(s.out[1]).data,
                          .token_grad = at(s.out[2]).data,
                          .logit_grads = as<float>(scratch),
                          .weight_grad = gradients_ != nullptr ? gradients_->mix : nullptr,
                          .weight_grad_scale = s.shared_by_tp ? 1.0F / static_cast<float>(c_.groups.layout().tp) : 1.0F,
                          .rows = tokens.rows,
                          .columns = c_.shape.hidden,
                          .gate = gate,
                          .dtype = c_.shape.dtype});
}

}  // namespace topomoe
