// JSON of a Schedule, written (schedule_json_read.cpp reads it).
//
// A rank set is "me", "peer" or "me.etp.ep"; a view is the name of its buffer, or an object with the
// buffer and its selectors; chunks are [begin, end). What has its default value is left out.
#include "planner/plan/schedule_words.hpp"

namespace topomoe {
namespace {

class Writer {
 public:
  explicit Writer(const Schedule& s) : schedule_(s) {}

  ordered_json write() {
    for (const Buffer& b : schedule_.buffers) add(buffers_, b.name);
    for (const IndexMap& m : schedule_.maps) add(maps_, m.name);
    ordered_json j = {{"name", schedule_.name},           {"split", schedule_.split},
                      {"transport", schedule_.transport}, {"intake", name_of(kIntakes, schedule_.intake)},
                      {"chunks", schedule_.chunks},       {"pieces", schedule_.pieces}};
    j["buffers"] = list(schedule_.buffers, [this](const Buffer& b) { return json(b); });
    j["maps"] = list(schedule_.maps, [this](const IndexMap& m) { return json(m); });
    for (const auto& [key, steps] : {std::pair{"forward", &schedule_.forward}, {"backward", &schedule_.backward}}) {
      Names names("step");
      for (const Step& s : *steps) add(names, s.name);
      j[key] = list(*steps, [&](const Step& s) { return json(s, names); });
    }
    return j;
  }

 private:
  void add(Names& names, const std::string& name) {
    if (!names.add(name))
      throw std::logic_error("topomoe bug: schedule " + schedule_.name + " uses the name \"" + name + "\" twice");
  }
  template <class T, class F>
  static ordered_json list(const std::vector<T>& values, F json) {
    ordered_json array = ordered_json::array();
    for (const T& value : values) array.push_back(json(value));
    return array;
  }

  static ordered_json json(Chunks c) { return {c.begin, c.end}; }
  static std::string json(const RankSet& set) {
    std::string text(name_of(kWhos, set.base));
    for (const Role role : set.spread) text += "." + std::string(to_string(role));
    return text;
  }
  static std::string json(const Split& split) { return json(RankSet{split.who, {split.role}}); }

  ordered_json json(const View& v) const {
    const std::string& buffer = buffers_.at(v.buffer);
    ordered_json j = {{"buffer", buffer}};
    if (v.chunks) j["chunks"] = json(*v.chunks);
    if (v.sources) j["sources"] = json(*v.sources);
    if (v.dests) j["dests"] = json(*v.dests);
    if (v.split) j["split"] = json(*v.split);
    if (v.block) j["block"] = name_of(kWhos, *v.block);
    return j.size() > 1 ? j : ordered_json(buffer);
  }
  ordered_json json(const Buffer& b) const {
    ordered_json j = {{"name", b.name}, {"symbol", name(b.symbol)}};
    if (b.chunks != Chunks{}) j["chunks"] = json(b.chunks);
    j["sources"] = json(b.sources);
    if (has_dests(b.symbol) || b.dests != RankSet{}) j["dests"] = json(b.dests);
    j["order"] = name_of(kOrders, b.order);
    if (b.together != 0) j["together"] = b.together;
    if (b.columns != Columns::hidden) j["columns"] = name_of(kColumns, b.columns);
    if (b.element != Element::payload) j["element"] = name_of(kElements, b.element);
    if (b.storage != Storage::pass) j["storage"] = name_of(kStorages, b.storage);
    if (b.blocks) j["blocks"] = to_string(*b.blocks);
    if (b.split) j["split"] = json(*b.split);
    if (b.alias >= 0) j["alias"] = buffers_.at(b.alias);
    return j;
  }
  ordered_json json(const IndexMap& m) const {
    ordered_json j = {{"name", m.name}, {"from", json(m.from)}, {"to", json(m.to)}};
    if (m.ids.buffer >= 0) j["ids"] = json(m.ids);
    return j;
  }
  static ordered_json json(const CountSlice& slice) {
    ordered_json j = {{"symbol", name(slice.symbol)}, {"sources", json(slice.sources)}};
    if (has_dests(slice.symbol) || slice.dests != RankSet{}) j["dests"] = json(slice.dests);
    return j;
  }
  ordered_json json(const Step& s, const Names& steps) const {
    ordered_json j = {{"name", s.name}, {"kind", name(s.kind)}};
    if (s.phase != StepPhase::forward) j["phase"] = name(s.phase);
    if (s.chunk >= 0) j["chunk"] = s.chunk;
    if (s.lane != Lane::compute) j["lane"] = name(s.lane);
    if (communicates(s.kind) || s.group != Role::ep) j["group"] = to_string(s.group);
    if (s.metadata) j["metadata"] = true;
    if (!s.in.empty()) j["in"] = list(s.in, [this](const View& v) { return json(v); });
    if (!s.out.empty()) j["out"] = list(s.out, [this](const View& v) { return json(v); });
    if (s.map >= 0) j["map"] = maps_.at(s.map);
    if (s.transpose) j["transpose"] = true;
    if (s.weights.buffer >= 0) j["weights"] = json(s.weights);
    if (s.shared_by_tp) j["shared_by_tp"] = true;
    if (s.beside) j["beside"] = true;
    if (!s.slices.empty()) j["slices"] = list(s.slices, [](const CountSlice& slice) { return json(slice); });
    if (!s.after.empty()) j["after"] = list(s.after, [&](int i) { return ordered_json(steps.at(i)); });
    return j;
  }

  const Schedule& schedule_;
  Names buffers_{"buffer"}, maps_{"map"};
};

}  // namespace

ordered_json to_json(const Schedule& schedule) { return Writer(schedule).write(); }

}  // namespace topomoe
