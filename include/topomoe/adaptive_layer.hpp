// One MoE layer under several schedules of one layout, switched from step to step (Tutel's adaptivity).
//
// Experts stand where the layout has them whatever the schedule, and weights are the caller's: a switch moves nothing
// and splits no group; channels are opened once for all schedules. Each call says by which schedule it goes; all ranks
// say the same. Handles of different schedules may be outstanding side by side. Each schedule keeps its own arenas, of
// bounded size where options say so, so that memory is the sum of those that were used.
#pragma once

#include <memory>
#include <vector>

#include "topomoe/moe_layer.hpp"

namespace topomoe {

class AdaptiveLayer {
 public:
  // Collective, as MoeLayer's, with the same references and errors; of no schedules: InvalidInput.
  AdaptiveLayer(std::vector<Schedule> schedules, const Layout& layout, int gpus_per_node, const LayerShape& shape,
                Communicator& communicator, Device& device,
                std::chrono::milliseconds deadline = std::chrono::seconds(30), const LayerOptions& options = {});
  ~AdaptiveLayer();
  AdaptiveLayer(AdaptiveLayer&&) noexcept;

  int schedules() const;
  // The layer that goes by that schedule: forward and backward are called on it, a handle's backward on the layer that
  // gave it. Throws InvalidInput for an index that is none.
  MoeLayer& by(int schedule);
  const MoeLayer& by(int schedule) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace topomoe
