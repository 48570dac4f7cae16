// The flow of a schedule: whether the rows that a step reads have been written, and whether it waits for
// whoever wrote them; the same for the map it uses. Rows are followed by memory (the buffer at the end of
// the alias chain) and chunk, so that a part of a chunk that nobody wrote goes unnoticed.
//
// Counts and routing are known to the host as soon as their step was issued, so that for them being
// earlier is enough.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "planner/plan/schedule_rules.hpp"

namespace topomoe {
namespace {

// For each step of a pass, the steps that are over when it starts.
class Ancestors {
 public:
  explicit Ancestors(const std::vector<Step>& steps) {
    for (std::size_t i = 0; i < steps.size(); ++i) {
      std::vector<std::uint64_t> set(i / 64 + 1, 0);
      for (const int before : steps[i].after) {
        const auto j = static_cast<std::size_t>(before);
        for (std::size_t word = 0; word < sets_[j].size(); ++word) set[word] |= sets_[j][word];
        set[j / 64] |= std::uint64_t{1} << (j % 64);
      }
      sets_.push_back(std::move(set));
    }
  }
  bool has(std::size_t step, std::size_t earlier) const {
    return (sets_[step][earlier / 64] >> (earlier % 64) & 1) != 0;
  }

 private:
  std::vector<std::vector<std::uint64_t>> sets_;
};

class Flow {
 public:
  explicit Flow(const Schedule& s) : s_(s) {}

  std::vector<std::string> run() {
    pass(s_.forward, false);
    if (!s_.backward.empty()) pass(s_.backward, true);
    return std::move(lines_);
  }

 private:
  struct Write {
    std::size_t step;
    View view;
    Chunks chunks;
  };
  using Written = std::map<int, std::vector<Write>>;  // by memory

  const Buffer& at(int buffer) const { return s_.buffers[static_cast<std::size_t>(buffer)]; }
  template <class... T>
  void say(fmt::format_string<T...> format, T&&... values) {
    if (lines_.size() < kMaxViolations) lines_.push_back(where_ + fmt::format(format, std::forward<T>(values)...));
  }
  static bool meet(Chunks a, Chunks b) { return a.begin < b.end && b.begin < a.end; }

  void pass(const std::vector<Step>& steps, bool backward) {
    const Ancestors ancestors(steps);
    Written written;
    std::map<int, std::size_t> indexed;  // map -> step of this pass
    for (std::size_t i = 0; i < steps.size() && lines_.size() < kMaxViolations; ++i) {
      const Step& step = steps[i];
      where_ = fmt::format("{} step {} ({}): ", backward ? "backward" : "forward", i, step.name);
      const auto waits_for = [&](std::size_t j, const std::string& why) {
        if (!ancestors.has(i, j)) say("does not wait for step {}, which {}", steps[j].name, why);
      };
      std::vector<View> reads = step.in;
      if (step.weights.buffer >= 0) reads.push_back(step.weights);
      if (adds_to_out(step.kind)) reads.push_back(step.out[0]);  // it adds
      if (step.map >= 0) use_map(step, i, backward, indexed, reads, waits_for);
      for (const View& view : reads) {
        read(view, backward, written, waits_for);
        counted(view);
      }
      for (const View& view : step.out) {
        counted(view);
        write(view, i, backward, written, waits_for);
      }
      if (step.kind == StepKind::route) routed_ = true;
      if (step.kind == StepKind::counts_exchange) {
        for (const CountSlice& slice : step.slices) {
          if (slice.symbol != Symbol::held && !routed_)
            say("slices: {} are not counted before route", name(slice.symbol));
          exchanged_.insert(slice.symbol);
        }
      }
    }
    where_.clear();
    if (!covered(backward ? "dx" : "y", written)) say("{} is not written in all chunks", backward ? "dx" : "y");
    if (!backward) forward_ = std::move(written);
  }

  template <class F>
  void use_map(const Step& step, std::size_t i, bool backward, std::map<int, std::size_t>& indexed,
               std::vector<View>& reads, const F& waits_for) {
    const IndexMap& map = s_.maps[static_cast<std::size_t>(step.map)];
    if (step.kind == StepKind::index) {
      if (indexed.count(step.map) != 0 || (backward && indexed_forward_.count(step.map) != 0))
        say("map {} is built twice", map.name);
      indexed[step.map] = i;
      if (!backward) indexed_forward_.insert(step.map);
      if (map.ids.buffer >= 0) reads.push_back(map.ids);
      counted(map.from);
      counted(map.to);
    } else if (const auto built = indexed.find(step.map); built != indexed.end()) {
      waits_for(built->second, "builds its map");
    } else if (!backward || indexed_forward_.count(step.map) == 0) {
      say("map {} is not built before", map.name);
    }
  }

