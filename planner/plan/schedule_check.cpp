// What must hold of a schedule whatever the counts and the layout (DESIGN 6). First, here: every index
// and range is sound, and the views of each step fit its kind, each other and its map. Then the flow:
// what a step reads was written, mapped and counted before (schedule_flow.cpp).
//
// Not checked, since counts or group sizes decide it: that a view's rows are consecutive, and that what
// one rank sends is what the other expects.

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "planner/plan/schedule_rules.hpp"

namespace topomoe {
namespace {

constexpr std::size_t kMaxSteps = 20'000;  // of a pass; the flow needs this squared bits, 50 MB
constexpr int kMaxAliases = 16;            // one after another; a longer chain is taken for a circle

class Checker {
 public:
  explicit Checker(const Schedule& s) : s_(s) {}

  std::vector<std::string> run() {
    if (s_.chunks < 1) say("chunks: {}: must be positive", s_.chunks);
    if (s_.pieces < 1 || (s_.chunks > 0 && s_.chunks % s_.pieces != 0))
      say("pieces: {}: must divide chunks = {}", s_.pieces, s_.chunks);
    unique("buffer", s_.buffers);
    unique("map", s_.maps);
    unique("forward step", s_.forward);
    unique("backward step", s_.backward);
    for (const Buffer& b : s_.buffers) buffer(b);
    where_.clear();
    for (const char* name : {"x", "y", "dy", "dx"}) caller_buffer(name);
    if (lines_.empty())  // views may now look at their buffers
      for (const IndexMap& m : s_.maps) map(m);
    where_.clear();
    for (const bool backward : {false, true}) {
      const auto& steps = backward ? s_.backward : s_.forward;
      if (steps.size() > kMaxSteps) say("{} steps in a pass: at most {}", steps.size(), kMaxSteps);
      if (lines_.empty())
        for (std::size_t i = 0; i < steps.size(); ++i) step(steps[i], i, backward);
      where_.clear();
    }
    return lines_.empty() ? check_flow(s_) : lines_;  // the flow relies on all of the above
  }

 private:
  template <class... T>
  void say(fmt::format_string<T...> format, T&&... values) {
    if (lines_.size() < kMaxViolations) lines_.push_back(where_ + fmt::format(format, std::forward<T>(values)...));
  }
  bool is_buffer(int i) const { return i >= 0 && i < static_cast<int>(s_.buffers.size()); }
  const Buffer& at(int i) const { return s_.buffers[static_cast<std::size_t>(i)]; }

  template <class T>
  void unique(const char* what, const std::vector<T>& things) {
    std::set<std::string> seen;
    for (const T& thing : things) {
      if (thing.name.empty()) say("a {} has no name", what);
      if (!seen.insert(thing.name).second) say("two {}s are named \"{}\"", what, thing.name);
    }
  }

  void ranks(const char* what, const RankSet& set, bool may_name_peer) {
    if (set.base == Who::peer && !may_name_peer) say("{}: peer: only communication has a peer", what);
    std::set<Role> seen;
    for (const Role role : set.spread) {
      if (!inside_layer(role)) say("{}: {}: not a group of the layer", what, to_string(role));
      if (!seen.insert(role).second) say("{}: {} twice", what, to_string(role));
    }
  }

  void buffer(const Buffer& b) {
    where_ = "buffer " + b.name + ": ";
    if (b.chunks.begin < 0 || b.chunks.begin >= b.chunks.end || b.chunks.end > s_.chunks)
      say("chunks [{}, {}): must lie in [0, {})", b.chunks.begin, b.chunks.end, s_.chunks);
    ranks("sources", b.sources, false);
    ranks("dests", b.dests, false);
    if (b.order == Order::by_token && !per_token(b.symbol)) say("order: by_token is for held and tokens");
    if (b.order != Order::by_token && per_token(b.symbol) &&
        !(b.symbol == Symbol::tokens && b.order == Order::by_source))
      say("order: held is by_token, tokens are by_token or by_source");
    if (per_token(b.symbol) && b.dests != RankSet{}) say("dests: rows of tokens have none");
    if (b.together < 0 || (b.together > 0 && (b.order == Order::by_token || b.chunks.begin % b.together != 0 ||
                                              b.chunks.end % b.together != 0)))
      say("together: {}: must divide chunks [{}, {}) of rows in units", b.together, b.chunks.begin, b.chunks.end);
    const bool vector = b.columns == Columns::hidden || b.columns == Columns::ffn || b.columns == Columns::shared_ffn;
    if (b.element == Element::fp8 ? b.columns != Columns::hidden : vector != (b.element == Element::payload))
      say("element: hidden and (shared_)ffn rows are payload, sidecars are not, and fp8 is for hidden ones");
    if (b.blocks && !inside_layer(*b.blocks)) say("blocks: {}: not a group of the layer", to_string(*b.blocks));
    if (b.split) ranks("split", {b.split->who, {b.split->role}}, false);
    int root = b.alias;
    for (int i = 0; is_buffer(root) && i < kMaxAliases; ++i) root = at(root).alias;
    if (root != -1) return say("alias: {} leads to no buffer", b.alias);
    if (b.alias < 0) return;
    const Buffer& other = at(b.alias);
    if (b.columns != other.columns || b.element != other.element) say("alias: {} has other rows", other.name);
    if (b.storage != other.storage) say("alias: {} has another storage", other.name);
  }

