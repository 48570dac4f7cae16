// Structs of topomoe.h as callers hand them over, made with this header, an older or a later one.
//
// A shorter one, of an older header, is read with the defaults of _INIT in what it lacks, and written as far as it
// goes; a longer one, of a later header, is taken where all that this library does not know is zero. That rests on new
// fields beginning where older structs ended, padding included: first_bytes says where that was at first.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "topomoe/error.hpp"
#include "topomoe/topomoe.h"

namespace topomoe::c_api {

template <class T>
struct Abi;
template <>
struct Abi<topomoe_plan_info> {
  static constexpr topomoe_plan_info init = TOPOMOE_PLAN_INFO_INIT;
  static constexpr std::size_t first_bytes = 88;
  static_assert(offsetof(topomoe_plan_info, shared_ffn) == first_bytes);
};
template <>
struct Abi<topomoe_tcp_config> {
  static constexpr topomoe_tcp_config init = TOPOMOE_TCP_CONFIG_INIT;
  static constexpr std::size_t first_bytes = sizeof(topomoe_tcp_config);
};
template <>
struct Abi<topomoe_device_config> {
  static constexpr topomoe_device_config init = TOPOMOE_DEVICE_CONFIG_INIT;
  static constexpr std::size_t first_bytes = sizeof(topomoe_device_config);
};
template <>
struct Abi<topomoe_rank_check> {
  static constexpr topomoe_rank_check init = TOPOMOE_RANK_CHECK_INIT;
  static constexpr std::size_t first_bytes = sizeof(topomoe_rank_check);
};
template <>
struct Abi<topomoe_layer_config> {
  static constexpr topomoe_layer_config init = TOPOMOE_LAYER_CONFIG_INIT;
  static constexpr std::size_t first_bytes = 48;
  static_assert(offsetof(topomoe_layer_config, balance_loss) == first_bytes);
  static_assert(offsetof(topomoe_layer_config, others) == 88);  // where the next header's went on
};
template <>
struct Abi<topomoe_weights> {
  static constexpr topomoe_weights init = TOPOMOE_WEIGHTS_INIT;
  static constexpr std::size_t first_bytes = 48;
  static_assert(offsetof(topomoe_weights, selection_bias) == first_bytes);
};
template <>
struct Abi<topomoe_gradients> {
  static constexpr topomoe_gradients init = TOPOMOE_GRADIENTS_INIT;
  static constexpr std::size_t first_bytes = 48;
  static_assert(offsetof(topomoe_gradients, shared_gate) == first_bytes);
};
template <>
struct Abi<topomoe_router_report> {
  static constexpr topomoe_router_report init = TOPOMOE_ROUTER_REPORT_INIT;
  static constexpr std::size_t first_bytes = sizeof(topomoe_router_report);
};
template <>
struct Abi<topomoe_batch> {
  static constexpr topomoe_batch init = TOPOMOE_BATCH_INIT;
  static constexpr std::size_t first_bytes = sizeof(topomoe_batch);
};

// All fields, and the size that the caller gave. Throws InvalidInput("<name>.size" or "<name>.version", ..).
template <class T>
T read_struct(const T& from, const char* name) {
  const std::string field(name);
  if (from.size < offsetof(T, version) + sizeof(std::uint32_t) || from.size > 4096)
    throw InvalidInput(field + ".size", std::to_string(from.size), "fill the struct with its _INIT macro");
  if (from.version != TOPOMOE_ABI_VERSION)
    throw InvalidInput(field + ".version", std::to_string(from.version),
                       "this library speaks " + std::to_string(TOPOMOE_ABI_VERSION));
  if (from.size < Abi<T>::first_bytes)
    throw InvalidInput(field + ".size", std::to_string(from.size),
                       "it had " + std::to_string(Abi<T>::first_bytes) + " bytes from the first");
  const auto* bytes = reinterpret_cast<const unsigned char*>(&from);
  for (std::size_t i = sizeof(T); i < from.size; ++i)
    if (bytes[i] != 0)
      throw InvalidInput(field + ".size", std::to_string(from.size),
                         "it sets a field that this library (" + std::to_string(sizeof(T)) + " bytes) does not know");
  T out = Abi<T>::init;
  std::memcpy(&out, bytes, std::min(from.size, sizeof(T)));
  return out;
}

// As much of it as the caller's struct, which read_struct has seen, has room for.
template <class T>
void write_struct(T& to, T value) {
  value.size = to.size, value.version = to.version;
  std::memcpy(&to, &value, std::min(value.size, sizeof(T)));
}

}  // namespace topomoe::c_api
