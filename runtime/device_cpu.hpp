// The CPU as a Device: memory is the heap, every lane is program order (an operation is done when its
// call returns, so record() gives null), and kernels are kernels/*_cpu.cpp. Long kernels call the
// progress hook, since it is this thread that drives nonblocking transfers meanwhile.
#pragma once

#include <memory>

#include "topomoe/device.hpp"

namespace topomoe {

std::unique_ptr<Device> make_cpu_device();

}  // namespace topomoe
