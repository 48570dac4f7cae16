// `flat`: pack, one exchange over the EP group, experts, and the same way back (DESIGN 5).
//
// MoNTA is sliced, ETP = t, n chunks: the gather of chunk i over ETP (inside the node) runs beside the exchange
// of chunk i+1 (between nodes).

#include "planner/schedules/build.hpp"
#include "planner/schedules/pairs_layer.hpp"

namespace topomoe {
namespace {

class Flat final : public PairsWay {
 public:
  std::string name() const override { return "flat"; }
  RankSet leaving() const override { return me({Role::ep}); }
  int hops() const override { return 1; }

  void exchange_counts(LayerDraft& d) override {
    d.exchange_counts("counts", Role::ep, {{Symbol::pairs, me(), peer()}});
  }
  void out(LayerDraft& d, double slot, const std::string& tag, int c, int send, int recv) override {
    d.move(slot, StepKind::exchange, numbered(tag + "dispatch", c), c, Role::ep, to_dest(send, peer()),
           from_source(recv, d.chunk(c), peer()));
  }
  void back(LayerDraft& d, double slot, const std::string& tag, int c, int done, int returned) override {
    d.move(slot, StepKind::exchange, numbered(tag + "return", c), c, Role::ep, from_source(done, d.chunk(c), peer()),
           to_dest(returned, peer()));
  }
};

}  // namespace

Schedule build_flat(const ScheduleRequest& request) {
  Flat way;
  return build_pairs_layer(request, way);
}

}  // namespace topomoe
