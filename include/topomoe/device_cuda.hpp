// One GPU as a Device: a stream a lane, events between them, kernels from kernels/*_gpu.*.
//
// Declared in every build. Where CUDA is not built, CMake takes device_cuda_missing.cpp instead, and
// make_cuda_device throws MissingEnvironment; nothing else needs to know.
#pragma once

#include <memory>
#include <string>

#include "topomoe/allocator.hpp"
#include "topomoe/device.hpp"

namespace topomoe {

// `ordinal` counts the GPUs that CUDA_VISIBLE_DEVICES leaves. Throws MissingEnvironment without a
// driver or without that GPU. The calling thread's current device becomes this one.
// Without an allocator: cudaMalloc.
std::unique_ptr<Device> make_cuda_device(int ordinal, const Allocator& allocator = {});

// All work on a caller's stream (a cudaStream_t of the GPU that is the thread's current device) so far: the `ready` of
// a layer's calls. And the other way: later work on the stream starts after `event`; where only a host can wait for it,
// this one does.
EventPtr record_cuda_stream(void* stream);
void make_cuda_stream_wait(void* stream, const EventPtr& event, std::chrono::steady_clock::time_point deadline);

// One line for `topomoe --version`: CUDA and cuBLAS as compiled and as loaded, the driver, and the
// GPUs that it shows; says so where there is none. Never throws.
std::string cuda_description();

}  // namespace topomoe
