// topomoe.h: the whole layer. Checks what C cannot, and hands the rest to MoeLayer.
#include <string>
#include <utility>

#include "runtime/c_api.hpp"

namespace topomoe::c_api {

void require_rows(const void* tensor, std::int64_t rows, const char* name) {
  if (tensor == nullptr && rows > 0) throw InvalidInput(name, "null", "it has " + std::to_string(rows) + " rows");
}

topomoe_layer_config config_from(const topomoe_layer_config* given) {
  const topomoe_layer_config c = read_struct(given != nullptr ? *given : Abi<topomoe_layer_config>::init, "config");
  for (const auto& [value, name] :
       {std::pair{c.hidden, "config.hidden"}, {c.ffn, "config.ffn"}, {c.shared_ffn, "config.shared_ffn"}})
    if (value < 0) throw InvalidInput(name, std::to_string(value), "at least 1, or 0 as planned");
  if (c.dtype < -1 || c.dtype > TOPOMOE_BF16)
    throw InvalidInput("config.dtype", std::to_string(c.dtype), "TOPOMOE_F32, TOPOMOE_BF16, or -1 as planned");
  if (c.deadline_ms < 0) throw InvalidInput("config.deadline_ms", std::to_string(c.deadline_ms), "at least 1, or 0");
  return c;
}

LayerShape shape_of(const Plan& plan, const topomoe_layer_config& c) {
  LayerShape shape = layer_shape_of(plan, c.kind);
  if (c.hidden > 0) shape.hidden = c.hidden;
  if (c.ffn > 0) shape.ffn = c.ffn;
  if (c.dtype >= 0) shape.dtype = c.dtype == TOPOMOE_F32 ? DType::f32 : DType::bf16;
  if (c.shared_ffn > 0) {
    if (shape.shared_ffn == 0)
      throw InvalidInput("config.shared_ffn", std::to_string(c.shared_ffn), "0: the plan has no shared expert");
    shape.shared_ffn = c.shared_ffn;
  }
  shape.router.balance_loss = static_cast<float>(c.balance_loss), shape.router.z_loss = static_cast<float>(c.z_loss);
  return shape;
}

std::chrono::milliseconds deadline_of(const topomoe_layer_config& c) {
  return std::chrono::milliseconds(c.deadline_ms > 0 ? c.deadline_ms : 30000);
}

LayerOptions options_of(const Plan& plan, const topomoe_layer_config& c) {
  if (c.memory_tokens == 0) {
    if (c.memory_skew != 0)
      throw InvalidInput("config.memory_skew", std::to_string(c.memory_skew), "0 where memory_tokens is: no bound");
    return {};
  }
  if (!(c.memory_tokens > 0) && c.memory_tokens != -1)
    throw InvalidInput("config.memory_tokens", std::to_string(c.memory_tokens), "above 0, 0 or -1");
  if (!(c.memory_skew >= 1) && c.memory_skew != 0)
    throw InvalidInput("config.memory_skew", std::to_string(c.memory_skew), "1 or more, or 0 as planned");
  const LayerOptions planned = layer_options_of(plan, c.kind);
  return {c.memory_tokens == -1 ? planned.tokens : c.memory_tokens, c.memory_skew == 0 ? planned.skew : c.memory_skew};
}

namespace {

// One block, or a pointer an expert.
template <class View, class Block, class Each>
View view_of(Block* block, Each each, std::size_t experts, const std::string& name) {
  if (each == nullptr) return View(block);
  if (block != nullptr) throw InvalidInput(name, "given twice", "one block, or a pointer an expert");
  for (std::size_t e = 0; e < experts; ++e)
    if (each[e] == nullptr)
      throw InvalidInput(name + "s[" + std::to_string(e) + "]", "null",
                         "a pointer for each of the " + std::to_string(experts) + " local experts");
  return View::one_by_one(each);
}

// What would be ignored: the caller means another layer.
void require_none(const LayerShape& shape, bool shared, bool mix, const std::string& name) {
  if (shared && shape.shared_ffn == 0)
    throw InvalidInput(name + ".shared_gate, shared_up, shared_down", "given", "the plan has no shared expert");
  if (mix && shape.shared_gate == SharedGate::none)
    throw InvalidInput(name + ".mix", "given", "the plan has no shared expert with a gate");
}

LayerWeights weights_from(const Layer& layer, const topomoe_weights* given) {
  const topomoe_weights w = read_struct(require(given, "weights"), "weights");
  require(w.router, "weights.router");
  const std::size_t experts = layer.local_experts;
  const LayerWeights out{w.router,
                         view_of<ExpertMatrices>(w.gate, w.gates, experts, "weights.gate"),
                         view_of<ExpertMatrices>(w.up, w.ups, experts, "weights.up"),
                         view_of<ExpertMatrices>(w.down, w.downs, experts, "weights.down"),
                         w.selection_bias,
                         w.shared_gate,
                         w.shared_up,
                         w.shared_down,
                         w.mix};
  for (const auto& [view, name] :
       {std::pair{&out.gate, "weights.gate"}, {&out.up, "weights.up"}, {&out.down, "weights.down"}})
    if (experts > 0 && !*view)
      throw InvalidInput(name, "null", "the rank holds " + std::to_string(experts) + " experts");
  require_none(layer.shape, w.shared_gate != nullptr || w.shared_up != nullptr || w.shared_down != nullptr,
               w.mix != nullptr, "weights");
  return out;
}

LayerGradients gradients_from(const Layer& layer, const topomoe_gradients* given) {
  const topomoe_gradients g = read_struct(require(given, "gradients"), "gradients");
  const std::size_t experts = layer.local_experts;
  const LayerGradients out{g.router,
                           view_of<ExpertGradients>(g.gate, g.gates, experts, "gradients.gate"),
                           view_of<ExpertGradients>(g.up, g.ups, experts, "gradients.up"),
                           view_of<ExpertGradients>(g.down, g.downs, experts, "gradients.down"),
                           g.shared_gate,
                           g.shared_up,
                           g.shared_down,
                           g.mix};
  const auto all_or_none = [](bool a, bool b, bool c, const char* which) {
    if (a != b || a != c)
      throw InvalidInput("gradients", std::string("some of ") + which + " are null", "all three or none");
  };
  all_or_none(!out.gate, !out.up, !out.down, "gate, up and down");
  all_or_none(g.shared_gate == nullptr, g.shared_up == nullptr, g.shared_down == nullptr,
              "shared_gate, shared_up and shared_down");
  require_none(layer.shape, g.shared_gate != nullptr, g.mix != nullptr, "gradients");
  return out;
}

}  // namespace
}  // namespace topomoe::c_api

