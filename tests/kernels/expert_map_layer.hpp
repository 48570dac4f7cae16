// An expert map with its tensors on a device.
#pragma once

#include <vector>

#include "kernels/expert_map.hpp"
#include "tests/kernels/on_device.hpp"

namespace topomoe::test {

// What a map says, on the host.
struct MapResult {
  Ints counts, offsets, position, source_row, source_factor;
  int overflow = 0;
  bool operator==(const MapResult&) const = default;
};

struct MapTensors {
  // `op` as to sizes; what it writes is -7 before.
  MapTensors(Device& device, kernels::ExpertMap op, const Ints& id_values)
      : ids(device, id_values),
        counts(device, unwritten(op.experts)),
        offsets(device, unwritten(op.experts + 1)),
        overflow(device, unwritten(1)),
        position(device, unwritten(op.rows * op.k)),
        source_row(device, unwritten(op.parts * op.capacity)),
        source_factor(device, unwritten(op.parts * op.capacity)),
        scratch(device, unwritten(kernels::scratch_of(op))),
        map(op) {
    map.ids = ids.data(), map.counts = counts.data(), map.offsets = offsets.data(), map.overflow = overflow.data();
    map.position = position.data(), map.source_row = source_row.data(), map.source_factor = source_factor.data();
    map.scratch = scratch.data();
  }
  MapResult read() const {
    return {counts.read(),     offsets.read(),       position.read(),
            source_row.read(), source_factor.read(), overflow.read().front()};
  }

  static Ints unwritten(std::int64_t count) { return Ints(static_cast<std::size_t>(count), -7); }
  IntTensor ids, counts, offsets, overflow, position, source_row, source_factor, scratch;
  kernels::ExpertMap map;
};

}  // namespace topomoe::test
