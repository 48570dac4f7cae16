// Stands in for a GPU where there is none, so that the host side of the NCCL backend (order, staging, waits,
// failures) runs in every test run: streams are threads that work off a queue, GPU memory is host memory,
// and NCCL's groups are exchanges between threads. fake_gpu.cpp defines the few functions of the CUDA
// runtime, fake_nccl.cpp those of NCCL, that communicator_nccl.cpp calls; linked into a program they take
// the place of the libraries' own.
//
// Faithful in what it must be: work on a stream is in order and later than the call, starting a group never
// waits for a peer. Not modelled: several GPUs seen by one thread, memory spaces, kernels of the Device.
#pragma once

#include <functional>
#include <memory>

#include "topomoe/device.hpp"

struct CUstream_st;

namespace topomoe::testing {

std::unique_ptr<Device> make_fake_gpu();

// Runs on the stream's thread once all before it is done.
void enqueue(CUstream_st* stream, std::function<void()> work);

}  // namespace topomoe::testing