using namespace topomoe::c_api;
using topomoe::InvalidInput;

topomoe_status topomoe_layer_create(const topomoe_plan* plan, topomoe_communicator* communicator,
                                    topomoe_device* device, const topomoe_layer_config* config, topomoe_layer** layer) {
  return guarded([&] {
    require(layer, "layer") = nullptr;
    const topomoe::Plan& p = require(plan, "plan").value;
    const auto& ranks = require(communicator, "communicator").value;
    const auto& on = require(device, "device").value;
    const topomoe_layer_config c = config_from(config);
    const topomoe::LayerShape shape = shape_of(p, c);
    const std::string lacking = topomoe::not_executed(p, c.kind);
    if (!lacking.empty() && c.accept_unlike == 0)
      throw InvalidInput("plan", p.model.name + " has " + lacking,
                         "only SwiGLU experts are executed; config.accept_unlike = 1 puts them in their place");
    topomoe::MoeLayer value(topomoe::schedule_of(p, c.kind), p.layout, p.topology.gpus_per_node, shape, *ranks, *on,
                            deadline_of(c), options_of(p, c));
    *layer = new topomoe_layer{std::make_shared<Layer>(Layer{ranks,
                                                             on,
                                                             std::move(value),
                                                             shape,
                                                             topomoe::held_experts(p, ranks->rank(), c.kind).size(),
                                                             {*on, deadline_of(c)}})};
  });
}

