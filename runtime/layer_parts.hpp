// What everything that executes a schedule is made of, checked to fit together: schedule, groups, channels.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "runtime/executor.hpp"

namespace topomoe {

// Throws InvalidInput unless in range.
Capacity capacity_of(const LayerOptions& options);

// Stays where it is: its context refers to its other members.
struct LayerParts {
  // Collective: opens one channel for each group role that the schedule uses, unless the channels that are shared (of
  // the same communicator, layout and nodes; null: none are) have it. Throws InvalidInput.
  LayerParts(Schedule its_schedule, const Layout& layout, int gpus_per_node, const LayerShape& its_shape,
             Communicator& communicator, Device& device, std::chrono::milliseconds deadline,
             std::shared_ptr<GroupChannels> shared = nullptr);
  LayerParts(const LayerParts&) = delete;
  LayerParts& operator=(const LayerParts&) = delete;

  // The caller's tensor is the buffer of that name which is not an alias.
  int boundary(const std::string& name) const;
  // The rows of a caller's tensor [.., hidden] from `first` on, read or written, are that buffer in this pass.
  void bind(PassState& pass, const std::string& buffer, const void* tensor, std::int64_t first) const;
  // The pass begins with `rows` tokens held by this rank.
  void hold(PassState& pass, std::int64_t rows) const;

  Schedule schedule;
  LayerShape shape;
  RankGroups groups;
  ExpertPlacement placement;
  std::shared_ptr<GroupChannels> its_channels;
  GroupChannels& channels;
  ExecutorContext context;
};

}  // namespace topomoe
