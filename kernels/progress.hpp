// Keeps the promise of host kernels to call the progress hook at least every millisecond or so
// (DESIGN 8) without reading a clock: kernels say how much work they did, in flops or what takes as
// long, and the hook is called each time that enough has come together.
#pragma once

#include <cstdint>

#include "topomoe/device.hpp"

namespace topomoe::kernels {

class Progress {
 public:
  explicit Progress(const ProgressHook& hook) : hook_(hook) {}

  void did(std::int64_t operations) {
    pending_ += operations;
    if (pending_ < kOperationsPerCall) return;
    pending_ = 0;
    hook_();
  }

  // 30 microseconds of GEMM on a server core of 2023; ten times that in an unoptimised build.
  static constexpr std::int64_t kOperationsPerCall = 1 << 21;
  // What one element costs in these units where memory, or exp(), sets the pace.
  static constexpr std::int64_t kMovedElement = 16;
  static constexpr std::int64_t kExponential = 256;

 private:
  ProgressHook hook_;
  std::int64_t pending_ = 0;
};

}  // namespace topomoe::kernels
