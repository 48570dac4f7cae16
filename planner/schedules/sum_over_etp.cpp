#include "planner/schedules/draft.hpp"

namespace topomoe {
namespace {

View part(View v, Who who) {
  v.split = Split{Role::etp, who};
  return v;
}

View block_of_peer(int buffer) {
  View v = whole(buffer);
  v.block = Who::peer;
  return v;
}

}  // namespace

void sum_over_etp(LayerDraft& d, double slot, const std::string& tag, int c, Buffer rows, int partial, const View& done,
                  bool metadata) {
  const bool alike = d.alike_over_etp();
  const MoveBy by{.metadata = metadata};
  const View sent = from_source(partial, d.chunk(c), {alike ? Who::me : Who::peer, rows.sources.spread});
  rows.blocks = Role::etp;
  if (alike) rows.split = Split{Role::etp};
  const int shards = d.buffer(std::move(rows));
  d.move(slot, StepKind::exchange, numbered(tag + "scatter shards", c), c, Role::etp,
         alike ? part(sent, Who::peer) : sent, block_of_peer(shards), by);
  d.move(slot, StepKind::ordered_sum, numbered(tag + "sum shards", c), c, Role::etp, whole(shards),
         alike ? part(done, Who::me) : done, by);
  if (alike)
    d.move(slot, StepKind::all_gather, numbered(tag + "gather sums", c), c, Role::etp, part(done, Who::me),
           part(done, Who::peer), by);
}

}  // namespace topomoe
