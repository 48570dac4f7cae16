// Runs one MoE layer, forward and backward, on ranks that are threads, and puts the pieces together: what
// a single machine without any parallelism would have computed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/reference_layer.hpp"
#include "topomoe/communicator.hpp"
#include "topomoe/moe_layer.hpp"

namespace topomoe::testing {

struct LayerCase {
  Layout layout;
  int gpus_per_node = 8;
  ReferenceLayer shape{16, 24, 4, 2, true};
  std::vector<int> tokens;  // held: by TP group, or by rank under sequence parallelism; reused cyclically
  DType dtype = DType::f32;
  std::uint64_t seed = 1;
};

struct LayerResult {
  std::vector<std::vector<float>> output, token_grads;  // by rank, as held, in fp32
  ReferenceWeights grads;                               // summed over ranks, shards put together
  std::vector<std::vector<StepTrace>> forward, backward;  // by rank
};

// Bytes that each rank handed to its transport for each peer, as an adaptor below the layer saw them.
using WrapCommunicator = std::function<std::unique_ptr<Communicator>(Communicator&)>;

LayerResult run_layer(const LayerCase& c, const Schedule& schedule, const WrapCommunicator& wrap = nullptr);

// The same by definition; output and token_grads laid out like run_layer's, but in double.
struct ExpectedResult {
  std::vector<Values> output, token_grads;
  std::vector<std::vector<std::int32_t>> ids;  // by rank, of the tokens it holds
  ReferenceWeights grads;
};
ExpectedResult expect_layer(const LayerCase& c);

int held_tokens(const LayerCase& c, int rank);
// max |a - b| / max(1, max |b|)
double error(const std::vector<float>& a, const Values& b);
double error(const Values& a, const Values& b);

}  // namespace topomoe::testing
