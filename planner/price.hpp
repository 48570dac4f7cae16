// The price of a schedule on a machine: each step's time alone, what it asks of which resource, and the
// fluid timeline of the whole pass, on the busiest rank.
//
//   compute  the compute model's expert_ffn of the rows of each expert, by the kernel of the phase (planner/rates)
//   copies   bytes read and written / (HBM x efficiency), plus a launch
//   network  the collective model's curve for the group, at the size that loads the slowest link as much
//
// price() adds up each class's busiest link step by step: what this timeline cannot beat, and what the search
// prunes by. lower_bound() adds up each link over the pass, at raw rates and without latencies: what no
// execution can beat. Ignored: launch overlap, stragglers other than skew; index maps are priced as if a kernel
// built them (today's runtime builds them on the host), copies on the rank with the busiest experts; the two
// directions of NVLink are one resource, which under skew is too strict.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "planner/expected_counts.hpp"
#include "planner/machine.hpp"
#include "planner/timeline.hpp"
#include "planner/traffic.hpp"
#include "topomoe/model.hpp"
#include "topomoe/plan.hpp"

namespace topomoe {

// A layer as the runtime sees it: widths, and bytes of a payload element.
struct LayerWidths {
  double hidden = 0, ffn_shard = 0, experts = 0, top_k = 0, element_bytes = 2;
  int matrices = 3;  // 2 where experts are not gated
};

// What of a pass does not depend on layout and tokens: worked out once a schedule, since a search prices it on many.
struct PassShape {
  std::vector<std::uint64_t> keys;   // steps of equal keys cost the same
  FlowOrder order;                   // by lane, and by what each waits for
  std::vector<std::uint8_t> chosen;  // one a step; empty: all
};
// Steps that are not chosen (planner/plan/schedule_part.hpp) take no time.
PassShape pass_shape(const Schedule& schedule, bool backward, std::vector<std::uint8_t> chosen = {});

// Numbers of chunks that a search tries; lane_bound holds for these.
inline constexpr int kChunkCounts[] = {1, 2, 3, 4, 6, 8, 12, 16};

// Prices schedules of one layout. Not thread-safe; keeps what it has worked out.
class LayerPricer {
 public:
  LayerPricer(TrafficModel& traffic, const Machine& machine, const RankGroups& groups, const LayerWidths& widths,
              const RoutingOdds& odds, double tokens_of_tp_group);

  PredictedPass price(const Schedule& schedule, bool backward, std::vector<std::uint8_t> chosen = {});
  // The same without words, for a search.
  struct Times {
    double time_s = 0, bound_s = 0;
    double experts_s = 0;          // alone
    double network_s = 0;          // that a NIC is busy, at its raw rate
    double inter_node_idle_s = 0;  // in which the inter-node lane has nothing to do
    // Of a backward: when, and when the last weight gradient is there.
    std::vector<Interval> idle;
    double wgrad_s = 0;
  };
  Times times(const Schedule& schedule, bool backward, const PassShape& shape);
  // What no execution of this pass can beat.
  struct Bound {
    double seconds = 0;
    std::string by;  // "compute", "hbm" or a link's name
  };
  Bound lower_bound(const Schedule& schedule, bool backward);
  // What no number of chunks or pieces brings this pass below, on this timeline. Of a schedule in one chunk.
  struct LaneBound {
    // A lane runs its steps one after another, each at best in the number of cuts that takes least in all; it begins
    // when a first chunk has come through what stands before it, and a last one has to go through what follows.
    double time_s = 0;
    double inter_node_s = 0;  // that the inter-node lane is busy
  };
  LaneBound lane_bound(const Schedule& schedule, bool backward, const PassShape& shape);
  void forget_bounds() { bounding_costs_ = {}; }  // memory that only lane_bound used
  // Seconds of link time by class that the last priced pass put on the busiest link, added up over steps.
  const std::vector<LinkClassLoad>& last_loads() const { return loads_; }

 private:
  struct Use {
    int resource;
    double effective_s, bound_s;
  };
  struct Cost {
    double alone_s = 0, bytes = 0;
    std::vector<Use> uses;
    std::string_view bottleneck;                 // a word, or the name of a link that this pricer keeps
    double in_cuts_s = 0;                        // least sum over 1 to 16 equal parts; 0: one part takes least
    double one_cut_s = 0;                        // what the smallest of these parts takes at least
    std::vector<std::pair<int, double>> shares;  // of resources, at full speed, as the timeline reads them
  };
  void expect(const Schedule& s);  // fills counts_
  const Cost& cost(const Schedule& s, const Step& step, std::uint64_t key);
  Cost cost_of(const Schedule& s, const Step& step);
  // Fills running_. Valid until the next run.
  std::span<const Interval> run(const Schedule& s, bool backward, const PassShape& shape);
  Cost communication(const Schedule& s, const Step& step);
  Cost counts(const Step& step, int chunks);
  Cost experts(const Schedule& s, const Step& step);
  Cost memory_bound(const Schedule& s, const Step& step);
  double rows(const Schedule& s, const View& view, int peer) { return rows(s, view, me_, peer); }
  double rows(const Schedule& s, const View& view, int rank, int peer);
  // What the step puts on links, in rows of all chunks.
  const GroupLoad& load(const Schedule& s, const Step& step);
  double row_bytes(const Buffer& b) const;
  int resource(const std::string& name);
  const CollectiveCurve& curve(Collective op, Role group);
  std::vector<double> rows_by_expert(double rows) const;
  double ffn_s(std::span<const double> by_expert, StepKind kind) const;

  TrafficModel& traffic_;
  const Machine& machine_;
  const RankGroups& groups_;
  LayerWidths widths_;
  double tokens_;
  bool uniform_;
  const RoutingOdds& odds_;
  int me_ = 0;
  std::optional<ExpectedCounts> counts_;  // of the schedule at hand, when something asks
  bool bounding_ = false;                 // costs for lane_bound
  std::vector<std::string> resources_;
  std::unordered_map<std::uint64_t, double> rows_;         // by view, for all chunks
  std::unordered_map<std::uint64_t, GroupLoad> loads_of_;  // by view and group, where pairs differ
  std::unordered_map<std::uint64_t, Cost> costs_, bounding_costs_;
  const Cost nothing_;
  std::vector<const Cost*> running_;  // of the steps of the pass at hand
  std::vector<FlowView> flows_;
  std::vector<double> capacity_, bound_;
  FluidRun fluid_;
  std::vector<LinkClassLoad> loads_;
  std::map<std::pair<Collective, Role>, const CollectiveCurve*> curves_;
};

}  // namespace topomoe
