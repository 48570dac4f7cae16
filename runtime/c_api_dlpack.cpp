// topomoe.h: the same calls with DLPack's tensors: checked, then the ones with pointers.
#include <memory>
#include <string>

#include "runtime/c_api.hpp"
#include "runtime/dlpack.hpp"

using namespace topomoe::c_api;
using topomoe::DlElement;
using topomoe::DlRows;
using topomoe::InvalidInput;

namespace {

DlRows payload(const DLManagedTensor* tensor, const char* name, topomoe::DType dtype, std::int64_t hidden,
               const topomoe::Device& device, bool written) {
  return read_dlpack(require(tensor, name), name, topomoe::dl_element(dtype), hidden, device, written);
}

void require_equal(const DlRows& tensor, std::int64_t rows, const char* name) {
  if (tensor.rows != rows)
    throw InvalidInput(name, std::to_string(tensor.rows) + " rows", "there are " + std::to_string(rows) + " tokens");
}

// Of a call with pointers, whose error is told already.
struct Told {
  topomoe_status status;
};
void pass_on(topomoe_status status) {
  if (status != TOPOMOE_OK) throw Told{status};
}

template <class Body>
topomoe_status guarded_twice(Body body) noexcept {
  topomoe_status inner = TOPOMOE_OK;
  const topomoe_status outer = guarded([&] {
    try {
      body();
    } catch (const Told& t) {
      inner = t.status;
    }
  });
  return outer != TOPOMOE_OK ? outer : inner;
}

}  // namespace

topomoe_status topomoe_dlpack_unversioned(struct DLManagedTensorVersioned* tensor, struct DLManagedTensor** out) {
  return guarded([&] {
    require(out, "out") = nullptr;
    *out = topomoe::unversioned(&require(tensor, "tensor"));
  });
}

topomoe_status topomoe_forward_dlpack(topomoe_layer* layer, const struct DLManagedTensor* tokens,
                                      const struct DLManagedTensor* output, const topomoe_weights* weights,
                                      topomoe_handle** handle) {
  return guarded_twice([&] {
    const Layer& l = *require(layer, "layer").value;
    const DlRows x = payload(tokens, "tokens", l.shape.dtype, l.shape.hidden, *l.device, false);
    const DlRows y = payload(output, "output", l.shape.dtype, l.shape.hidden, *l.device, true);
    require_equal(y, x.rows, "output");
    pass_on(topomoe_forward(layer, x.data, x.rows, y.data, weights, handle));
  });
}

topomoe_status topomoe_backward_dlpack(topomoe_layer* layer, topomoe_handle* handle,
                                       const struct DLManagedTensor* output_gradients,
                                       const struct DLManagedTensor* token_gradients, const topomoe_weights* weights,
                                       const topomoe_gradients* gradients) {
  return guarded_twice([&] {
    const Layer& l = *require(layer, "layer").value;
    const DlRows dy = payload(output_gradients, "output_gradients", l.shape.dtype, l.shape.hidden, *l.device, false);
    const DlRows dx = payload(token_gradients, "token_gradients", l.shape.dtype, l.shape.hidden, *l.device, true);
    require_equal(dy, require(handle, "handle").rows, "output_gradients");
    require_equal(dx, handle->rows, "token_gradients");
    pass_on(topomoe_backward(layer, handle, dy.data, dx.data, weights, gradients));
  });
}

