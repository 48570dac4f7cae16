// Prices of one MoE layer (of one kind), shared by all layouts of a search that differ only in pipeline, batch or
// recomputation.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <vector>

#include "planner/algorithm_choice.hpp"
#include "topomoe/model.hpp"

namespace topomoe {

// Not thread-safe. References stay valid as long as the object.
class LayerPrices {
 public:
  LayerPrices(const Model& model, int kind, DType dtype, const Machine& machine, TrafficModel& traffic,
              const RoutingOdds& odds, const AlgorithmOptions& options, ScheduleCache& schedules);

  // Every algorithm that applies, in one chunk; tokens: that a TP group holds.
  const std::vector<Algorithm>& in_one_chunk(const Layout& layout, double tokens);
  // The best chunks of in_one_chunk(...)[algorithm] where the forward runs `forwards` times a backward.
  const Algorithm& refined(const Layout& layout, double tokens, std::size_t algorithm, double forwards);

  // The best chunks of that split and transport, kept nowhere.
  Algorithm best_of(const Layout& layout, double tokens, const Algorithm& like, double forwards);

  const Schedule& schedule(const Layout& layout, const Algorithm& a);
  LayerWidths widths(const Layout& layout) const;
  std::int64_t timelines() const { return timelines_; }

 private:
  // What a price depends on: where the EP, ETP and TP groups lie, and how much they move.
  struct Key {
    int tp, etp, ep, stride;
    bool sequence_parallel;
    double tokens;
    auto operator<=>(const Key&) const = default;
  };
  struct Entry {
    // What one algorithm's pricing works out serves the others.
    Entry(LayerPrices& all, const Layout& layout, double tokens);
    Entry(const Entry&) = delete;  // the pricer refers to the groups
    Entry& operator=(const Entry&) = delete;
    RankGroups groups;
    LayerPricer pricer;
    std::vector<Algorithm> one;
    std::map<std::size_t, std::vector<Algorithm>> refined;  // by place in `one`
  };
  std::vector<Algorithm> in_chunks(Entry& e, const Layout& layout, double tokens, const Algorithm& a);
  Key key(const Layout& layout, double tokens) const;
  Entry& entry(const Layout& layout, double tokens);

  const Model& model_;
  int kind_;
  DType dtype_;
  const Machine& machine_;
  TrafficModel& traffic_;
  const RoutingOdds& odds_;
  const AlgorithmOptions& options_;
  ScheduleCache& schedules_;
  std::map<Key, Entry> known_;
  std::int64_t timelines_ = 0;
};

}  // namespace topomoe
