// What the files behind topomoe.h share: the objects that more than one of them sees, checks, exceptions to statuses.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>

#include "topomoe/communicator.hpp"
#include "topomoe/device.hpp"
#include "topomoe/dispatch.hpp"
#include "topomoe/error.hpp"
#include "topomoe/layer_shape.hpp"
#include "topomoe/moe_layer.hpp"
#include "topomoe/plan.hpp"
#include "topomoe/topomoe.h"

struct topomoe_plan {
  topomoe::Plan value;
};
struct topomoe_communicator {
  std::shared_ptr<topomoe::Communicator> value;
};
struct topomoe_device {
  std::shared_ptr<topomoe::Device> value;
};

namespace topomoe::c_api {

// In this order: the layer goes first, then what it refers to.
struct Layer {
  std::shared_ptr<Communicator> communicator;
  std::shared_ptr<Device> device;
  MoeLayer value;
  LayerShape shape = {};
  std::chrono::milliseconds deadline{};
};
struct DispatcherOwner {
  std::shared_ptr<Communicator> communicator;
  std::shared_ptr<Device> device;
  Dispatcher value;
  DispatchShape shape = {};
  std::chrono::milliseconds deadline{};
};
struct Dispatched {
  std::shared_ptr<DispatcherOwner> dispatcher;
  std::int64_t rows;
  Dispatcher::Handle handle;
  std::span<const ExpertBatch> batches;  // of the handle
};

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

// A struct of this version; a longer one, of a later header, only if the library knows all that is set in it.
template <class T>
T read_struct(const T& from, const char* name) {
  const std::string field(name);
  constexpr std::size_t head = offsetof(T, version) + sizeof(std::uint32_t);
  if (from.size < head || from.size > 4096)
    throw InvalidInput(field + ".size", std::to_string(from.size), "fill the struct with its _INIT macro");
  if (from.version != TOPOMOE_ABI_VERSION)
    throw InvalidInput(field + ".version", std::to_string(from.version),
                       "this library speaks " + std::to_string(TOPOMOE_ABI_VERSION));
  if (from.size < sizeof(T))
    throw InvalidInput(field + ".size", std::to_string(from.size),
                       "version " + std::to_string(from.version) + " has " + std::to_string(sizeof(T)) + " bytes");
  const auto* bytes = reinterpret_cast<const unsigned char*>(&from);
  for (std::size_t i = sizeof(T); i < from.size; ++i)
    if (bytes[i] != 0)
      throw InvalidInput(field + ".size", std::to_string(from.size),
                         "it sets a field that this library (" + std::to_string(sizeof(T)) + " bytes) does not know");
  return from;
}

void require_rows(const void* tensor, std::int64_t rows, const char* name);

// Null: all as planned. Throws InvalidInput by field.
topomoe_layer_config config_from(const topomoe_layer_config* given);
const Schedule& schedule_of(const Plan& plan, int kind);
LayerShape shape_of(const Plan& plan, int kind);
LayerShape shape_of(const Plan& plan, const topomoe_layer_config& config);
// C knows no events: what a call writes is complete when it returns, on a GPU too. Null: it is.
void wait_for(const EventPtr& done, std::chrono::milliseconds deadline);
std::chrono::milliseconds deadline_of(const topomoe_layer_config& config);

}  // namespace topomoe::c_api

struct topomoe_layer {
  std::shared_ptr<topomoe::c_api::Layer> value;
};
struct topomoe_handle {
  std::shared_ptr<topomoe::c_api::Layer> layer;
  std::int64_t rows;
  topomoe::MoeLayer::Handle value;
};
struct topomoe_dispatcher {
  std::shared_ptr<topomoe::c_api::DispatcherOwner> value;
};
struct topomoe_dispatched {
  std::shared_ptr<topomoe::c_api::Dispatched> value;
};
