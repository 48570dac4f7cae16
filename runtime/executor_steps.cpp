// One function a kind of step: views to memory, and the call to device or communicator.
#include <algorithm>

#include "kernels/convert_rows.hpp"
#include "kernels/gather_rows.hpp"
#include "kernels/grouped_ffn.hpp"
#include "kernels/ordered_sum.hpp"
#include "kernels/router.hpp"
#include "kernels/sum_rows.hpp"
#include "runtime/executor.hpp"
#include "runtime/settle.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

template <class T>
T* as(std::byte* p) {
  return reinterpret_cast<T*>(p);
}

}  // namespace

void Executor::issue(const Step& s, std::size_t step, StepTrace& trace, EventPtr& event) {
  switch (s.kind) {
    case StepKind::route: route(s, step, trace); break;
    case StepKind::counts_exchange: counts_exchange(s, trace); return;
    case StepKind::index: index(s); break;
    case StepKind::pack: pack(s, step); break;
    case StepKind::repack: repack(s); break;
    case StepKind::exchange:
    case StepKind::all_gather: event = exchange(s, trace); return;
    case StepKind::ordered_sum: ordered_sum(s); break;
    case StepKind::expert_forward:
    case StepKind::expert_dgrad:
    case StepKind::expert_wgrad: experts(s); break;
    case StepKind::partial_combine:
    case StepKind::combine: combine(s); break;
    case StepKind::weight_grad: weight_grad(s); break;
    case StepKind::route_backward: route_backward(s, step); break;
    case StepKind::copy: {
      const Span to = at(s.out[0]);
      c_.device.copy(s.lane, to.data, at(s.in[0]).data, to.bytes());
      break;
    }
    case StepKind::shared_forward:
    case StepKind::shared_dgrad:
    case StepKind::shared_wgrad: shared(s); break;
    case StepKind::add:
    case StepKind::mix:
    case StepKind::mix_backward: mix(s, step); break;
    case StepKind::convert: convert(s); break;
  }
  event = c_.device.record(s.lane);
}

void Executor::route(const Step& s, std::size_t step, StepTrace& trace) {
  const Span tokens = at(s.in[0]), ids = at(s.out[0]);
  std::byte* const room =
      state_.router ? nullptr : slot(m_.arenas.slots().of_scratch(false, step), c_.shape.experts + 1, sizeof(float));
  std::byte* const sums = c_.shape.router.losses() ? room : nullptr;
  if (state_.router)
    state_.router(s.lane, as<std::int32_t>(ids.data), as<float>(at(s.out[1]).data), tokens.rows);
  else
    c_.device.router(s.lane, {.tokens = tokens.data,
                              .weight = weights_.router,
                              .bias = weights_.selection_bias,
                              .logits = as<float>(at(s.out[2]).data),
                              .ids = as<std::int32_t>(ids.data),
                              .weights = as<float>(at(s.out[1]).data),
                              .loss_sums = as<float>(sums),
                              .rows = tokens.rows,
                              .hidden = c_.shape.hidden,
                              .experts = c_.shape.experts,
                              .k = c_.shape.top_k,
                              .renormalize = c_.shape.renormalize,
                              .options = c_.shape.router,
                              .dtype = c_.shape.dtype});
  std::vector<std::int32_t>& host = state_.ids;
  host.resize(static_cast<std::size_t>(tokens.rows * c_.shape.top_k));
  state_.ids_buffer = root_of(c_.schedule, s.out[0].buffer);
  read(s, host.data(), ids.data, ids.bytes());
  report_routing(s, tokens.rows, sums);
  if (settles(c_.shape, c_.placement)) {  // ids are of experts before, of copies from here on
    trace.dropped = settle(host, c_.shape, c_.placement, c_.groups.index_in(Role::ep, c_.rank), m_.used);
    c_.device.to_device(s.lane, ids.data, host.data(), ids.bytes());
  }
  state_.counts.set_routing(host, c_.shape.top_k);
}

// Those that this rank's router chose are on the host since; others' are read.
std::span<const std::int32_t> Executor::ids_on_host(const Step& s, const View& view) {
  const Span from = at(view);
  const std::size_t count = from.bytes() / sizeof(std::int32_t);
  if (root_of(c_.schedule, view.buffer) == state_.ids_buffer) {
    const auto first = static_cast<std::size_t>(from.data - memory_of(view.buffer)) / sizeof(std::int32_t);
    TOPOMOE_ASSERT(first + count <= state_.ids.size());
    return std::span(state_.ids).subspan(first, count);
  }
  m_.ids.resize(count);
  read(s, m_.ids.data(), from.data, from.bytes());
  return m_.ids;
}

