// Which algorithm moves the tokens of one layout: every token split x transport x chunks x pieces that
// applies, priced on its timeline, the fastest first.
//
// The first guess for n (DESIGN 6) is not needed: the list of n is short and walked upward until two in a
// row are slower.
#pragma once

#include <limits>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "planner/price.hpp"
#include "planner/schedules/build.hpp"

namespace topomoe {

struct AlgorithmOptions {
  std::string split, transport;             // restrict; empty: all
  int chunks = 0;                           // 0: any
  std::map<std::string, int> transports;    // only these, up to that EP; empty: all
  bool train = true;                        // backward too
  bool gated = true, fp8_dispatch = false;  // as ScheduleRequest
};

struct Algorithm {
  TokenSplit split = TokenSplit::sliced;
  std::string transport;
  bool gated = true, fp8_dispatch = false;
  Cut forward, backward;
  double forward_s = 0, backward_s = 0;                  // on the timeline
  double forward_bound_s = 0, backward_bound_s = 0;      // that no number of chunks can beat
  double forward_compute_s = 0, backward_compute_s = 0;  // of the experts, alone
  double idle_s = 0;                                     // of the inter-node lane in the backward
  std::vector<Interval> idle;                            // when
  double wgrad_s = 0;                                    // until the experts' weight gradients are there
  // A backward that takes x longer than its bound leaves the inter-node lane idle for at most x longer than this.
  double idle_bound_s = std::numeric_limits<double>::infinity();
  double network_s = 0;  // of both passes, that a NIC is busy at its raw rate
  // A MoE layer of a micro-batch whose forward runs so often.
  double time_s(double forwards) const { return forwards * forward_s + backward_s; }
};

// "sliced flat n=4" and so on, as Schedule::name.
std::string name(const Algorithm& a);

// Schedules by request; many layouts ask for the same ones.
class ScheduleCache {
 public:
  struct Entry {
    Schedule schedule;
    PassShape forward, backward;
  };
  const Entry& get(const std::string& transport, const ScheduleRequest& request);

 private:
  std::map<std::pair<std::string, ScheduleRequest>, Entry> known_;
};

// Splits and transports that apply to the layout, each at n = 1.
std::vector<Algorithm> list_algorithms(const RankGroups& groups, const AlgorithmOptions& options);
ScheduleRequest request_for(const Layout& layout, const Algorithm& a);
SharedPart shared_part(const Model& model, int kind);
// Tokens that a rank sends into the exchange, of those that its TP group holds.
double injected(const Layout& layout, TokenSplit split, double tokens_of_tp_group);
// Fills in the times.
void price(Algorithm& a, LayerPricer& pricer, ScheduleCache& cache, const Layout& layout,
           const AlgorithmOptions& options);
// The split and transport of `a` with every n and r worth a thought; `priced` is increased by the number of schedules
// priced. The passes are cut alike, and in the last one each as suits it best,
// repacking of what was saved included.
std::vector<Algorithm> price_chunks(Algorithm a, LayerPricer& pricer, ScheduleCache& cache, const Layout& layout,
                                    double tokens_injected, const AlgorithmOptions& options, std::int64_t& priced);

// Of algorithms and the step times that they make: the fastest, or one that is within 1% of it, which no model here can
// tell apart, and keeps the NICs least busy (what is not sent is not at risk). The first of equals.
struct Outcome {
  Algorithm algorithm;
  double step_ms = 0;
};
std::size_t choose(std::span<const Outcome> outcomes);

}  // namespace topomoe
