// Which algorithm moves the tokens of one layout: every token split x transport x chunks x pieces that
// applies, priced on its timeline, the fastest first.
//
// The first guess for n (DESIGN 6) is not needed: the list of n is short and walked upward until two in a
// row are slower.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "planner/price.hpp"
#include "planner/schedules/build.hpp"

namespace topomoe {

struct AlgorithmOptions {
  std::string split, transport;  // restrict; empty: all
  int chunks = 0;                // 0: any
  bool train = true;             // backward too
  bool recompute = false;        // the forward twice, the second time before the backward
};

struct Algorithm {
  TokenSplit split = TokenSplit::sliced;
  std::string transport;
  int chunks = 1, pieces = 1;
  double time_s = 0;   // forward (+ backward)
  double bound_s = 0;  // resource bound of the same
  double idle_s = 0;   // of the inter-node lane in the last pass
};

// "sliced flat n=4" and so on, as Schedule::name.
std::string name(const Algorithm& a);

// Schedules by request; many layouts ask for the same ones.
class ScheduleCache {
 public:
  const Schedule& get(const std::string& transport, const ScheduleRequest& request);

 private:
  std::map<std::pair<std::string, ScheduleRequest>, Schedule> known_;
};

// Splits and transports that apply to the layout, each at n = 1.
std::vector<Algorithm> list_algorithms(const RankGroups& groups, const AlgorithmOptions& options);
ScheduleRequest request_for(const Layout& layout, const Algorithm& a);
// Fills in the times.
void price(Algorithm& a, LayerPricer& pricer, ScheduleCache& cache, const Layout& layout,
           const AlgorithmOptions& options);
// The best n and r for the split and transport of `a`; `priced` is increased by the number of timelines run.
Algorithm best_chunks(Algorithm a, LayerPricer& pricer, ScheduleCache& cache, const Layout& layout,
                      double tokens_injected, const AlgorithmOptions& options, std::int64_t& priced);

}  // namespace topomoe
