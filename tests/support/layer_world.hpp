// Runs one MoE layer, forward and backward, on ranks that are threads, and puts the pieces together: what
// a single machine without any parallelism would have computed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/communicator_counting.hpp"
#include "tests/support/reference_layer.hpp"
#include "topomoe/moe_layer.hpp"

namespace topomoe::testing {

struct LayerCase {
  Layout layout;
  int gpus_per_node = 8;
  ReferenceLayer shape{16, 24, 4, 2, true};
  std::vector<int> tokens;  // held: by TP group, or by rank under sequence parallelism; reused cyclically
  DType dtype = DType::f32;
  std::uint64_t seed = 1;
  ExpertOwners owners;  // empty: even blocks
  // How far tokens, router, gate, up and down are moved, each along a direction of its own in [-1, 1).
  std::array<double, 5> nudge{};
};
// Everything of it on one line, for SCOPED_TRACE.
std::string describe(const LayerCase& c);

int held_tokens(const LayerCase& c, int rank);
// Tokens of a TP group are drawn as one sequence: under sequence parallelism its ranks hold consecutive
// parts of it, otherwise each holds all of it. The first of `rank`'s tokens in its group's sequence.
int first_held_token(const LayerCase& c, int rank);

ReferenceWeights make_weights(const LayerCase& c);
// Of all TP groups, one after another: [tokens, hidden].
Values make_tokens(const LayerCase& c);
Values make_output_grads(const LayerCase& c);

// The memory of one rank: what it hands to its layer, in the case's dtype, and what it gets back.
struct RankTensors {
  RankTensors(const LayerCase& c, const ReferenceWeights& all, int rank);
  std::int64_t rows;
  std::vector<std::byte> x, dy, y, dx;
  std::vector<float> router;
  std::vector<std::byte> gate, up, down;
  std::vector<float> drouter, dgate, dup, ddown;
  LayerWeights weights() const { return {router.data(), gate.data(), up.data(), down.data()}; }
  LayerGradients gradients() { return {drouter.data(), dgate.data(), dup.data(), ddown.data()}; }
};

// Of a TP group whose ranks all hold what the busiest rank of all does.
double tokens_of_group(const LayerCase& c);
// Sends nearly all tokens to the first experts, in fp32: the first feature of every token becomes 1, and the router's
// weight of it ranks experts by Zipf's law.
void make_zipf(const LayerCase& c, RankTensors& t, double exponent);

MoeLayer make_layer(const LayerCase& c, const Schedule& schedule, Communicator& communicator, Device& device,
                    std::chrono::milliseconds deadline = std::chrono::seconds(30));

// As memory of that dtype has them, and as its values are.
std::vector<std::byte> encode(const Values& values, DType dtype);
Values rounded(Values values, DType dtype);
// In fp32.
std::vector<float> decode(const std::vector<std::byte>& bytes, DType dtype);
ReferenceWeights zero_weights(const LayerCase& c);
// Adds a rank's share of the weights' gradients to where they belong.
void add_shards(const LayerCase& c, int rank, const RankTensors& tensors, ReferenceWeights& sum);

struct LayerResult {
  std::vector<std::vector<float>> output, token_grads;            // by rank, as held, in fp32
  ReferenceWeights grads;                                         // summed over ranks, shards put together
  std::vector<std::vector<StepTrace>> forward, backward;          // by rank
  std::vector<std::vector<Traffic>> sent_forward, sent_backward;  // by rank, by peer, as its transport saw them
};
// `packed`: with the experts' weights in the device's order (MoeLayer::pack_weights).
LayerResult run_layer(const LayerCase& c, const Schedule& schedule, bool packed = false);

// The same by definition; output and token_grads laid out like run_layer's.
struct ExpectedResult {
  std::vector<Tensor> output, token_grads;
  std::vector<std::vector<std::int32_t>> ids;  // by rank, of the tokens it holds
  ReferenceGradients grads;
  bool decided = true;
};
// `sliced`: whether each rank of a TP group routes its own part of the tokens, which capacity depends on.
ExpectedResult expect_layer(const LayerCase& c, bool sliced = true);

// max over elements of |actual - value| / bound: at most 1 where the bound holds.
double worst_of_bound(const std::vector<float>& actual, const Tensor& expected);
double worst_of_bound(const Values& actual, const Tensor& expected);
// |actual - value|_2 and |value|_2, squared, of everything in a result.
struct Distance {
  double difference = 0, size = 0;
};
Distance distance(const LayerResult& actual, const ExpectedResult& expected);

}  // namespace topomoe::testing