void Executor::counts_exchange(const Step& s, StepTrace& trace) {
  const auto members = c_.groups.members(s.group, c_.rank);
  auto &sent = m_.sent, &received = m_.received;
  sent.resize(std::max(sent.size(), members.size()));
  received.resize(sent.size());
  m_.sends.clear();
  m_.receives.clear();
  for (std::size_t i = 0; i < members.size(); ++i) {
    const int peer = members[i];
    if (peer == c_.rank) continue;
    std::size_t expected = 0;
    sent[i].clear();
    for (const CountSlice& slice : s.slices) {
      state_.counts.read(slice, c_.rank, peer, sent[i]);
      expected += state_.counts.size_of(slice, peer, c_.rank);
    }
    received[i].resize(expected);
    m_.sends.push_back({static_cast<int>(i), sent[i].data(), sent[i].size() * sizeof(std::int32_t)});
    m_.receives.push_back({static_cast<int>(i), received[i].data(), expected * sizeof(std::int32_t)});
    trace.metadata_bytes += static_cast<double>(m_.sends.back().bytes);
  }
  // Everything after this is sized by it, so the host waits here.
  c_.communicator
      .exchange(c_.channels.of(s.group), m_.sends, m_.receives, {.step = s.name, .lane = s.lane, .metadata = true})
      ->wait(deadline());
  for (std::size_t i = 0; i < members.size(); ++i) {
    std::span<const std::int32_t> rest = received[i];
    if (members[i] == c_.rank) continue;
    for (const CountSlice& slice : s.slices) rest = rest.subspan(state_.counts.write(slice, members[i], c_.rank, rest));
  }
}

void Executor::index(const Step& s) {
  const IndexMap& map = c_.schedule.maps[static_cast<std::size_t>(s.map)];
  std::span<const std::int32_t> ids;
  if (map.ids.buffer >= 0) ids = ids_on_host(s, map.ids);
  HostMap& host = state_.maps[static_cast<std::size_t>(s.map)];
  m_.maps.build(host, map, state_.counts, state_.offsets, ids, c_.shape.top_k);
  for (const auto& [part, rows] : {std::pair{Slots::position, &host.position},
                                   {Slots::source_row, &host.source_row},
                                   {Slots::source_factor, &host.source_factor}})
    c_.device.to_device(s.lane, map_part(s.map, part, *rows), rows->data(), rows->size() * sizeof(std::int32_t));
}

void Executor::pack(const Step& s, std::size_t step) {
  const Span in = at(s.in[0]), out = at(s.out[0]);
  const HostMap& map = state_.maps[static_cast<std::size_t>(s.map)];
  const Buffer& b = buffer(s.out[0]);
  std::byte* factors = nullptr;
  if (s.weights.buffer >= 0) {
    factors = slot(m_.arenas.slots().of_scratch(backward_, step), out.rows, sizeof(float));
    c_.device.gather_rows(s.lane, {.out = factors,
                                   .in = at(s.weights).data,
                                   .source_row = map_part(s.map, Slots::source_factor, map.source_factor),
                                   .rows = out.rows,
                                   .columns = 1,
                                   .dtype = DType::f32});
  }
  c_.device.gather_rows(s.lane, {.out = out.data,
                                 .in = in.data,
                                 .source_row = map_part(s.map, Slots::source_row, map.source_row),
                                 .scale = as<float>(factors),
                                 .rows = out.rows,
                                 .columns = columns(b),
                                 .dtype = dtype(b)});
}

void Executor::repack(const Step& s) {
  const Span in = at(s.in[0]), out = at(s.out[0]);
  const HostMap& map = state_.maps[static_cast<std::size_t>(s.map)];
  c_.device.gather_rows(s.lane, {.out = out.data,
                                 .in = in.data,
                                 .source_row = s.transpose ? map_part(s.map, Slots::position, map.position)
                                                           : map_part(s.map, Slots::source_row, map.source_row),
                                 .rows = out.rows,
                                 .columns = columns(buffer(s.out[0])),
                                 .dtype = dtype(buffer(s.out[0]))});
}

void Executor::convert(const Step& s) {
  const Span in = at(s.in[0]), out = at(s.out[0]);
  const std::int64_t hidden = c_.shape.hidden, scales_at = fp8_scales_at(hidden);
  if (buffer(s.out[0]).element == Element::fp8)
    c_.device.to_fp8(s.lane, {.out = as<std::uint8_t>(out.data),
                              .scales = as<float>(out.data + scales_at),
                              .in = in.data,
                              .rows = out.rows,
                              .columns = hidden,
                              .row_bytes = static_cast<std::int64_t>(out.row_bytes),
                              .dtype = c_.shape.dtype});
  else
    c_.device.from_fp8(s.lane, {.out = out.data,
                                .in = as<std::uint8_t>(in.data),
                                .scales = as<float>(in.data + scales_at),
                                .rows = out.rows,
                                .columns = hidden,
                                .row_bytes = static_cast<std::int64_t>(in.row_bytes),
                                .dtype = c_.shape.dtype});
}

