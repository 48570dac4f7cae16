// The CPU as a Device: memory is the heap or the caller's, every lane is program order (an operation is done when its
// call returns, so record() gives null), and kernels are kernels/*_cpu.cpp. Long kernels call the
// progress hook, since it is this thread that drives nonblocking transfers meanwhile.
#pragma once

#include <memory>

#include "topomoe/allocator.hpp"
#include "topomoe/device.hpp"

namespace topomoe {

// Without an allocator: the heap.
std::unique_ptr<Device> make_cpu_device(const Allocator& allocator = {});

}  // namespace topomoe
