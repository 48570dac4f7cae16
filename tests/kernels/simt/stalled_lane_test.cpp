// A lane that gets no further, as behind a transfer with a rank that is gone: whoever waits for it on the host makes
// progress meanwhile, stops at the deadline and names the lane.
#include <cuda_runtime_api.h>

#include <memory>
#include <optional>

#include "tests/kernels/on_device.hpp"

namespace topomoe::test {
namespace {

// As long as it lives.
class Stalled {
 public:
  Stalled(Device& device, Lane lane) : stalled_(static_cast<cudaStream_t>(device.native_queue(lane))->stalled) {
    *stalled_ = true;
  }
  ~Stalled() { *stalled_ = false; }
  Stalled(const Stalled&) = delete;
  Stalled& operator=(const Stalled&) = delete;

 private:
  std::shared_ptr<bool> stalled_;
};

class StalledLane : public OnDevice {
 protected:
  std::chrono::steady_clock::time_point at_once() { return std::chrono::steady_clock::now() + kPatience; }
  static constexpr std::chrono::milliseconds kPatience{5};
};

template <class Wait>
TransportError error_of(Wait wait) {
  try {
    wait();
  } catch (const TransportError& e) {
    return e;
  }
  ADD_FAILURE() << "no error";
  return TransportError(Failure{});
}

TEST_F(StalledLane, Synchronize_EndsAtItsDeadlineAndNamesTheLane) {
  int progress = 0;
  device_->set_progress({[](void* calls) { ++*static_cast<int*>(calls); }, &progress});
  device_->synchronize(soon());
  EXPECT_EQ(progress, 0);
  {
    const Stalled stalled(*device_, Lane::intra_node);
    const TransportError e = error_of([&] { device_->synchronize(at_once()); });
    EXPECT_EQ(e.step, "synchronize");
    EXPECT_EQ(e.why, "lane intra_node of GPU 0 did not get there in time");
    EXPECT_GT(progress, 0);
  }
  device_->synchronize(soon());
}

TEST_F(StalledLane, CopyToHost_EndsAtItsDeadlineAndNamesTheLane) {
  const DeviceMemory memory = device_->allocate(8);
  char host[8] = {1};
  const Stalled stalled(*device_, Lane::copy);
  const TransportError e = error_of([&] { device_->to_host(Lane::copy, host, memory.get(), 8, at_once()); });
  EXPECT_EQ(e.step, "copy to host");
  EXPECT_EQ(e.bytes, 8);
  EXPECT_EQ(e.why, "lane copy of GPU 0 did not get there in time");
  EXPECT_EQ(host[0], 1);
  device_->to_host(Lane::compute, host, memory.get(), 8, soon());
  EXPECT_NE(host[0], 1);
}

// Progress is what may let a lane go on, or say why it never will.
TEST_F(StalledLane, ProgressFreesIt_OrItsExceptionPasses) {
  std::optional<Stalled> stalled;
  stalled.emplace(*device_, Lane::inter_node);
  device_->set_progress({[](void* held) { static_cast<std::optional<Stalled>*>(held)->reset(); }, &stalled});
  device_->synchronize(soon());
  EXPECT_FALSE(stalled.has_value());

  const Stalled again(*device_, Lane::inter_node);
  device_->set_progress({[](void*) { throw TransportError(0, 3, "theirs", 0, "rank 3 is gone"); }, nullptr});
  EXPECT_EQ(error_of([&] { device_->synchronize(soon()); }).peer, 3);
}

}  // namespace
}  // namespace topomoe::test
