#include "topomoe/adaptive_layer.hpp"

#include <string>
#include <utility>

#include "runtime/group_channels.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

struct AdaptiveLayer::Impl {
  std::vector<MoeLayer> layers;
};

// Exchanges on a channel are matched in the order in which they start, which is the same on all ranks whichever layer
// starts them: so all layers may share one.
AdaptiveLayer::AdaptiveLayer(std::vector<Schedule> schedules, const Layout& layout, int gpus_per_node,
                             const LayerShape& shape, Communicator& communicator, Device& device,
                             std::chrono::milliseconds deadline, const LayerOptions& options)
    : impl_(std::make_unique<Impl>()) {
  if (schedules.empty()) throw InvalidInput("schedules", "none", "at least one");
  const auto channels = std::make_shared<GroupChannels>(communicator, RankGroups(layout, gpus_per_node));
  impl_->layers.reserve(schedules.size());
  for (Schedule& s : schedules)
    impl_->layers.push_back(
        MoeLayer(std::move(s), layout, gpus_per_node, shape, communicator, device, deadline, options, channels));
}
AdaptiveLayer::~AdaptiveLayer() = default;
AdaptiveLayer::AdaptiveLayer(AdaptiveLayer&&) noexcept = default;

int AdaptiveLayer::schedules() const { return static_cast<int>(impl_->layers.size()); }

const MoeLayer& AdaptiveLayer::by(int schedule) const {
  if (schedule < 0 || schedule >= schedules())
    throw InvalidInput("schedule", std::to_string(schedule), "0 to " + std::to_string(schedules() - 1));
  return impl_->layers[static_cast<std::size_t>(schedule)];
}
MoeLayer& AdaptiveLayer::by(int schedule) { return const_cast<MoeLayer&>(std::as_const(*this).by(schedule)); }

}  // namespace topomoe