EventPtr Executor::exchange(const Step& s, StepTrace& trace) {
  const auto members = c_.groups.members(s.group, c_.rank);
  m_.sends.clear();
  m_.receives.clear();
  for (std::size_t i = 0; i < members.size(); ++i) {
    const Span out = at(s.in[0], members[i]), in = at(s.out[0], members[i]);
    if (members[i] == c_.rank) {
      TOPOMOE_ASSERT(in.bytes() == out.bytes());
      if (in.data != out.data && in.bytes() > 0) c_.device.copy(s.lane, in.data, out.data, in.bytes());
      continue;
    }
    m_.sends.push_back({static_cast<int>(i), out.data, out.bytes()});
    m_.receives.push_back({static_cast<int>(i), in.data, in.bytes()});
    (s.metadata ? trace.metadata_bytes : trace.payload_bytes) += static_cast<double>(out.bytes());
  }
  return c_.communicator.exchange(
      c_.channels.of(s.group), m_.sends, m_.receives,
      {.step = s.name, .lane = s.lane, .metadata = s.metadata, .memory = c_.device.memory_space()});
}

void Executor::ordered_sum(const Step& s) {
  const Span out = at(s.out[0]);
  c_.device.ordered_sum(s.lane, {.out = out.data,
                                 .in = at(s.in[0]).data,
                                 .rows = out.rows,
                                 .columns = columns(buffer(s.out[0])),
                                 .blocks = c_.groups.size(s.group),
                                 .dtype = dtype(buffer(s.out[0]))});
}

std::span<const std::int64_t> Executor::expert_offsets(const View& rows) {
  std::vector<std::int64_t>& offsets = m_.expert_offsets;
  offsets.assign(c_.placement.held_by(c_.groups.index_in(Role::ep, c_.rank)).size() + 1, 0);
  const Chunks chunks = rows.chunks.value_or(buffer(rows).chunks);
  const auto& segments = m_.rows.segments(rows.buffer);
  const auto& starts = state_.offsets.offsets(m_.rows, state_.counts, rows.buffer);
  for (std::size_t i = 0; i < segments.size(); ++i)
    if (chunks.begin <= segments[i].chunk && segments[i].chunk < chunks.end)
      offsets[static_cast<std::size_t>(c_.placement.index_at_place(segments[i].expert)) + 1] +=
          static_cast<std::int64_t>(starts[i + 1] - starts[i]);
  for (std::size_t e = 1; e < offsets.size(); ++e) offsets[e] += offsets[e - 1];
  return offsets;
}

void Executor::experts(const Step& s) {
  Ffn f{.offsets = expert_offsets(s.in[0]),
        .width = c_.shape.ffn / c_.groups.layout().etp,
        .gate = weights_.gate,
        .up = weights_.up,
        .down = weights_.down,
        .packed = c_.packed != nullptr ? c_.packed->experts.get() : nullptr,
        .scale = s.shared_by_tp ? 1.0F / static_cast<float>(c_.groups.layout().tp) : 1.0F};
  if (gradients_ != nullptr) f.gate_grad = gradients_->gate, f.up_grad = gradients_->up, f.down_grad = gradients_->down;
  ffn(s, f);
}

