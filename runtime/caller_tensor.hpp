// What stands in for an embedder's tensors where nobody embeds the layer: memory of a device, filled from host values.
// Internal to rehearsals and benches.
#pragma once

#include <chrono>
#include <cstring>
#include <vector>

#include "kernels/bf16.hpp"
#include "topomoe/device.hpp"

namespace topomoe {

inline std::vector<std::byte> encode(const std::vector<float>& values, DType dtype) {
  std::vector<std::byte> out(values.size() * size_of(dtype));
  if (dtype == DType::f32) {
    std::copy_n(reinterpret_cast<const std::byte*>(values.data()), out.size(), out.begin());
    return out;
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    const kernels::Bf16 h = kernels::to_bf16(values[i]);
    std::memcpy(&out[2 * i], &h, 2);
  }
  return out;
}

inline std::vector<double> decode(const std::vector<std::byte>& bytes, DType dtype) {
  std::vector<double> out(bytes.size() / size_of(dtype));
  for (std::size_t i = 0; i < out.size(); ++i) {
    float f = 0;
    kernels::Bf16 h{};
    if (dtype == DType::f32)
      std::memcpy(&f, &bytes[4 * i], 4);
    else
      std::memcpy(&h, &bytes[2 * i], 2), f = kernels::to_float(h);
    out[i] = static_cast<double>(f);
  }
  return out;
}

// A tensor of the caller's, on the device.
struct CallerTensor {
  CallerTensor(Device& d, std::size_t size)
      : device(d), bytes(size), memory(d.allocate(std::max<std::size_t>(1, size))) {}
  CallerTensor(Device& d, const std::vector<std::byte>& values) : CallerTensor(d, values.size()) {
    device.to_device(Lane::compute, memory.get(), values.data(), bytes);
  }
  std::vector<std::byte> read() const {
    std::vector<std::byte> out(bytes);
    constexpr std::chrono::minutes kDeadline{2};
    device.to_host(Lane::compute, out.data(), memory.get(), bytes, std::chrono::steady_clock::now() + kDeadline);
    return out;
  }
  float* floats() const { return reinterpret_cast<float*>(memory.get()); }
  Device& device;
  std::size_t bytes;
  DeviceMemory memory;
};

inline std::vector<std::byte> as_bytes(const std::vector<float>& values) { return encode(values, DType::f32); }

}  // namespace topomoe
