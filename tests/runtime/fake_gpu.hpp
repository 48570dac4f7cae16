// Stands in for a GPU where there is none, so that the host side of the NCCL backend (order, staging, waits,
// failures) runs in every test run: streams are threads that work off a queue, GPU memory is host memory,
// and NCCL's groups are exchanges between threads. fake_cuda.cpp defines the few functions of the CUDA
// runtime, fake_nccl.cpp those of NCCL, that communicator_nccl.cpp calls; linked into a program they take
// the place of the libraries' own. The device alone (fake_gpu.cpp) needs neither.
//
// Faithful in what it must be: work on a stream, kernels included (the CPU's), is in order and later than the call,
// starting a group never waits for a peer. Not modelled: several GPUs seen by one thread, memory spaces.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "topomoe/device.hpp"

// Named as CUDA names it, so that it may pass for a cudaStream_t.
struct CUstream_st {
 public:
  ~CUstream_st();
  // Runs on the stream's thread once all before it is done.
  void add(std::function<void()> work);
  bool idle();
  // False at the deadline.
  bool drain(std::chrono::steady_clock::time_point deadline);

 private:
  void run();
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> work_;
  bool busy_ = false, stopping_ = false;
  std::thread thread_{[this] { run(); }};
};

namespace topomoe::testing {

std::unique_ptr<Device> make_fake_gpu(int ordinal = 0);

// What a lane is told waits for as long as this lives, as behind a transfer with a rank that is gone.
class Stall {
 public:
  Stall(Device& fake_gpu, Lane lane);
  ~Stall();
  Stall(const Stall&) = delete;
  Stall& operator=(const Stall&) = delete;

 private:
  std::promise<void> over_;
};

// What became of comms (ncclComm_t) since this was last asked; several entries where it was done several times.
struct FakeNccl {
  std::vector<const void*> made, finalized, destroyed, aborted;
};
FakeNccl fake_nccl();

}  // namespace topomoe::testing
