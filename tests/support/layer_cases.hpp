// Layer cases drawn from a seed: every way to fold TP, EP and ETP over a few ranks, and around it whatever
// a layer may meet (orders, nodes, uneven and missing tokens, top-k), the same on every platform.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "planner/schedules/build.hpp"
#include "tests/support/layer_world.hpp"

namespace topomoe::testing {

// A stream of deterministic choices.
class Draw {
 public:
  explicit Draw(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ULL + 0x1234567) {}
  std::uint64_t next();
  int below(int n) { return static_cast<int>(next() % static_cast<std::uint64_t>(n)); }
  bool coin() { return below(2) == 1; }
  template <class T>
  T of(std::initializer_list<T> choices) {
    return choices.begin()[below(static_cast<int>(choices.size()))];
  }

 private:
  std::uint64_t state_;
};

struct Fold {
  int tp, ep, etp;
};
// Every one with TP and EP 1..8 and ETP in {1, TP} that fits on at most `ranks` ranks, and EP 1 with some other ETP.
std::vector<Fold> folds(int ranks);
std::string name(const Fold& f);

// `decided` is guaranteed: seeds whose routing roundings could change are passed over.
struct DrawnCase {
  LayerCase c;
  ExpectedResult expected;
};
DrawnCase draw_case(const Fold& f, bool sequence_parallel, DType dtype, int ranks, Draw& draw);

// Even blocks, uneven ones, owners in any order, or replicas, as it comes; some ranks may get none.
ExpertOwners draw_owners(int experts, int ep, Draw& draw);

// Pieces 0: as many as chunks.
ScheduleRequest request(const Layout& l, TokenSplit split, int chunks, int pieces = 0);
// The same with a backward of its own, in two cases out of three.
ScheduleRequest draw_backward(ScheduleRequest request, Draw& draw);
int draw_pieces(int chunks, Draw& draw);
Layout layout(int world, int tp, int etp, int ep, bool sequence_parallel = false,
              ExpertOrder order = ExpertOrder::ep_inner);
// Names of all transports: tests run every row of the table.
std::vector<std::string_view> transport_names();
bool applies(std::string_view transport, const Layout& l, int gpus_per_node);

}  // namespace topomoe::testing
