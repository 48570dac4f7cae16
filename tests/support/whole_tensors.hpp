// The tensors of a WholeCase, whole and as each rank holds them. Internal to whole_layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/support/whole_layer.hpp"

namespace topomoe::testing::whole {

using Index = std::size_t;
inline Index ix(std::int64_t i) { return static_cast<Index>(i); }

int held_by(const WholeCase& c, int rank);
// A rank's rows of its TP group's tensor.
Values held_part(const WholeCase& c, int rank, const Values& group);

WholeWeights weights_of(const WholeCase& c);
enum class Salt : std::uint64_t { x = 1000, dy = 2000 };
Values drawn(const WholeCase& c, int group, Salt salt);
// Rows of the case's width and dtype as conversion to fp8 and back leaves them.
Values through_fp8(const WholeCase& c, const Values& rows);

// Of a tensor [outer, rows, columns] what lies in rows [r0, r1) and columns [c0, c1) of these of the outer ones.
struct Block {
  Index rows, columns;
  std::vector<Index> outer;
  Index r0, r1, c0, c1;
  template <class Visit>
  void each(Visit visit) const {  // visit(index, outer)
    for (const Index o : outer)
      for (Index r = r0; r < r1; ++r)
        for (Index k = c0; k < c1; ++k) visit((o * rows + r) * columns + k, o);
  }
};
// What a rank holds of each tensor of WholeWeights::all(), in that order.
std::vector<Block> blocks_of(const WholeCase& c, int rank);
inline bool is_fp32(Index tensor) { return tensor == 0 || tensor == 7; }

// A rank's share of the gradients, in one sequence of all whole tensors.
Values share_of(const WholeCase& c, int rank, const std::vector<std::vector<float>>& grads);

}  // namespace topomoe::testing::whole
