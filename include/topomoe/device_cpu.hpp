// The CPU as a Device: memory is the heap or the caller's, every lane is program order (an operation is done when its
// call returns, so record() gives null), and kernels are kernels/*_cpu.cpp, on one thread or several. Results do not
// depend on how many. Long kernels call the progress hook on the calling thread, since it is that one that drives
// nonblocking transfers meanwhile.
#pragma once

#include <memory>
#include <string>

#include "topomoe/allocator.hpp"
#include "topomoe/device.hpp"

namespace topomoe {

struct CpuDeviceOptions {
  // That kernels use, the caller's included; 0: as many as there are CPUs that the caller may run on. The others are
  // started here, inherit the caller's affinity and sleep between operations. Ranks of one host share its CPUs: theirs
  // together should be no more than those.
  int threads = 1;
  // Instructions that packed experts, routing and moving rows use at most: portable, avx2, avx512, avx512_bf16, amx.
  // Empty: all that the CPU has. oneDNN's products have a limit of their own: ONEDNN_MAX_CPU_ISA.
  std::string isa = {};
};

// Without an allocator: the heap, on 2 MiB pages where a tensor is large and the system has them. Throws InvalidInput.
std::unique_ptr<Device> make_cpu_device(const Allocator& allocator = {}, const CpuDeviceOptions& options = {});

}  // namespace topomoe
