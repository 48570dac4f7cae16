// What a layer's counts and bytes must be, by counting tokens one by one. From the chosen experts and the
// definition of a layout alone: neither schedules nor the layout's own functions nor planner headers.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tests/support/layer_world.hpp"

namespace topomoe::testing {

using Ids = std::vector<std::vector<std::int32_t>>;  // by rank: [tokens, top_k]; negative: nowhere

// Where things are. One pipeline stage; ranks run etp-ep-edp or etp-edp-ep. Copies of experts are numbered by expert,
// then by replica.
struct Places {
  Layout l;
  int gpus_per_node = 8;
  std::vector<int> place_of;  // by copy: index in the EP group
  int ep_index(int rank) const;
  int ep_member(int rank, int index) const;  // of rank's EP group
  int owner(int rank, int copy) const { return ep_member(rank, place_of[static_cast<std::size_t>(copy)]); }
  int local(int rank) const;  // copies that a rank holds
  int node(int rank) const { return rank / gpus_per_node; }
  // The member of rank's EP group on that node with rank's own index among its node's members.
  int relay(int rank, int on_node) const;
  // Of rank's EP group: all members, those on its node, those that relay() finds on any node.
  std::vector<int> ep_group(int rank) const, on_node(int rank) const, on_rail(int rank) const;
};
Places places(const LayerCase& c);

// Copies to which the tokens that each rank injects go, from the experts of those that each holds: a part of the TP
// group's where `sliced`, all of them where not. Replicas take turns by token; a choice beyond capacity is -1.
Ids injected_ids(const LayerCase& c, const Ids& held, bool sliced);
// Of any T rows cut into parts, part i is [T i / parts, T (i+1) / parts).
int part_size(int total, int parts, int index);

// Counts that every rank knows all about.
class DrawnCounts final : public CountSource {
 public:
  DrawnCounts(const LayerCase& c, const Ids& held, bool sliced, int chunks);
  double count(Symbol symbol, int chunk, int source, int index) const override;

 private:
  Places places_;
  int top_k_, chunks_;
  std::vector<int> held_;
  Ids injected_;
};

// How the bytes of a transport are counted from ids alone: a new transport adds a Way and its row in way_of().
enum class Way : std::uint8_t { flat, two_level, node_dedup, gather };
Way way_of(std::string_view transport);  // throws std::logic_error for one that nobody counts yet

struct TrafficMatrix {
  std::vector<std::vector<Traffic>> forward, backward;  // [from][to]; messages are not counted
};
// Tokens are counted by the chunks of both passes. A backward that is cut otherwise than the forward finds ids and
// weights out of order: where they travel, they do so again.
struct PassChunks {
  int forward = 1, backward = 1;
  bool recut = false;
};
TrafficMatrix expect_traffic(const LayerCase& c, const Ids& held, bool sliced, Way way, const PassChunks& chunks);

}  // namespace topomoe::testing
