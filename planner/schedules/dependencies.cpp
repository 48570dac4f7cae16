// `after` of every step, derived: a step waits for every earlier step that wrote rows it reads, for the map it uses,
// and for the counts that size it. Chunks of one memory are told apart, ranks' parts of a chunk are not.

#include <algorithm>

#include "planner/plan/schedule_rules.hpp"
#include "planner/schedules/draft.hpp"

namespace topomoe {
namespace {

// Its rows are not known from the tokens that my TP group holds.
bool sized_by_counts(const Schedule& s, const Step& step) {
  const auto counted = [&](const View& v) {
    const Buffer& b = s.buffers[static_cast<std::size_t>(v.buffer)];
    return !per_token(b.symbol) || (b.sources != me() && b.sources != me({Role::tp}));
  };
  return std::any_of(step.in.begin(), step.in.end(), counted) || std::any_of(step.out.begin(), step.out.end(), counted);
}

class Earlier {
 public:
  explicit Earlier(const Schedule& s) : s_(s), writes_(s.buffers.size()), indexed_(s.maps.size(), -1) {}

  std::vector<int> needed_by(const Step& step) const {
    std::vector<int> after;
    for (const View& v : step.in) add_writers(v, after);
    if (step.weights.buffer >= 0) add_writers(step.weights, after);
    if (adds_to_out(step.kind)) add_writers(step.out[0], after);  // it adds
    if (step.kind == StepKind::index) {
      const View& ids = s_.maps[static_cast<std::size_t>(step.map)].ids;
      if (ids.buffer >= 0) add_writers(ids, after);
    } else if (step.map >= 0 && indexed_[static_cast<std::size_t>(step.map)] >= 0) {
      after.push_back(indexed_[static_cast<std::size_t>(step.map)]);
    }
    const bool counts = step.kind == StepKind::counts_exchange;
    if (counts || step.kind == StepKind::index || sized_by_counts(s_, step))
      after.insert(after.end(), counts_.begin(), counts_.end());
    if (counts) after.insert(after.end(), routes_.begin(), routes_.end());  // route counts
    std::sort(after.begin(), after.end());
    after.erase(std::unique(after.begin(), after.end()), after.end());
    return after;
  }

  void add(const Step& step, int index) {
    for (const View& v : step.out) writes_[root(v)].push_back({index, chunks_of(s_, v)});
    if (step.kind == StepKind::index) indexed_[static_cast<std::size_t>(step.map)] = index;
    if (step.kind == StepKind::counts_exchange) counts_.push_back(index);
    if (step.kind == StepKind::route) routes_.push_back(index);
  }

 private:
  struct Write {
    int step;
    Chunks chunks;
  };
  std::size_t root(const View& v) const { return static_cast<std::size_t>(root_of(s_, v.buffer)); }
  void add_writers(const View& read, std::vector<int>& after) const {
    const Chunks chunks = chunks_of(s_, read);
    for (const Write& w : writes_[root(read)])
      if (w.chunks.begin < chunks.end && chunks.begin < w.chunks.end) after.push_back(w.step);
  }

  const Schedule& s_;
  std::vector<std::vector<Write>> writes_;  // by memory
  std::vector<int> indexed_;                // by map, -1: not in this pass
  std::vector<int> counts_, routes_;
};

}  // namespace

void derive_dependencies(const Schedule& s, std::vector<Step>& steps) {
  Earlier earlier(s);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    steps[i].after = earlier.needed_by(steps[i]);
    earlier.add(steps[i], static_cast<int>(i));
  }
}

}  // namespace topomoe
