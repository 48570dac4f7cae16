#include "topomoe/adaptive_layer.hpp"

#include <algorithm>
#include <deque>
#include <map>
#include <string>
#include <utility>

#include "runtime/group_channels.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// The communicator as the layers see it: opening a role's channel for the second time gives the first one. Exchanges on
// a channel are matched in the order in which they start, which is the same on all ranks whichever layer starts them.
class SharedChannels final : public Communicator {
 public:
  explicit SharedChannels(Communicator& inner) : inner_(inner) {}
  // Of the layer that is made next: GroupChannels opens them in this order.
  void expect(const std::vector<Role>& roles) { expected_.assign(roles.begin(), roles.end()); }

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  std::string refuses(const Device& device) const override { return inner_.refuses(device); }
  ChannelId open_channel(std::span<const int> members) override {
    if (expected_.empty()) return inner_.open_channel(members);
    const Role role = expected_.front();
    expected_.pop_front();
    const auto known = opened_.find(role);
    if (known == opened_.end())
      return opened_.emplace(role, Opened{{members.begin(), members.end()}, inner_.open_channel(members)})
          .first->second.channel;
    TOPOMOE_ASSERT(
        std::equal(members.begin(), members.end(), known->second.members.begin(), known->second.members.end()));
    return known->second.channel;
  }
  EventPtr exchange(ChannelId channel, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const ExchangeInfo& info) override {
    return inner_.exchange(channel, sends, receives, info);
  }
  void progress() override { inner_.progress(); }
  void barrier() override { inner_.barrier(); }
  void fail(const Failure& failure) noexcept override { inner_.fail(failure); }

 private:
  struct Opened {
    std::vector<int> members;
    ChannelId channel;
  };
  Communicator& inner_;
  std::deque<Role> expected_;
  std::map<Role, Opened> opened_;
};

}  // namespace

struct AdaptiveLayer::Impl {
  explicit Impl(Communicator& communicator) : channels(communicator) {}
  SharedChannels channels;  // before those that refer to it
  std::vector<MoeLayer> layers;
};

AdaptiveLayer::AdaptiveLayer(std::vector<Schedule> schedules, const Layout& layout, int gpus_per_node,
                             const LayerShape& shape, Communicator& communicator, Device& device,
                             std::chrono::milliseconds deadline)
    : impl_(std::make_unique<Impl>(communicator)) {
  if (schedules.empty()) throw InvalidInput("schedules", "none", "at least one");
  impl_->layers.reserve(schedules.size());
  for (Schedule& s : schedules) {
    impl_->channels.expect(roles_of(s));
    impl_->layers.emplace_back(std::move(s), layout, gpus_per_node, shape, impl_->channels, device, deadline);
  }
}
AdaptiveLayer::~AdaptiveLayer() = default;
AdaptiveLayer::AdaptiveLayer(AdaptiveLayer&&) noexcept = default;

int AdaptiveLayer::schedules() const { return static_cast<int>(impl_->layers.size()); }

MoeLayer& AdaptiveLayer::by(int schedule) {
  if (schedule < 0 || schedule >= schedules())
    throw InvalidInput("schedule", std::to_string(schedule), "0 to " + std::to_string(schedules() - 1));
  return impl_->layers[static_cast<std::size_t>(schedule)];
}

}  // namespace topomoe
