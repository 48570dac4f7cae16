// Which places of an EP group (the ranks that members(..., Role::ep, ...) lists) hold which experts: even blocks by id
// unless said otherwise; else any number on each, none included, in any order, and an expert at several places.
//
// What travels is a copy of an expert. Copies are numbered by expert, then by replica: where no expert has replicas, a
// copy's number is its expert's id. All EP groups place alike, and an expert's shards lie at the place of the expert.
// Ignored: placements that differ between EP groups, shards of one expert at different places.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace topomoe {

// By expert, the places that hold it, in the order of its replicas. Empty: even blocks.
using ExpertOwners = std::vector<std::vector<int>>;

class ExpertPlacement {
 public:
  // Throws InvalidInput (`where`, "expert_owners[3]") unless each of the experts has an owner, all different and in
  // [0, places); with no owners given, unless the places divide the experts.
  ExpertPlacement(int experts, int places, const ExpertOwners& owners = {}, std::string_view where = "expert_owners");

  int experts() const { return static_cast<int>(first_copy_.size()) - 1; }
  int places() const { return static_cast<int>(first_held_.size()) - 1; }
  int copies() const { return static_cast<int>(place_of_.size()); }
  bool replicated() const { return copies() > experts(); }

  int place_of(int copy) const { return place_of_[index(copy)]; }
  int expert_of(int copy) const { return expert_of_[index(copy)]; }
  // How many copies of its place come before it.
  int index_at_place(int copy) const { return index_[index(copy)]; }
  // Copies at a place, ascending: by expert. The tensors of a rank stand in this order.
  std::span<const int> held_by(int place) const { return range(held_, first_held_, place); }
  int replicas(int expert) const { return first_copy_[index(expert + 1)] - first_copy_[index(expert)]; }
  // Where a source's token of that index goes for the expert: its replicas take turns.
  int copy_for(int expert, std::int64_t token) const {
    return first_copy_[index(expert)] + static_cast<int>(token % replicas(expert));
  }

 private:
  static std::size_t index(int i) { return static_cast<std::size_t>(i); }
  static std::span<const int> range(const std::vector<int>& of, const std::vector<int>& first, int i) {
    return std::span(of).subspan(index(first[index(i)]), index(first[index(i + 1)] - first[index(i)]));
  }
  std::vector<int> first_copy_;                    // by expert, and the end
  std::vector<int> place_of_, expert_of_, index_;  // by copy
  std::vector<int> held_, first_held_;             // copies by place; by place, where they begin, and the end
};

// Owners that say what even blocks are.
ExpertOwners even_blocks(int experts, int places);

}  // namespace topomoe