  void caller_buffer(const char* name) {
    const auto is_it = [&](const Buffer& b) { return b.name == name && b.storage == Storage::caller && b.alias < 0; };
    const auto b = std::find_if(s_.buffers.begin(), s_.buffers.end(), is_it);
    if (b == s_.buffers.end()) return say("no buffer {} of the caller's", name);
    if (b->symbol != Symbol::held || b->columns != Columns::hidden || b->sources != RankSet{} || b->blocks || b->split)
      say("buffer {}: must be the rows that I hold, hidden wide", name);
  }

  // A view that may stand where `need` is needed.
  void view(const char* what, const View& v, char need, bool may_name_peer) {
    if (!is_buffer(v.buffer)) return say("{}: buffer {}: there are {}", what, v.buffer, s_.buffers.size());
    const Buffer& b = at(v.buffer);
    if (need != '*' && row_of(b) != need)
      say("{}: {} holds {}, needed are {}", what, b.name, row_words(row_of(b)), row_words(need));
    if (v.chunks) {
      const Chunks in = b.symbol == Symbol::held ? Chunks{0, 1} : b.chunks;
      if (v.chunks->begin < in.begin || v.chunks->begin >= v.chunks->end || v.chunks->end > in.end)
        say("{}: chunks [{}, {}): {} has [{}, {})", what, v.chunks->begin, v.chunks->end, b.name, in.begin, in.end);
      else if (b.order != Order::by_token &&
               ((v.chunks->begin - in.begin) % unit_of(b) != 0 || (v.chunks->end - in.begin) % unit_of(b) != 0))
        say("{}: chunks [{}, {}): {} has them in units of {}", what, v.chunks->begin, v.chunks->end, b.name,
            unit_of(b));
    }
    if (v.sources) ranks(what, *v.sources, may_name_peer);
    if (v.dests) ranks(what, *v.dests, may_name_peer);
    if (v.dests && per_token(b.symbol)) say("{}: dests of {}: rows of tokens have none", what, b.name);
    if (v.split) ranks(what, {v.split->who, {v.split->role}}, may_name_peer);
    if (v.block && !b.blocks) say("{}: block of {}: it has none", what, b.name);
    if (v.block == Who::peer && !may_name_peer) say("{}: block: only communication has a peer", what);
    if ((v.chunks || v.sources || v.dests) && (b.blocks || b.split))
      say("{}: {} is in parts and cannot be selected from", what, b.name);
  }

  void map(const IndexMap& m) {
    where_ = "map " + m.name + ": ";
    view("from", m.from, '*', false);
    view("to", m.to, '*', false);
    if (m.ids.buffer >= 0) view("ids", m.ids, 'i', false);
    if (lines_.empty() && m.ids.buffer >= 0 && !same_rows(s_, m.ids, m.from)) say("ids: not of the rows of from");
  }

  void step(const Step& step, std::size_t i, bool backward) {
    where_ = fmt::format("{} step {} ({}): ", backward ? "backward" : "forward", i, step.name);
    const Rule& rule = rule_of(step.kind);
    if (step.in.size() != rule.in.size() || step.out.size() != rule.out.size())
      return say("{} has {} in and {} out, needed are {} and {}", name(step.kind), step.in.size(), step.out.size(),
                 rule.in.size(), rule.out.size());
    for (std::size_t k = 0; k < rule.in.size(); ++k)
      view(fmt::format("in[{}]", k).c_str(), step.in[k], rule.in[k], step.kind == StepKind::exchange);
    for (std::size_t k = 0; k < rule.out.size(); ++k)
      view(fmt::format("out[{}]", k).c_str(), step.out[k], rule.out[k], rule.communicates);
    if (step.weights.buffer >= 0) {
      if (!rule.weighs) say("weights: {} takes none", name(step.kind));
      view("weights", step.weights, 'w', false);
    }
    if ((step.map >= 0) != rule.maps) say("map: {} {}", name(step.kind), rule.maps ? "needs one" : "takes none");
    if (step.map >= static_cast<int>(s_.maps.size())) say("map: {}: there are {}", step.map, s_.maps.size());
    if (step.transpose && step.kind != StepKind::repack) say("transpose: only of a repack");
    if (step.chunk < -1 || step.chunk >= s_.chunks) say("chunk: {}: there are {}", step.chunk, s_.chunks);
    if (!inside_layer(step.group)) say("group: {}: not a group of the layer", to_string(step.group));
    const bool network_lane = step.lane == Lane::intra_node || step.lane == Lane::inter_node;
    if (network_lane != rule.communicates) say("lane: {} cannot run {}", name(step.lane), name(step.kind));
    if (step.phase != StepPhase::metadata && backward == (step.phase == StepPhase::forward))
      say("phase: {} in this pass", name(step.phase));
    if (step.slices.empty() == (step.kind == StepKind::counts_exchange))
      say("slices: {}", step.slices.empty() ? "a counts_exchange sends some" : "only a counts_exchange has any");
    for (const CountSlice& slice : step.slices) {
      ranks("slices: sources", slice.sources, true);
      ranks("slices: dests", slice.dests, true);
      if (slice.symbol == Symbol::tokens) say("slices: tokens follow from held");
    }
    int last = -1;
    for (const int before : step.after) {
      if (before < 0 || before >= static_cast<int>(i)) say("after: step {} is not an earlier one", before);
      if (before <= last) say("after: steps must be ascending");
      last = before;
    }
    if (lines_.empty()) agree(step, rule);
  }

