// Memory that host data stops over in on its way to a device: lent for one copy each, and lent again once the lane that
// copies is through. It grows to what is under way at once, and keeps that.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <deque>
#include <functional>
#include <utility>

#include "topomoe/device.hpp"

namespace topomoe {

class StagePool {
 public:
  struct Stage {
    DeviceMemory memory;
    std::size_t bytes = 0;
    EventPtr used;  // when the copy out of it is over; for who takes it to set
  };
  explicit StagePool(std::function<DeviceMemory(std::size_t)> allocate) : allocate_(std::move(allocate)) {}

  // At least so many bytes, until the event that is put into `used`. Valid until the next take().
  Stage& take(std::size_t bytes) {
    for (auto s = stages_.begin(); s != stages_.end(); ++s) {  // those that were lent first are free first, mostly
      if (s->bytes < bytes || (s->used && !s->used->poll())) continue;
      s->used = nullptr;
      std::rotate(s, s + 1, stages_.end());
      return stages_.back();
    }
    const std::size_t size = std::bit_ceil(std::max<std::size_t>(bytes, kSmallest));
    return stages_.emplace_back(Stage{allocate_(size), size, nullptr});
  }
  std::size_t size() const { return stages_.size(); }

 private:
  // Assumed: small next to what a step copies, and the same for most of it.
  static constexpr std::size_t kSmallest = std::size_t{1} << 16;
  std::function<DeviceMemory(std::size_t)> allocate_;
  std::deque<Stage> stages_;  // in the order in which they were lent
};

}  // namespace topomoe
