// The exchange alone, out of a whole forward: what payload takes on its way from packed rows to the ranks of its
// experts (Part::exchange), and which way of travelling a planner would take for it.
//
// Model: price.hpp's, of those steps only. What `topomoe bench alltoall` times beside it; and whole passes, at any
// size. Ignored: whatever price.hpp ignores; counts are expectations, so that the rows of one drawing differ by chance.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "planner/algorithm_choice.hpp"
#include "planner/price.hpp"

namespace topomoe {

// Of what travels, and over whom. Ranks are the topology's GPUs in order.
struct ExchangeOffer {
  Layout layout;
  int gpus_per_node = 1;
  LayerWidths widths;
  std::vector<double> popularity;  // of experts
  double tokens = 0;               // that one TP group holds
  DType dtype = DType::f32;
};

class ExchangePricer {
 public:
  // Throws InvalidInput where the topology has other ranks, or other ones on a node.
  ExchangePricer(const Topology& topology, std::span<const Calibration> calibrations, const ExchangeOffer& offer);
  ExchangePricer(const ExchangePricer&) = delete;
  PredictedPass price(const Schedule& schedule);
  // Of the whole layer: what `topomoe run` and `bench moe-layer` compare with.
  PredictedPass price_layer(const Schedule& schedule, bool backward) { return pricer_.price(schedule, backward); }
  const Machine& machine() const { return machine_; }
  // Whether what it takes was measured on such a group here, and not carried over from elsewhere. Of a step that
  // moves nothing between ranks: true.
  bool measured(const Step& step) const;
  // Of the curve that it takes: relative, of nine points in ten. 0 where nothing moves between ranks.
  double spread(const Step& step) const;
  // "inter_node exchange of ep: measured: ..." a line for each collective that a schedule's exchange asks for.
  std::vector<std::string> sources(const Schedule& schedule) const;

 private:
  const CollectiveCurve* curve(const Step& step) const;  // null: nothing travels

  RankGroups groups_;
  Router router_;
  TrafficModel traffic_;
  Machine machine_;
  RoutingOdds odds_;
  LayerPricer pricer_;
};

// Every way that the layout allows, in these numbers of chunks as far as each chunk has a token.
struct ExchangeCandidate {
  TokenSplit split = TokenSplit::sliced;
  std::string transport;
  int chunks = 1;
};
std::vector<ExchangeCandidate> exchange_candidates(const Layout& layout, int gpus_per_node, double tokens,
                                                   std::span<const int> chunks);

// Of those within 5% of the fastest, which is what predictions are off by, the one whose chunks are nearest eight, then
// the fastest; but none that is predicted to take over 1% more than the same in one piece. A few chunks hide what the
// curves do not see (copies beside the network, rendezvous), and cost messages, which they see: where packets are dear,
// all. Measured by `tests/cluster/bench.sh baselines`: 8 chunks took 0.92 to 1.004 of the time of 4 in five shapes.
// `algorithms`: the same for the same in other numbers of chunks. `predicted_us` is not empty.
std::size_t pick(std::span<const double> predicted_us, std::span<const int> chunks,
                 std::span<const std::string> algorithms);

}  // namespace topomoe
