// topomoe.h: checks what C cannot, and turns exceptions into a status and a line of text.
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "planner/plan/schedule_part.hpp"
#include "runtime/c_api.hpp"
#include "topomoe/error.hpp"
#include "topomoe/moe_layer.hpp"
#include "topomoe/plan.hpp"
#include "topomoe/topomoe.h"

namespace topomoe::c_api {
namespace {

// Room for one line: an error must be told even where there is no memory left.
thread_local char last_error[1024] = "";

}  // namespace

topomoe_status failed(topomoe_status status, const char* why) noexcept {
  std::snprintf(last_error, sizeof last_error, "%s", why);
  return status;
}

const topomoe::Schedule& schedule_of(const topomoe::Plan& plan, int kind) {
  const int kinds = topomoe::moe_kind_count(plan.model);
  if (kind < 0 || kind >= kinds)
    throw InvalidInput("kind", std::to_string(kind), "the plan has kinds 0 to " + std::to_string(kinds - 1));
  return kind == 0 ? plan.schedule : plan.later_kinds[static_cast<std::size_t>(kind) - 1].schedule;
}

topomoe::LayerShape shape_of(const topomoe::Plan& plan, int kind) {
  const topomoe::MoeKind k = topomoe::moe_kind(plan.model, kind);
  const topomoe::ExpertOwners& owners =
      kind == 0 ? plan.expert_owners : plan.later_kinds[static_cast<std::size_t>(kind) - 1].expert_owners;
  return {plan.model.hidden,      k.expert_ffn,   k.experts, k.top_k,
          plan.model.renormalize, plan.job.dtype, owners,    plan.job.capacity_factor};
}

void require_rows(const void* tensor, std::int64_t rows, const char* name) {
  if (tensor == nullptr && rows > 0) throw InvalidInput(name, "null", "it has " + std::to_string(rows) + " rows");
}

topomoe_layer_config config_from(const topomoe_layer_config* given) {
  static constexpr topomoe_layer_config kAsPlanned = TOPOMOE_LAYER_CONFIG_INIT;
  const topomoe_layer_config c = read_struct(given != nullptr ? *given : kAsPlanned, "config");
  if (c.hidden < 0) throw InvalidInput("config.hidden", std::to_string(c.hidden), "at least 1, or 0 as planned");
  if (c.ffn < 0) throw InvalidInput("config.ffn", std::to_string(c.ffn), "at least 1, or 0 as planned");
  if (c.dtype < -1 || c.dtype > TOPOMOE_BF16)
    throw InvalidInput("config.dtype", std::to_string(c.dtype), "TOPOMOE_F32, TOPOMOE_BF16, or -1 as planned");
  if (c.deadline_ms < 0) throw InvalidInput("config.deadline_ms", std::to_string(c.deadline_ms), "at least 1, or 0");
  return c;
}

topomoe::LayerShape shape_of(const topomoe::Plan& plan, const topomoe_layer_config& c) {
  topomoe::LayerShape shape = shape_of(plan, c.kind);
  if (c.hidden > 0) shape.hidden = c.hidden;
  if (c.ffn > 0) shape.ffn = c.ffn;
  if (c.dtype >= 0) shape.dtype = c.dtype == TOPOMOE_F32 ? topomoe::DType::f32 : topomoe::DType::bf16;
  return shape;
}

void wait_for(const EventPtr& done, std::chrono::milliseconds deadline) {
  if (done) done->wait(std::chrono::steady_clock::now() + deadline);
}

std::chrono::milliseconds deadline_of(const topomoe_layer_config& c) {
  return std::chrono::milliseconds(c.deadline_ms > 0 ? c.deadline_ms : 30000);
}

}  // namespace topomoe::c_api

using namespace topomoe::c_api;

using topomoe::InvalidInput;

namespace {

// What the planned layer does beyond softmax routing to SwiGLU experts, each at one place.
std::string unlike(const topomoe::Plan& plan, int kind) {
  if (topomoe::moe_kind(plan.model, kind).shared_ffn > 0) return "shared experts";
  if (plan.model.scoring == topomoe::Scoring::sigmoid) return "sigmoid scoring";
  if (plan.model.router_groups > 1) return "group-limited routing";
  if (!plan.model.gated_ffn) return "experts without a gate";
  if (plan.model.routed_scaling != 1) return "a scaling factor on the routed experts' weights";
  const topomoe::LayerShape shape = shape_of(plan, kind);
  if (topomoe::ExpertPlacement(shape.experts, plan.layout.ep, shape.expert_owners).replicated())
    return "replicated experts, whose gradients C cannot sum";
  return {};
}

topomoe::LayerWeights weights_from(const topomoe_weights* given) {
  const topomoe_weights w = read_struct(require(given, "weights"), "weights");
  require(w.router, "weights.router");
  for (const auto& [pointer, name] :
       {std::pair{w.gate, "weights.gate"}, {w.up, "weights.up"}, {w.down, "weights.down"}})
    if (pointer == nullptr) throw InvalidInput(name, "null", "every rank holds experts");
  return {w.router, w.gate, w.up, w.down};
}

void read_plan_text(const std::string& text, const std::string& name, topomoe_plan** plan) {
  *plan = new topomoe_plan{topomoe::read_plan(text, name)};
}

}  // namespace

const char* topomoe_last_error(void) { return last_error; }
const char* topomoe_version(void) { return TOPOMOE_LIBRARY_VERSION; }
uint32_t topomoe_abi_version(void) { return TOPOMOE_ABI_VERSION; }