void topomoe_layer_free(topomoe_layer* layer) { delete layer; }

topomoe_status topomoe_layer_set_stream(topomoe_layer* layer, void* stream) {
  return guarded([&] { require(layer, "layer").value->stream.set(stream); });
}

topomoe_status topomoe_layer_set_keep(topomoe_layer* layer, int32_t keep) {
  return guarded([&] {
    Layer& l = *require(layer, "layer").value;
    if (keep != TOPOMOE_KEEP_ALL && keep != TOPOMOE_KEEP_ROUTING)
      throw InvalidInput("keep", std::to_string(keep), "TOPOMOE_KEEP_ALL or TOPOMOE_KEEP_ROUTING");
    l.keep = keep == TOPOMOE_KEEP_ALL ? topomoe::MoeLayer::Keep::all : topomoe::MoeLayer::Keep::routing;
  });
}

topomoe_status topomoe_layer_overflow_rounds(const topomoe_layer* layer, int64_t* rounds) {
  return guarded([&] { require(rounds, "rounds") = require(layer, "layer").value->value.counters().overflow_rounds; });
}

topomoe_status topomoe_forward(topomoe_layer* layer, const void* tokens, int64_t rows, void* output,
                               const topomoe_weights* weights, topomoe_handle** handle) {
  return guarded([&] {
    if (handle != nullptr) *handle = nullptr;
    const auto& l = require(layer, "layer").value;
    const topomoe::LayerWeights w = weights_from(*l, weights);
    require_rows(tokens, rows, "tokens");
    require_rows(output, rows, "output");
    topomoe::MoeLayer::Handle value = l->value.forward(tokens, rows, output, w, l->stream.ready(), l->keep);
    l->stream.finish(value.done());
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
    const topomoe::LayerWeights w = weights_from(*l, weights);
    const topomoe::LayerGradients g = gradients_from(*l, gradients);
    require_rows(output_gradients, h.rows, "output_gradients");
    require_rows(token_gradients, h.rows, "token_gradients");
    l->value.backward(h.value, output_gradients, token_gradients, w, g, l->stream.ready());
    l->stream.finish(h.value.done());
  });
}

topomoe_status topomoe_sum_over_replicas(topomoe_layer* layer, const topomoe_gradients* gradients) {
  return guarded([&] {
    const auto& l = require(layer, "layer").value;
    const topomoe::LayerGradients g = gradients_from(*l, gradients);
    l->device->wait(topomoe::Lane::compute, l->stream.ready(), l->stream.end());
    l->value.sum_over_replicas(g);
  });
}

void topomoe_handle_free(topomoe_handle* handle) { delete handle; }

topomoe_status topomoe_handle_wait(topomoe_handle* handle) {
  return guarded([&] {
    const topomoe_handle& h = require(handle, "handle");
    h.layer->stream.wait_for(h.value.done());
  });
}

topomoe_status topomoe_handle_event(const topomoe_handle* handle, void** event) {
  return guarded([&] {
    const topomoe::EventPtr& done = require(handle, "handle").value.done();
    require(event, "event") = done ? done->native_event() : nullptr;
  });
}

topomoe_status topomoe_handle_saved_bytes(const topomoe_handle* handle, size_t* bytes) {
  return guarded([&] { require(bytes, "bytes") = require(handle, "handle").value.saved_bytes(); });
}

topomoe_status topomoe_handle_router(const topomoe_handle* handle, topomoe_router_report* report) {
  return guarded([&] {
    const topomoe::RouterReport& r = require(handle, "handle").value.router();
    read_struct(require(report, "report"), "report");
    topomoe_router_report out = TOPOMOE_ROUTER_REPORT_INIT;
    out.experts = static_cast<int32_t>(r.chosen.size()), out.chosen = r.chosen.data();
    out.balance_loss = r.balance_loss, out.z_loss = r.z_loss;
    write_struct(*report, out);
  });
}
