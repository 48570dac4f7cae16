// topomoe.h: dispatch and combine.
#include "topomoe/dispatch.hpp"

#include <span>
#include <string>
#include <utility>

#include "runtime/c_api.hpp"

using namespace topomoe::c_api;
using topomoe::InvalidInput;

namespace {

void require_no_layer(const topomoe_layer_config& c) {
  for (const auto& [value, name] : {std::pair{c.ffn, "config.ffn"}, {c.shared_ffn, "config.shared_ffn"}})
    if (value != 0) throw InvalidInput(name, std::to_string(value), "0: the experts are the caller's");
  for (const auto& [value, name] : {std::pair{c.balance_loss, "config.balance_loss"}, {c.z_loss, "config.z_loss"}})
    if (value != 0) throw InvalidInput(name, std::to_string(value), "0: the router is the caller's");
  if (c.other_count != 0)
    throw InvalidInput("config.other_count", std::to_string(c.other_count), "0: a dispatcher goes by one schedule");
}

}  // namespace

topomoe_status topomoe_dispatcher_create(const topomoe_plan* plan, topomoe_communicator* communicator,
                                         topomoe_device* device, const topomoe_layer_config* config,
                                         topomoe_dispatcher** dispatcher) {
  return guarded([&] {
    require(dispatcher, "dispatcher") = nullptr;
    const topomoe::Plan& p = *require(plan, "plan").value;
    const auto& ranks = require(communicator, "communicator").value;
    const auto& on = require(device, "device").value;
    const topomoe_layer_config c = config_from(config);
    require_no_layer(c);
    const topomoe::LayerShape s = shape_of(p, c);
    const topomoe::DispatchShape shape{s.hidden, s.experts, s.top_k, s.dtype, s.expert_owners};
    topomoe::Dispatcher value(topomoe::schedule_of(p, c.kind), p.layout, p.topology.gpus_per_node, shape, *ranks, *on,
                              deadline_of(c), options_of(p, c));
    *dispatcher = new topomoe_dispatcher{
        std::make_shared<DispatcherOwner>(DispatcherOwner{ranks, on, std::move(value), shape, {*on, deadline_of(c)}})};
  });
}

void topomoe_dispatcher_free(topomoe_dispatcher* dispatcher) { delete dispatcher; }

topomoe_status topomoe_dispatcher_set_stream(topomoe_dispatcher* dispatcher, void* stream) {
  return guarded([&] { require(dispatcher, "dispatcher").value->stream.set(stream); });
}

topomoe_status topomoe_dispatch(topomoe_dispatcher* dispatcher, const void* tokens, int64_t rows, const int32_t* ids,
                                const float* weights, topomoe_dispatched** dispatched) {
  return guarded([&] {
    require(dispatched, "dispatched") = nullptr;
    const auto& d = require(dispatcher, "dispatcher").value;
    require_rows(tokens, rows, "tokens");
    require_rows(ids, rows, "ids");
    require_rows(weights, rows, "weights");
    auto handle = d->value.dispatch(tokens, rows, ids, weights, d->stream.ready());
    d->stream.finish(handle.done());
    const auto batches = handle.batches();
    *dispatched = new topomoe_dispatched{std::make_shared<Dispatched>(Dispatched{d, rows, std::move(handle), batches})};
  });
}

topomoe_status topomoe_batches(const topomoe_dispatched* dispatched, int32_t* count) {
  return guarded([&] {
    require(count, "count") = static_cast<std::int32_t>(require(dispatched, "dispatched").value->batches.size());
  });
}

topomoe_status topomoe_get_batch(const topomoe_dispatched* dispatched, int32_t index, topomoe_batch* batch) {
  return guarded([&] {
    const auto& batches = require(dispatched, "dispatched").value->batches;
    read_struct(require(batch, "batch"), "batch");
    if (index < 0 || index >= static_cast<int>(batches.size()))
      throw InvalidInput("index", std::to_string(index), "there are " + std::to_string(batches.size()) + " batches");
    const topomoe::ExpertBatch& b = batches[static_cast<std::size_t>(index)];
    write_struct(*batch, {0, 0, static_cast<std::int32_t>(b.rows.size()), b.rows.data(), b.inputs, b.outputs});
  });
}

topomoe_status topomoe_combine(topomoe_dispatched* dispatched, void* output) {
  return guarded([&] {
    Dispatched& d = *require(dispatched, "dispatched").value;
    require_rows(output, d.rows, "output");
    d.dispatcher->value.combine(d.handle, output, d.dispatcher->stream.ready());
    d.dispatcher->stream.finish(d.handle.done());
  });
}

topomoe_status topomoe_combine_backward(topomoe_dispatched* dispatched, const void* output_gradients) {
  return guarded([&] {
    Dispatched& d = *require(dispatched, "dispatched").value;
    require_rows(output_gradients, d.rows, "output_gradients");
    const CallersStream& stream = d.dispatcher->stream;
    d.batches = d.dispatcher->value.combine_backward(d.handle, output_gradients, stream.ready());
    stream.finish(d.handle.done());
  });
}

topomoe_status topomoe_dispatch_backward(topomoe_dispatched* dispatched, void* token_gradients,
                                         float* weight_gradients) {
  return guarded([&] {
    Dispatched& d = *require(dispatched, "dispatched").value;
    require_rows(token_gradients, d.rows, "token_gradients");
    require_rows(weight_gradients, d.rows, "weight_gradients");
    const CallersStream& stream = d.dispatcher->stream;
    d.dispatcher->value.dispatch_backward(d.handle, token_gradients, weight_gradients, stream.ready());
    stream.finish(d.handle.done());
    d.batches = {};
  });
}

topomoe_status topomoe_dispatched_wait(topomoe_dispatched* dispatched) {
  return guarded([&] {
    const Dispatched& d = *require(dispatched, "dispatched").value;
    d.dispatcher->stream.wait_for(d.handle.done());
  });
}

void topomoe_dispatched_free(topomoe_dispatched* dispatched) { delete dispatched; }