const char* topomoe_status_name(topomoe_status status) {
  switch (status) {
    case TOPOMOE_OK: return "ok";
    case TOPOMOE_INVALID_INPUT: return "invalid input";
    case TOPOMOE_MISSING_ENVIRONMENT: return "missing environment";
    case TOPOMOE_TRANSPORT_ERROR: return "transport error";
    case TOPOMOE_INTERNAL_ERROR: return "internal error";
  }
  return "unknown status";
}

topomoe_status topomoe_plan_read(const char* text, size_t bytes, const char* name, topomoe_plan** plan) {
  return guarded([&] {
    require(plan, "plan") = nullptr;
    read_plan_text({&require(text, "text"), bytes}, name != nullptr ? name : "plan", plan);
  });
}

topomoe_status topomoe_plan_read_file(const char* path, topomoe_plan** plan) {
  return guarded([&] {
    require(plan, "plan") = nullptr;
    std::ifstream in(&require(path, "path"), std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    if (!in) throw InvalidInput(path, std::strerror(errno), "a plan.json that can be read is needed");
    read_plan_text(text, path, plan);
  });
}

void topomoe_plan_free(topomoe_plan* plan) { delete plan; }

topomoe_status topomoe_plan_hash(const topomoe_plan* plan, char hash[17]) {
  return guarded([&] {
    const std::string text = topomoe::plan_hash(require(plan, "plan").value);
    TOPOMOE_ASSERT(text.size() == 16);
    std::memcpy(&require(hash, "hash"), text.c_str(), 17);
  });
}

topomoe_status topomoe_plan_get_info(const topomoe_plan* plan, int32_t kind, topomoe_plan_info* info) {
  return guarded([&] {
    const topomoe::Plan& p = require(plan, "plan").value;
    const topomoe_plan_info given = read_struct(require(info, "info"), "info");
    schedule_of(p, kind);
    const topomoe::LayerShape s = shape_of(p, kind);
    const topomoe::Layout& l = p.layout;
    topomoe_plan_info out{};
    out.size = given.size, out.version = given.version;
    out.kinds = topomoe::moe_kind_count(p.model);
    out.world = l.world, out.tp = l.tp, out.ep = l.ep, out.etp = l.etp;
    out.gpus_per_node = p.topology.gpus_per_node;
    out.sequence_parallel = l.sequence_parallel ? 1 : 0;
    out.experts = s.experts, out.top_k = s.top_k, out.renormalize = s.renormalize ? 1 : 0;
    out.hidden = s.hidden, out.ffn = s.ffn;
    out.dtype = s.dtype == topomoe::DType::f32 ? TOPOMOE_F32 : TOPOMOE_BF16;
    out.tokens_per_tp_group = p.tokens_per_rank;
    *info = out;
  });
}

topomoe_status topomoe_layer_create(const topomoe_plan* plan, topomoe_communicator* communicator,
                                    topomoe_device* device, const topomoe_layer_config* config, topomoe_layer** layer) {
  return guarded([&] {
    require(layer, "layer") = nullptr;
    const topomoe::Plan& p = require(plan, "plan").value;
    const auto& ranks = require(communicator, "communicator").value;
    const auto& on = require(device, "device").value;
    const topomoe_layer_config c = config_from(config);
    const topomoe::Schedule& schedule = schedule_of(p, c.kind);
    const std::string more = unlike(p, c.kind);
    if (!more.empty() && c.accept_unlike == 0)
      throw InvalidInput("plan", p.model.name + " has " + more,
                         "they are not executed; config.accept_unlike = 1 runs the layer without");
    topomoe::MoeLayer value(topomoe::without_shared(schedule), p.layout, p.topology.gpus_per_node, shape_of(p, c),
                            *ranks, *on, deadline_of(c));
    *layer = new topomoe_layer{std::make_shared<Layer>(Layer{ranks, on, std::move(value), {}, deadline_of(c)})};
    (*layer)->value->shape = shape_of(p, c);
  });
}

void topomoe_layer_free(topomoe_layer* layer) { delete layer; }

topomoe_status topomoe_forward(topomoe_layer* layer, const void* tokens, int64_t rows, void* output,
                               const topomoe_weights* weights, topomoe_handle** handle) {
  return guarded([&] {
    if (handle != nullptr) *handle = nullptr;
    const auto& l = require(layer, "layer").value;
    const topomoe::LayerWeights w = weights_from(weights);
    require_rows(tokens, rows, "tokens");
    require_rows(output, rows, "output");
    topomoe::MoeLayer::Handle value = l->value.forward(tokens, rows, output, w);
    wait_for(value.done(), l->deadline);
    if (handle != nullptr) *handle = new topomoe_handle{l, rows, std::move(value)};
  });
}

topomoe_status topomoe_backward(topomoe_layer* layer, topomoe_handle* handle, const void* output_gradients,
                                void* token_gradients, const topomoe_weights* weights,
                                const topomoe_gradients* gradients) {
  return guarded([&] {
    const auto& l = require(layer, "layer").value;
    topomoe_handle& h = require(handle, "handle");
    if (h.layer != l) throw InvalidInput("handle", "of another layer", "pass the layer whose forward gave it");
    const topomoe::LayerWeights w = weights_from(weights);
    const topomoe_gradients g = read_struct(require(gradients, "gradients"), "gradients");
    if ((g.gate == nullptr) != (g.up == nullptr) || (g.gate == nullptr) != (g.down == nullptr))
      throw InvalidInput("gradients", "some of gate, up and down are null", "all three or none");
    require_rows(output_gradients, h.rows, "output_gradients");
    require_rows(token_gradients, h.rows, "token_gradients");
    l->value.backward(h.value, output_gradients, token_gradients, w, {g.router, g.gate, g.up, g.down});
    wait_for(h.value.done(), l->deadline);
  });
}

void topomoe_handle_free(topomoe_handle* handle) { delete handle; }
