// Layers whose tokens travel as pairs, a row for each of a token's k experts, and are combined where they came
// from: pack, a way out, experts, the way back, combine. What lies between is a PairsWay.
//
// With ETP = t a rank holds 1/t of each of its experts. `sliced` ranks then received different tokens:
// they all-gather rows over ETP before the experts and reduce-scatter partial sums after. `replicated`
// ranks received the same: they all-reduce the partial sums, as reduce-scatter and all-gather of
// slices. Both add the t shards of a row in rank order, which is why their outputs agree bit for bit.
#pragma once

#include "planner/schedules/draft.hpp"

namespace topomoe {

// The way of a chunk's pairs between the ranks of an EP group.
class PairsWay {
 public:
  virtual ~PairsWay() = default;
  virtual std::string name() const = 0;
  // The EP group, in the order in which rows for its members leave.
  virtual RankSet leaving() const = 0;
  // Ticks from the first exchange to rows that have arrived.
  virtual int hops() const = 0;
  // The counts that it needs: at the end each rank must know what each source has for it.
  virtual void exchange_counts(LayerDraft& d) = 0;
  // From `send` (my rows by_dest) to `recv` (rows for me, by_source over the EP group). `tag` begins all names.
  virtual void out(LayerDraft& d, double slot, const std::string& tag, int c, int send, int recv) = 0;
  // Chunks are other ones from here on: what is kept of them is of no use.
  virtual void recut() {}
  // From rows as they arrived to rows as they left.
  virtual void back(LayerDraft& d, double slot, const std::string& tag, int c, int done, int returned) = 0;
};

Schedule build_pairs_layer(const ScheduleRequest& request, PairsWay& way);

}  // namespace topomoe