  // That the views of a step fit each other and its map.
  void agree(const Step& step, const Rule& rule) {
    const auto peers = [&](const std::vector<View>& views) {
      return std::any_of(views.begin(), views.end(), names_peer);
    };
    if (step.kind == StepKind::exchange && !peers(step.in)) say("in: each peer would get all of it");
    if ((step.kind == StepKind::exchange || step.kind == StepKind::all_gather) && !peers(step.out))
      say("out: each peer would write all of it");
    if (rule.keeps_width && row_of(at(step.in[0].buffer)) != row_of(at(step.out[0].buffer)))
      say("in and out have rows of different widths");
    if (rule.keeps_chunks &&
        (chunks_of(s_, step.in[0]) != chunks_of(s_, step.out[0]) || symbol_of(step.in[0]) != symbol_of(step.out[0])))
      say("in and out are not the same rows");
    else if (rule.keeps_chunks && !rule.maps && unit_in(s_, step.in[0]) != unit_in(s_, step.out[0]))
      say("in and out have chunks in different units");
    if (step.kind == StepKind::ordered_sum && (at(step.in[0].buffer).blocks != step.group || step.in[0].block))
      say("in: must have a block for each member of {}", to_string(step.group));
    if (step.kind == StepKind::convert) {
      const char from = row_of(at(step.in[0].buffer)), to = row_of(at(step.out[0].buffer));
      if (!(from == 'h' && to == 'q') && !(from == 'q' && to == 'h'))
        say("converts {} to {}: one must be hidden payload and one fp8", row_words(from), row_words(to));
      if (!same_rows(s_, step.in[0], step.out[0])) say("in and out are not the same rows");
    }
    if (computes(step))
      for (const auto* views : {&step.in, &step.out})
        for (const View& v : *views)
          if (row_of(at(v.buffer)) == 'q') say("{}: fp8 rows are moved and converted, nothing else", at(v.buffer).name);
    if (expert_step(step.kind))
      for (const auto* views : {&step.in, &step.out})
        for (const View& v : *views)
          if (symbol_of(v) != Symbol::pairs || at(v.buffer).order != Order::by_expert || !same_rows(s_, v, step.in[0]))
            say("{}: must hold the step's rows by_expert", at(v.buffer).name);
    if (token_step(step.kind))
      for (const auto* views : {&step.in, &step.out})
        for (const View& v : *views)
          if (!same_rows(s_, v, step.in[0])) say("{}: not of the step's rows", at(v.buffer).name);
    if (!rule.maps || step.kind == StepKind::index) return;
    const IndexMap& m = s_.maps[static_cast<std::size_t>(step.map)];
    if (step.kind == StepKind::repack && m.ids.buffer >= 0)
      say("map: {} goes by ids, a permutation goes by counts", m.name);
    // `packed`: what the map's `to` declares, `plain`: its `from`.
    const bool forth = step.kind == StepKind::pack || (step.kind == StepKind::repack && !step.transpose);
    const View& packed = step.kind == StepKind::weight_grad ? step.in[1] : forth ? step.out[0] : step.in[0];
    const View& plain = step.kind == StepKind::weight_grad || forth ? step.in[0] : step.out[0];
    if (!same_rows(s_, plain, m.from)) say("{}: not the rows that map {} is from", at(plain.buffer).name, m.name);
    if (!same_rows(s_, packed, m.to)) say("{}: not the rows that map {} is to", at(packed.buffer).name, m.name);
    if (step.weights.buffer >= 0 && !same_rows(s_, step.weights, m.from))
      say("weights: not of the rows that map {} is from", m.name);
    if (step.kind == StepKind::weight_grad && !same_rows(s_, step.out[0], m.from))
      say("out: not of the rows that map {} is from", m.name);
  }
  Symbol symbol_of(const View& v) const { return at(v.buffer).symbol; }

  const Schedule& s_;
  std::string where_;  // begins every line
  std::vector<std::string> lines_;
};

}  // namespace

std::vector<std::string> check(const Schedule& schedule) { return Checker(schedule).run(); }

}  // namespace topomoe
