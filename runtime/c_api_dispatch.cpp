// topomoe.h: dispatch and combine.
#include "topomoe/dispatch.hpp"

#include <span>
#include <utility>

#include "runtime/c_api.hpp"

using namespace topomoe::c_api;
using topomoe::InvalidInput;

topomoe_status topomoe_dispatcher_create(const topomoe_plan* plan, topomoe_communicator* communicator,
                                         topomoe_device* device, const topomoe_layer_config* config,
                                         topomoe_dispatcher** dispatcher) {
  return guarded([&] {
    require(dispatcher, "dispatcher") = nullptr;
    const topomoe::Plan& p = require(plan, "plan").value;
    const auto& ranks = require(communicator, "communicator").value;
    const auto& on = require(device, "device").value;
    const topomoe_layer_config c = config_from(config);
    if (c.ffn != 0) throw InvalidInput("config.ffn", std::to_string(c.ffn), "0: the experts are the caller's");
    const topomoe::Schedule& schedule = schedule_of(p, c.kind);
    const topomoe::LayerShape s = shape_of(p, c);
    const topomoe::DispatchShape shape{s.hidden, s.experts, s.top_k, s.dtype, s.expert_owners};
    topomoe::Dispatcher value(schedule, p.layout, p.topology.gpus_per_node, shape, *ranks, *on, deadline_of(c));
    *dispatcher = new topomoe_dispatcher{
        std::make_shared<DispatcherOwner>(DispatcherOwner{ranks, on, std::move(value), shape, deadline_of(c)})};
  });
}

void topomoe_dispatcher_free(topomoe_dispatcher* dispatcher) { delete dispatcher; }

topomoe_status topomoe_dispatch(topomoe_dispatcher* dispatcher, const void* tokens, int64_t rows, const int32_t* ids,
                                const float* weights, topomoe_dispatched** dispatched) {
  return guarded([&] {
    require(dispatched, "dispatched") = nullptr;
    const auto& d = require(dispatcher, "dispatcher").value;
    require_rows(tokens, rows, "tokens");
    require_rows(ids, rows, "ids");
    require_rows(weights, rows, "weights");
    auto handle = d->value.dispatch(tokens, rows, ids, weights);
    wait_for(handle.done(), d->deadline);
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
    const topomoe_batch given = read_struct(require(batch, "batch"), "batch");
    if (index < 0 || index >= static_cast<int>(batches.size()))
      throw InvalidInput("index", std::to_string(index), "there are " + std::to_string(batches.size()) + " batches");
    const topomoe::ExpertBatch& b = batches[static_cast<std::size_t>(index)];
    *batch = {given.size, given.version, static_cast<std::int32_t>(b.rows.size()), b.rows.data(), b.inputs, b.outputs};
  });
}

topomoe_status topomoe_combine(topomoe_dispatched* dispatched, void* output) {
  return guarded([&] {
    Dispatched& d = *require(dispatched, "dispatched").value;
    require_rows(output, d.rows, "output");
    d.dispatcher->value.combine(d.handle, output);
    wait_for(d.handle.done(), d.dispatcher->deadline);
  });
}

topomoe_status topomoe_combine_backward(topomoe_dispatched* dispatched, const void* output_gradients) {
  return guarded([&] {
    Dispatched& d = *require(dispatched, "dispatched").value;
    require_rows(output_gradients, d.rows, "output_gradients");
    d.batches = d.dispatcher->value.combine_backward(d.handle, output_gradients);
    wait_for(d.handle.done(), d.dispatcher->deadline);
  });
}

topomoe_status topomoe_dispatch_backward(topomoe_dispatched* dispatched, void* token_gradients,
                                         float* weight_gradients) {
  return guarded([&] {
    Dispatched& d = *require(dispatched, "dispatched").value;
    require_rows(token_gradients, d.rows, "token_gradients");
    require_rows(weight_gradients, d.rows, "weight_gradients");
    d.dispatcher->value.dispatch_backward(d.handle, token_gradients, weight_gradients);
    wait_for(d.handle.done(), d.dispatcher->deadline);
    d.batches = {};
  });
}

void topomoe_dispatched_free(topomoe_dispatched* dispatched) { delete dispatched; }
