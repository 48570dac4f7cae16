// `two_level`: pairs cross the node first, to the member of my node on the destination's rail, and then their
// rail (DESIGN 5; Tutel's 2DH). The same rows as `flat` in N-1 messages between nodes instead of W-g, each g times
// as large; inside the node they all move once, T k P (g-1)/g.
//
// Between the two the relay turns its rows around, from the order in which sources sent them to the order of
// destinations; both orders follow from counts. Rows reach the experts in the order in which flat's do, so
// that outputs and all gradients are flat's, bit for bit.

#include "planner/schedules/build.hpp"
#include "planner/schedules/pairs_layer.hpp"

namespace topomoe {
namespace {

class TwoLevel final : public PairsWay {
 public:
  std::string name() const override { return "two_level"; }
  RankSet leaving() const override { return me({Role::node, Role::rail}); }
  int hops() const override { return 2; }

  void exchange_counts(LayerDraft& d) override {
    d.exchange_counts("counts in node", Role::node, {{Symbol::pairs, me(), peer({Role::rail})}});
    d.exchange_counts("counts", Role::rail, {{Symbol::pairs, me({Role::node}), peer()}});
  }
  void out(LayerDraft& d, double slot, const std::string& tag, int c, int send, int recv) override {
    const Element element = d.element_of(send);
    const int came = at_relay(d, tag + "node recv", c, Order::by_source, element),
              goes = at_relay(d, tag + "rail send", c, Order::by_dest, element);
    d.move(slot, StepKind::exchange, numbered(tag + "dispatch in node", c), c, Role::node,
           to_dest(send, peer({Role::rail})), from_source(came, d.chunk(c), peer()));
    if (static_cast<int>(turn_maps_.size()) == c) {
      turn_maps_.push_back(d.map(numbered(tag + "turn", c), whole(came), whole(goes)));
      d.index(slot + 1, numbered(tag + "turn", c), c, turn_maps_.back());
    }
    d.move(slot + 1, StepKind::repack, numbered(tag + "turn", c), c, Role::rail, whole(came), whole(goes),
           {.map = map_of(c)});
    d.move(slot + 1, StepKind::exchange, numbered(tag + "dispatch", c), c, Role::rail, to_dest(goes, peer()),
           from_source(recv, d.chunk(c), peer({Role::node})));
  }
  void back(LayerDraft& d, double slot, const std::string& tag, int c, int done, int returned) override {
    const int came = at_relay(d, tag + "rail recv", c, Order::by_dest, Element::payload),
              goes = at_relay(d, tag + "node send", c, Order::by_source, Element::payload);
    d.move(slot, StepKind::exchange, numbered(tag + "return", c), c, Role::rail,
           from_source(done, d.chunk(c), peer({Role::node})), to_dest(came, peer()));
    d.move(slot + 1, StepKind::repack, numbered(tag + "turn back", c), c, Role::rail, whole(came), whole(goes),
           {.map = map_of(c), .transpose = true});
    d.move(slot + 1, StepKind::exchange, numbered(tag + "return in node", c), c, Role::node,
           from_source(goes, d.chunk(c), peer()), to_dest(returned, peer({Role::rail})));
  }

  void recut() override { turn_maps_.clear(); }

 private:
  // Rows of my node's members for my rail's.
  static int at_relay(LayerDraft& d, const std::string& name, int c, Order order, Element element) {
    return d.rows(numbered(name, c), Symbol::pairs, d.chunk(c), me({Role::node}), me({Role::rail}), order,
                  Storage::pass, element);
  }
  int map_of(int c) const { return turn_maps_[static_cast<std::size_t>(c)]; }

  std::vector<int> turn_maps_;  // by chunk
};

}  // namespace

Schedule build_two_level(const ScheduleRequest& request) {
  TwoLevel way;
  return build_pairs_layer(request, way);
}

}  // namespace topomoe