topomoe_status topomoe_dispatch_dlpack(topomoe_dispatcher* dispatcher, const struct DLManagedTensor* tokens,
                                       const struct DLManagedTensor* ids, const struct DLManagedTensor* weights,
                                       topomoe_dispatched** dispatched) {
  return guarded_twice([&] {
    const DispatcherOwner& d = *require(dispatcher, "dispatcher").value;
    const DlRows x = payload(tokens, "tokens", d.shape.dtype, d.shape.hidden, *d.device, false);
    const DlRows i = read_dlpack(require(ids, "ids"), "ids", DlElement::i32, d.shape.top_k, *d.device);
    const DlRows w = read_dlpack(require(weights, "weights"), "weights", DlElement::f32, d.shape.top_k, *d.device);
    require_equal(i, x.rows, "ids");
    require_equal(w, x.rows, "weights");
    pass_on(topomoe_dispatch(dispatcher, x.data, x.rows, static_cast<const std::int32_t*>(i.data),
                             static_cast<const float*>(w.data), dispatched));
  });
}

topomoe_status topomoe_get_batch_dlpack(const topomoe_dispatched* dispatched, int32_t index,
                                        struct DLManagedTensor** inputs, struct DLManagedTensor** outputs) {
  return guarded([&] {
    require(inputs, "inputs") = nullptr;
    require(outputs, "outputs") = nullptr;
    const auto& d = require(dispatched, "dispatched").value;
    if (index < 0 || index >= static_cast<int>(d->batches.size()))
      throw InvalidInput("index", std::to_string(index), "there are " + std::to_string(d->batches.size()) + " batches");
    const topomoe::ExpertBatch& batch = d->batches[static_cast<std::size_t>(index)];
    if (batch.outputs == nullptr)
      throw InvalidInput("dispatched", "combined", "the batches of its backward come with combine_backward");
    std::int64_t rows = 0;
    for (const std::int64_t r : batch.rows) rows += r;
    const auto& shape = d->dispatcher->shape;
    const auto make = [&](const void* data) {
      return topomoe::make_dlpack(data, rows, shape.hidden, topomoe::dl_element(shape.dtype), *d->dispatcher->device,
                                  d);
    };
    DLManagedTensor* const in = make(batch.inputs);
    try {
      *outputs = make(batch.outputs);
    } catch (...) {
      in->deleter(in);
      throw;
    }
    *inputs = in;
  });
}

topomoe_status topomoe_combine_dlpack(topomoe_dispatched* dispatched, const struct DLManagedTensor* output) {
  return guarded_twice([&] {
    const Dispatched& d = *require(dispatched, "dispatched").value;
    const auto& owner = *d.dispatcher;
    const DlRows y = payload(output, "output", owner.shape.dtype, owner.shape.hidden, *owner.device, true);
    require_equal(y, d.rows, "output");
    pass_on(topomoe_combine(dispatched, y.data));
  });
}

topomoe_status topomoe_combine_backward_dlpack(topomoe_dispatched* dispatched,
                                               const struct DLManagedTensor* output_gradients) {
  return guarded_twice([&] {
    const Dispatched& d = *require(dispatched, "dispatched").value;
    const auto& owner = *d.dispatcher;
    const DlRows dy =
        payload(output_gradients, "output_gradients", owner.shape.dtype, owner.shape.hidden, *owner.device, false);
    require_equal(dy, d.rows, "output_gradients");
    pass_on(topomoe_combine_backward(dispatched, dy.data));
  });
}

topomoe_status topomoe_dispatch_backward_dlpack(topomoe_dispatched* dispatched,
                                                const struct DLManagedTensor* token_gradients,
                                                const struct DLManagedTensor* weight_gradients) {
  return guarded_twice([&] {
    const Dispatched& d = *require(dispatched, "dispatched").value;
    const auto& owner = *d.dispatcher;
    const DlRows dx =
        payload(token_gradients, "token_gradients", owner.shape.dtype, owner.shape.hidden, *owner.device, true);
    const DlRows dw = read_dlpack(require(weight_gradients, "weight_gradients"), "weight_gradients", DlElement::f32,
                                  owner.shape.top_k, *owner.device, true);
    require_equal(dx, d.rows, "token_gradients");
    require_equal(dw, d.rows, "weight_gradients");
    pass_on(topomoe_dispatch_backward(dispatched, dx.data, static_cast<float*>(dw.data)));
  });
}