  template <class F>
  void read(const View& view, bool backward, const Written& written, const F& waits_for) {
    const int root = root_of(s_, view.buffer);
    const Buffer& memory = at(root);
    const Chunks chunks = chunks_of(s_, view);
    const std::vector<Write>& here = writes_of(written, root);
    for (const Write& w : here)
      if (meet(w.chunks, chunks)) waits_for(w.step, "writes what it reads of " + at(view.buffer).name);
    // The caller's tokens and output gradients are there from the start.
    if (memory.storage == Storage::caller && (memory.name == "x" || (backward && memory.name == "dy"))) return;
    const bool saved = backward && memory.storage == Storage::saved;
    if (const int chunk = first_missing(chunks, here, saved ? writes_of(forward_, root) : kNone); chunk >= 0)
      say("reads chunk {} of {}, which nothing has written{}", chunk, at(view.buffer).name,
          backward && memory.storage == Storage::pass ? " in this pass" : "");
  }

  template <class F>
  void write(const View& view, std::size_t i, bool backward, Written& written, const F& waits_for) {
    const int root = root_of(s_, view.buffer);
    const Buffer& memory = at(root);
    const Chunks chunks = chunks_of(s_, view);
    if (memory.storage == Storage::caller && memory.name != (backward ? "dx" : "y"))
      say("writes {}, which is not for it to write", memory.name);
    if (backward && memory.storage == Storage::saved) say("writes {}, which the forward saved", at(view.buffer).name);
    for (const Write& w : written[root])
      if (w.step != i && meet(w.chunks, chunks) && same_selection(s_, w.view, view))
        waits_for(w.step, "writes the same rows of " + at(view.buffer).name);
    written[root].push_back({i, view, chunks});
  }

  // That the number of rows of a view's buffer is known.
  void counted(const View& view) {
    const Buffer& b = at(view.buffer);
    const bool mine = b.sources == RankSet{};
    if (per_token(b.symbol)) {
      // Ranks of a TP group that each hold their own tokens must say how many; else all hold as many as I. Nobody
      // outside of it need hold as many.
      const bool beyond_tp = !mine && b.sources != RankSet{Who::me, {Role::tp}};
      const bool needed = beyond_tp || (s_.intake == Intake::tp_gather && (b.symbol == Symbol::tokens || !mine));
      if (needed && exchanged_.count(Symbol::held) == 0) say("rows of {}: held has not been exchanged", b.name);
    } else if (mine) {
      if (!routed_) say("rows of {}: not known before route", b.name);
    } else if (exchanged_.count(b.symbol) == 0) {
      say("rows of {}: {} have not been exchanged", b.name, name(b.symbol));
    }
  }

  static const std::vector<Write>& writes_of(const Written& written, int root) {
    const auto it = written.find(root);
    return it == written.end() ? kNone : it->second;
  }
  // The first of `chunks` that neither list of writes covers, or -1.
  static int first_missing(Chunks chunks, const std::vector<Write>& writes, const std::vector<Write>& more = kNone) {
    std::vector<bool> there(static_cast<std::size_t>(chunks.end - chunks.begin), false);
    for (const auto* list : {&writes, &more})
      for (const Write& w : *list)
        for (int c = std::max(chunks.begin, w.chunks.begin); c < std::min(chunks.end, w.chunks.end); ++c)
          there[static_cast<std::size_t>(c - chunks.begin)] = true;
    const auto gap = std::find(there.begin(), there.end(), false);
    return gap == there.end() ? -1 : chunks.begin + static_cast<int>(gap - there.begin());
  }

  bool covered(std::string_view caller_buffer, const Written& written) const {
    for (const auto& [root, writes] : written)
      if (at(root).name == caller_buffer && first_missing({0, s_.chunks}, writes) < 0) return true;
    return false;
  }

  static inline const std::vector<Write> kNone;

  const Schedule& s_;
  Written forward_;
  std::set<int> indexed_forward_;
  std::set<Symbol> exchanged_;
  bool routed_ = false;
  std::string where_;
  std::vector<std::string> lines_;
};

}  // namespace

std::vector<std::string> check_flow(const Schedule& schedule) { return Flow(schedule).run(); }

}  // namespace topomoe
