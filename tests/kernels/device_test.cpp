#include "topomoe/device.hpp"

#include <numeric>

#include "tests/kernels/on_device.hpp"

namespace topomoe::test {
namespace {

// A host event, as a communicator of host memory hands out.
struct CountingEvent final : Event {
  bool poll() override { return ++polls > 3; }
  void wait(std::chrono::steady_clock::time_point) override {
    ++waits;
    while (!poll()) {
    }
  }
  int polls = 0;
  int waits = 0;
};

class DeviceInterface : public OnDevice {};

TEST_F(DeviceInterface, Bytes_TravelThereAndBack) {
  constexpr std::size_t count = 700'000;  // more than one piece of a long copy
  std::vector<std::int32_t> sent(count), received(count);
  std::iota(sent.begin(), sent.end(), 0);
  const DeviceMemory a = device_->allocate(count * 4), b = device_->allocate(count * 4);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.get()) % 64, 0U);
  device_->to_device(Lane::copy, a.get(), sent.data(), count * 4);
  const EventPtr uploaded = device_->record(Lane::copy);
  device_->wait(Lane::compute, uploaded, soon());
  device_->copy(Lane::compute, b.get(), a.get(), count * 4);
  device_->zero(Lane::compute, b.get(), 8);
  device_->to_host(Lane::compute, received.data(), b.get(), count * 4, soon());
  sent[0] = sent[1] = 0;
  EXPECT_EQ(received, sent);
}

TEST_F(DeviceInterface, ZeroBytes_AreLegal) {
  const DeviceMemory nothing = device_->allocate(0);
  device_->zero(Lane::compute, nothing.get(), 0);
  device_->copy(Lane::compute, nothing.get(), nothing.get(), 0);
  device_->to_host(Lane::compute, nullptr, nothing.get(), 0, soon());
  device_->synchronize(soon());
}

TEST_F(DeviceInterface, RecordedEvent_HappensOnceTheLaneIsEmpty) {
  const DeviceMemory memory = device_->allocate(1 << 20);
  device_->zero(Lane::intra_node, memory.get(), 1 << 20);
  const EventPtr event = device_->record(Lane::intra_node);
  device_->synchronize(soon());
  if (device_->memory_space() == MemorySpace::host) {
    EXPECT_EQ(event, nullptr);
  } else {
    EXPECT_TRUE(event->poll());
    event->wait(soon());
  }
}

TEST_F(DeviceInterface, HostEvent_IsWaitedForHereAndNow) {
  const auto event = std::make_shared<CountingEvent>();
  device_->wait(Lane::compute, event, soon());
  EXPECT_EQ(event->waits, 1);
  device_->wait(Lane::compute, nullptr, soon());
}

TEST_F(DeviceInterface, TooMuchMemory_IsMissingEnvironment) {
  EXPECT_THROW(device_->allocate(std::size_t{1} << 60), MissingEnvironment);
}

}  // namespace
}  // namespace topomoe::test
