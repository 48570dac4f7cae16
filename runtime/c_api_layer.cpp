// topomoe.h: the whole layer. Checks what C cannot, and hands the rest to AdaptiveLayer.
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

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

// The plan, and those that the config names beside it: of one layer.
std::vector<std::shared_ptr<const Plan>> plans_from(const topomoe_plan& first, const topomoe_layer_config& c) {
  std::vector<std::shared_ptr<const Plan>> plans{first.value};
  if (c.other_count < 0) throw InvalidInput("config.other_count", std::to_string(c.other_count), "0 or more");
  if (c.other_count > 0) require(c.others, "config.others");
  const LayerShape shape = layer_shape_of(*first.value, c.kind);
  for (int i = 0; i < c.other_count; ++i) {
    const std::string field = "config.others[" + std::to_string(i) + "]";
    const auto& other = require(c.others[i], field.c_str()).value;
    const auto refuse_unless = [&](bool alike, const std::string& what) {
      if (!alike) throw InvalidInput(field, what, "plans of one layer differ in its schedule alone");
    };
    refuse_unless(other->layout == first.value->layout && other->ranks.size() == first.value->ranks.size(),
                  "another layout, " + name(other->layout));
    refuse_unless(other->topology.gpus_per_node == first.value->topology.gpus_per_node,
                  std::to_string(other->topology.gpus_per_node) + " GPUs a node");
    refuse_unless(c.kind < moe_kind_count(other->model) && layer_shape_of(*other, c.kind) == shape,
                  "a layer of other sizes, placement or router");
    plans.push_back(other);
  }
  return plans;
}

// The pass that a call has just issued, to its end.
void keep_trace(Layer& layer, int schedule) {
  if (!layer.traced) return;
  layer.passes.push_back(
      {layer.plans[static_cast<std::size_t>(schedule)].get(), layer.kind, layer.value.by(schedule).last_trace()});
}

}  // namespace
}  // namespace topomoe::c_api

using namespace topomoe::c_api;
using topomoe::InvalidInput;

topomoe_status topomoe_layer_create(const topomoe_plan* plan, topomoe_communicator* communicator,
                                    topomoe_device* device, const topomoe_layer_config* config, topomoe_layer** layer) {
  return guarded([&] {
    require(layer, "layer") = nullptr;
    const topomoe::Plan& p = *require(plan, "plan").value;
    const auto& ranks = require(communicator, "communicator").value;
    const auto& on = require(device, "device").value;
    const topomoe_layer_config c = config_from(config);
    const topomoe::LayerShape shape = shape_of(p, c);
    if (!shape.gated && c.accept_unlike == 0)
      throw InvalidInput("plan", p.model.name + " has experts without a gate",
                         "a plan does not say what their activation is; config.accept_unlike = 1 takes GELU");
    auto plans = plans_from(*plan, c);
    std::vector<topomoe::Schedule> schedules;
    for (const auto& of : plans) schedules.push_back(topomoe::schedule_of(*of, c.kind));
    topomoe::AdaptiveLayer value(std::move(schedules), p.layout, p.topology.gpus_per_node, shape, *ranks, *on,
                                 deadline_of(c), options_of(p, c));
    *layer = new topomoe_layer{
        std::make_shared<Layer>(Layer{.communicator = ranks,
                                      .device = on,
                                      .value = std::move(value),
                                      .shape = shape,
                                      .local_experts = topomoe::held_experts(p, ranks->rank(), c.kind).size(),
                                      .stream = {*on, deadline_of(c)},
                                      .plans = std::move(plans),
                                      .kind = c.kind})};
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

topomoe_status topomoe_layer_set_schedule(topomoe_layer* layer, int32_t schedule) {
  return guarded([&] {
    Layer& l = *require(layer, "layer").value;
    l.value.by(schedule);  // or names the field
    l.schedule = schedule;
  });
}

topomoe_status topomoe_layer_set_trace(topomoe_layer* layer, int32_t on) {
  return guarded([&] {
    Layer& l = *require(layer, "layer").value;
    if (on != 0 && on != 1) throw InvalidInput("on", std::to_string(on), "0 or 1");
    l.traced = on == 1;
    if (l.traced) l.passes.clear();
  });
}

topomoe_status topomoe_layer_trace(const topomoe_layer* layer, char* text, size_t bytes, size_t* needed) {
  return guarded([&] {
    const Layer& l = *require(layer, "layer").value;
    const std::string json = topomoe::write_trace(*l.plans.front(), l.communicator->rank(), l.passes);
    if (needed != nullptr) *needed = json.size() + 1;
    if (text == nullptr) {
      require(needed, "text and needed");
      return;
    }
    if (bytes <= json.size())
      throw InvalidInput("bytes", std::to_string(bytes), "at least " + std::to_string(json.size() + 1));
    std::memcpy(text, json.c_str(), json.size() + 1);
  });
}

topomoe_status topomoe_layer_overflow_rounds(const topomoe_layer* layer, int64_t* rounds) {
  return guarded([&] {
    require(rounds, "rounds") = 0;
    const topomoe::AdaptiveLayer& l = require(layer, "layer").value->value;
    for (int i = 0; i < l.schedules(); ++i) *rounds += l.by(i).counters().overflow_rounds;
  });
}

topomoe_status topomoe_forward(topomoe_layer* layer, const void* tokens, int64_t rows, void* output,
                               const topomoe_weights* weights, topomoe_handle** handle) {
  return guarded([&] {
    if (handle != nullptr) *handle = nullptr;
    const auto& l = require(layer, "layer").value;
    const topomoe::LayerWeights w = weights_from(*l, weights);
    require_rows(tokens, rows, "tokens");
    require_rows(output, rows, "output");
    const int by = l->schedule;
    topomoe::MoeLayer::Handle value = l->value.by(by).forward(tokens, rows, output, w, l->stream.ready(), l->keep);
    l->stream.finish(value.done());
    keep_trace(*l, by);
    if (handle != nullptr) *handle = new topomoe_handle{l, by, rows, std::move(value)};
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
    l->value.by(h.schedule).backward(h.value, output_gradients, token_gradients, w, g, l->stream.ready());
    l->stream.finish(h.value.done());
    keep_trace(*l, h.schedule);
  });
}

topomoe_status topomoe_sum_over_replicas(topomoe_layer* layer, const topomoe_gradients* gradients) {
  return guarded([&] {
    const auto& l = require(layer, "layer").value;
    const topomoe::LayerGradients g = gradients_from(*l, gradients);
    l->device->wait(topomoe::Lane::compute, l->stream.ready(), l->stream.end());
    l->value.by(l->schedule).sum_over_replicas(g);
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
