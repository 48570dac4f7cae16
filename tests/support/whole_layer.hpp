// A layer with all that may stand around its routed experts (router options, losses, shared expert, capacity, replicas,
// recomputation, bounded memory), forward and backward over any communicator, against its definition in double
// (reference_router.hpp). Tolerances are stated, not derived: layer_matrix has bounds, of plainer layers.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/layer_cases.hpp"
#include "tests/support/reference_router.hpp"

namespace topomoe::testing {

struct WholeCase {
  Layout layout;
  int gpus_per_node = 2;
  std::vector<int> tokens;  // by TP group, or by rank under sequence parallelism; reused cyclically
  LayerShape shape;
  ScheduleRequest request;
  std::string transport = "flat";
  bool biased = false;
  bool first_experts = false;  // by a bias: all tokens go to those
  // The router looks at the first 128 values of a token only, which fp8 keeps as they are; and tokens are what fp8
  // makes of them before they come to the layer.
  bool router_sees_first = false, through_fp8 = false;
  MoeLayer::Keep keep = MoeLayer::Keep::all;
  LayerOptions options = {};  // with tokens: so few that a pass with any takes several rounds
};
std::string describe(const WholeCase& c);
bool applies(const WholeCase& c);

LayerShape whole_shape(DType dtype = DType::f32);
LayerShape with_shared(LayerShape shape, SharedGate gate);
LayerShape without_gate(LayerShape shape);
LayerShape deepseek_v3(LayerShape shape);
// As many pieces as chunks; the schedule has the steps that the shape asks for.
WholeCase whole_case(const Layout& l, const LayerShape& shape, TokenSplit split, int chunks, int backward_chunks = 0);
// Every way in which ranks of a TP group may hold and inject tokens.
std::vector<WholeCase> each_intake(const LayerShape& shape, int chunks = 2, int backward_chunks = 0);
// All of these under every transport.
std::vector<WholeCase> under_each_transport(const std::vector<WholeCase>& cases);
// Transports x intakes x what came last to the layer, several of it at once.
std::vector<WholeCase> whole_matrix();

// Tokens of a TP group that each of its ranks routes; one entry where all route the same.
std::vector<int> parts_of(const WholeCase& c, int group);

// What one rank gets back.
struct WholeRank {
  std::vector<std::byte> y, dx;
  std::vector<std::vector<float>> grads;  // what it holds of each of WholeWeights::all()
  RouterReport report;
  std::size_t saved_bytes = 0;
  LayerCounters counters;
};
// So many steps of two forwards, of which the first gets its backward; gradients of replicas are summed over them.
WholeRank run_rank(const WholeCase& c, Communicator& communicator, Device& device, int steps = 1,
                   const std::function<void(int step)>& after_step = {});
// By rank, on ranks that are threads.
std::vector<WholeRank> run_threads(const WholeCase& c, int steps = 1);

// Collective: what is off as this rank sees it, one line each; gradients of weights, which all ranks share, as rank 0
// does.
std::vector<std::string> check_whole(const std::vector<WholeCase>& cases, Communicator& communicator);
// The same on threads: each line a failure.
void expect_definition(const std::vector<WholeCase>& cases);

}  // namespace topomoe::testing
