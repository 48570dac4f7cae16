// What the files behind topomoe.h share: the objects that more than one of them sees, checks, exceptions to statuses.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "runtime/c_api_structs.hpp"
#include "runtime/trace.hpp"
#include "topomoe/adaptive_layer.hpp"
#include "topomoe/communicator.hpp"
#include "topomoe/device.hpp"
#include "topomoe/dispatch.hpp"
#include "topomoe/error.hpp"
#include "topomoe/layer_shape.hpp"
#include "topomoe/plan.hpp"
#include "topomoe/planned_layer.hpp"
#include "topomoe/topomoe.h"

struct topomoe_plan {
  std::shared_ptr<const topomoe::Plan> value;
};
struct topomoe_communicator {
  std::shared_ptr<topomoe::Communicator> value;
};
struct topomoe_device {
  std::shared_ptr<topomoe::Device> value;
};

namespace topomoe::c_api {

// Remembers the text for topomoe_last_error().
topomoe_status failed(topomoe_status status, const char* why) noexcept;

template <class Body>
topomoe_status guarded(Body body) noexcept {
  try {
    body();
    return TOPOMOE_OK;
  } catch (const InvalidInput& e) {
    return failed(TOPOMOE_INVALID_INPUT, e.what());
  } catch (const topomoe::MissingEnvironment& e) {
    return failed(TOPOMOE_MISSING_ENVIRONMENT, e.what());
  } catch (const topomoe::TransportError& e) {
    return failed(TOPOMOE_TRANSPORT_ERROR, e.what());
  } catch (const std::bad_alloc&) {
    return failed(TOPOMOE_MISSING_ENVIRONMENT, "memory: exhausted");
  } catch (const std::exception& e) {
    return failed(TOPOMOE_INTERNAL_ERROR, e.what());
  } catch (...) {
    return failed(TOPOMOE_INTERNAL_ERROR, "something was thrown that is no error");
  }
}

template <class T>
T& require(T* pointer, const char* name) {
  if (pointer == nullptr) throw InvalidInput(name, "null", "a pointer is needed");
  return *pointer;
}

void require_rows(const void* tensor, std::int64_t rows, const char* name);

// Null: all as planned. Throws InvalidInput by field.
topomoe_layer_config config_from(const topomoe_layer_config* given);
// Of its kind, with what the config changes.
LayerShape shape_of(const Plan& plan, const topomoe_layer_config& config);
LayerOptions options_of(const Plan& plan, const topomoe_layer_config& config);
std::chrono::milliseconds deadline_of(const topomoe_layer_config& config);

// The caller's stream, if it has set one: null, and what a call writes is complete when it returns, on a GPU too.
class CallersStream {
 public:
  CallersStream(Device& device, std::chrono::milliseconds deadline) : device_(device), deadline_(deadline) {}
  // Throws InvalidInput on a device without streams.
  void set(void* stream) {
    if (stream != nullptr) device_.record_queue(stream);
    stream_ = stream;
  }
  EventPtr ready() const { return stream_ != nullptr ? device_.record_queue(stream_) : nullptr; }
  // Null: it is over.
  void finish(const EventPtr& done) const {
    if (!done) return;
    if (stream_ != nullptr)
      device_.make_queue_wait(stream_, done, end());
    else
      done->wait(end());
  }
  void wait_for(const EventPtr& done) const {
    if (done) done->wait(end());
  }
  std::chrono::steady_clock::time_point end() const { return std::chrono::steady_clock::now() + deadline_; }

 private:
  Device& device_;
  std::chrono::milliseconds deadline_;
  void* stream_ = nullptr;
};

// In this order: the layer goes first, then what it refers to.
struct Layer {
  std::shared_ptr<Communicator> communicator;
  std::shared_ptr<Device> device;
  AdaptiveLayer value;
  LayerShape shape;
  std::size_t local_experts;
  CallersStream stream;
  std::vector<std::shared_ptr<const Plan>> plans;  // by schedule
  int kind = 0;
  int schedule = 0;
  MoeLayer::Keep keep = MoeLayer::Keep::all;
  bool traced = false;
  std::vector<TracedPass> passes;
};
// Of one call, null or not. Throws InvalidInput by field.
LayerWeights weights_from(const Layer& layer, const topomoe_weights* given);
LayerGradients gradients_from(const Layer& layer, const topomoe_gradients* given);

struct DispatcherOwner {
  std::shared_ptr<Communicator> communicator;
  std::shared_ptr<Device> device;
  Dispatcher value;
  DispatchShape shape;
  CallersStream stream;
};
struct Dispatched {
  std::shared_ptr<DispatcherOwner> dispatcher;
  std::int64_t rows;
  Dispatcher::Handle handle;
  std::span<const ExpertBatch> batches;  // of the handle
};

}  // namespace topomoe::c_api

struct topomoe_layer {
  std::shared_ptr<topomoe::c_api::Layer> value;
};
struct topomoe_handle {
  std::shared_ptr<topomoe::c_api::Layer> layer;
  int schedule;
  std::int64_t rows;
  topomoe::MoeLayer::Handle value;
};
struct topomoe_dispatcher {
  std::shared_ptr<topomoe::c_api::DispatcherOwner> value;
};
struct topomoe_dispatched {
  std::shared_ptr<topomoe::c_api::Dispatched> value;
};