// Views of a step in the order of its kind, whichever experts it is of.
void Executor::ffn(const Step& s, const Ffn& f) {
  auto &in = m_.in, &out = m_.out;
  in.clear();
  out.clear();
  for (const View& v : s.in) in.push_back(at(v).data);
  for (const View& v : s.out) out.push_back(at(v).data);
  const kernels::Activation activation = activation_of(c_.shape);
  if (s.kind == StepKind::expert_forward || s.kind == StepKind::shared_forward) {
    c_.device.grouped_ffn(s.lane, {.in = in[0],
                                   .out = out[0],
                                   .gate = out[1],
                                   .up = out[2],
                                   .act = out[3],
                                   .w_gate = f.gate,
                                   .w_up = f.up,
                                   .w_down = f.down,
                                   .packed = f.packed,
                                   .offsets = f.offsets,
                                   .hidden = c_.shape.hidden,
                                   .ffn = f.width,
                                   .dtype = c_.shape.dtype,
                                   .activation = activation});
  } else if (s.kind == StepKind::expert_dgrad || s.kind == StepKind::shared_dgrad) {
    c_.device.grouped_ffn_dgrad(s.lane, {.out_grad = in[0],
                                         .in_grad = out[0],
                                         .gate = in[1],
                                         .up = in[2],
                                         .gate_grad = out[2],
                                         .up_grad = out[3],
                                         .act = out[1],
                                         .w_gate = f.gate,
                                         .w_up = f.up,
                                         .w_down = f.down,
                                         .offsets = f.offsets,
                                         .hidden = c_.shape.hidden,
                                         .ffn = f.width,
                                         .dtype = c_.shape.dtype,
                                         .activation = activation});
  } else if (f.up_grad) {
    c_.device.grouped_ffn_wgrad(s.lane, {.in = in[0],
                                         .out_grad = in[1],
                                         .act = in[2],
                                         .gate_grad = in[3],
                                         .up_grad = in[4],
                                         .w_gate_grad = f.gate_grad,
                                         .w_up_grad = f.up_grad,
                                         .w_down_grad = f.down_grad,
                                         .scale = f.scale,
                                         .offsets = f.offsets,
                                         .hidden = c_.shape.hidden,
                                         .ffn = f.width,
                                         .dtype = c_.shape.dtype,
                                         .activation = activation});
  }
}

void Executor::combine(const Step& s) {
  const Span in = at(s.in[0]), out = at(s.out[0]);
  const HostMap& map = state_.maps[static_cast<std::size_t>(s.map)];
  const float* weight = s.weights.buffer >= 0 ? as<float>(at(s.weights).data) : nullptr;
  c_.device.sum_rows(s.lane, {.out = out.data,
                              .in = in.data,
                              .position = map_part(s.map, Slots::position, map.position),
                              .weight = weight,
                              .rows = out.rows,
                              .columns = columns(buffer(s.out[0])),
                              .k = map.slots,
                              .dtype = dtype(buffer(s.out[0]))});
}

void Executor::weight_grad(const Step& s) {
  const Span a = at(s.in[0]), b = at(s.in[1]), out = at(s.out[0]);
  const HostMap& map = state_.maps[static_cast<std::size_t>(s.map)];
  c_.device.row_dots(s.lane, {.out = as<float>(out.data),
                              .a = a.data,
                              .b = b.data,
                              .position = map_part(s.map, Slots::position, map.position),
                              .rows = out.rows,
                              .columns = c_.shape.hidden,
                              .k = map.slots,
                              .dtype = c_.shape.dtype});
}

void Executor::route_backward(const Step& s, std::size_t step) {
  const Span tokens = at(s.in[0]);
  const bool settled = settles(c_.shape, c_.placement);
  const std::int64_t logits = tokens.rows * c_.shape.experts, choices = tokens.rows * c_.shape.top_k;
  std::byte* const scratch =
      slot(m_.arenas.slots().of_scratch(true, step), logits + c_.shape.experts + choices, sizeof(float));
  float* const score_grads = as<float>(scratch) + logits;
  const bool balances = c_.shape.router.balance_loss != 0;
  if (balances)
    c_.device.to_device(s.lane, score_grads, state_.score_grads.data(), state_.score_grads.size() * sizeof(float));
  const std::int32_t* ids = as<std::int32_t>(at(s.in[2]).data);
  if (settled) {
    TOPOMOE_ASSERT(state_.ids.size() == static_cast<std::size_t>(choices));
    m_.ids = state_.ids;
    unsettle(m_.ids, c_.placement);
    std::int32_t* const chosen = as<std::int32_t>(scratch) + logits + c_.shape.experts;
    c_.device.to_device(s.lane, chosen, m_.ids.data(), m_.ids.size() * sizeof(std::int32_t));
    ids = chosen;
  }
  c_.device.router_backward(
      s.lane, {.tokens = tokens.data,
               .weight = weights_.router,
               .logits = as<float>(at(s.in[3]).data),
               .ids = ids,
               .weight_grads = as<float>(at(s.in[1]).data),
               .score_grads = balances ? score_grads : nullptr,
               .z_grad = state_.z_grad,
               .logit_grads = as<float>(scratch),
               .token_grads = at(s.out[0]).data,
               .weight_grad = gradients_ ? gradients_->router : nullptr,
               .weight_grad_scale = s.shared_by_tp ? 1.0F / static_cast<float>(c_.groups.layout().tp) : 1.0F,
               .rows = tokens.rows,
               .hidden = c_.shape.hidden,
               .experts = c_.shape.experts,
               .k = c_.shape.top_k,
               .renormalize = c_.shape.renormalize,
               .options = c_.shape.router,
               .dtype = c_.shape.dtype});
}

}  // namespace topomoe
