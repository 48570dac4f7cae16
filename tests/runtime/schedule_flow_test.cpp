// Properties of every schedule that is built, for drawn routings on every fold of TP x EP x ETP:
//  * Data flow: a step reads only rows that a step it waits for has written, whether through `after` or in
//    the forward, and no row is written twice. So lanes may run ahead of each other as they like.
//  * Communication: in issue order, what a rank sends to another is what that one expects, transfer by
//    transfer; and whatever the ranks' relative speed, all of them get to the end. No run can deadlock.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <set>

#include "runtime/counts.hpp"
#include "tests/support/drawn_counts.hpp"
#include "tests/support/layer_cases.hpp"

namespace topomoe::testing {
namespace {

using Index = std::size_t;

Index at(int i) { return static_cast<Index>(i); }

bool communicates(const Step& s) {
  return s.kind == StepKind::exchange || s.kind == StepKind::all_gather || s.kind == StepKind::counts_exchange;
}

// A case without tensors: who holds how many tokens, and where they go.
struct FlowCase {
  LayerCase c;
  Ids held;
};

FlowCase draw_flow(const Fold& f, bool sp, Draw& draw) {
  FlowCase out;
  const int smallest = std::lcm(f.tp, f.etp * f.ep);
  const int world = smallest * (1 + draw.below(16 / smallest));
  out.c.layout = layout(world, f.tp, f.etp, f.ep, sp, draw.of({ExpertOrder::ep_inner, ExpertOrder::edp_inner}));
  out.c.gpus_per_node = draw.of({1, 2, 4, 8, 16});
  out.c.shape = {1, f.etp, f.ep * (1 + draw.below(2)) * 2, 1 + draw.below(2), true};
  for (int rank = 0; rank < world; ++rank) {
    auto& ids = out.held.emplace_back();
    if (!sp && rank % f.tp != 0) {
      ids = out.held[at(rank - 1)];
      continue;
    }
    for (int tokens = draw.coin() ? draw.below(9) : 0; tokens > 0; --tokens) {
      const int first = draw.below(out.c.shape.experts), step = 1 + draw.below(out.c.shape.experts - 1);
      for (int slot = 0; slot < out.c.shape.top_k; ++slot) ids.push_back((first + slot * step) % out.c.shape.experts);
    }
  }
  return out;
}

// One rank's memory while its steps are taken in issue order.
class Flow {
 public:
  Flow(const Schedule& schedule, const RankGroups& groups, const CountSource& counts, int rank)
      : s_(schedule), groups_(groups), counts_(counts), rank_(rank) {}

  void run(const std::vector<Step>& steps) {
    ++pass_;
    if (pass_ == 2) {  // what the forward keeps, and the caller's tokens
      std::erase_if(writers_, [&](const auto& entry) {
        const Buffer& b = s_.buffers[at(entry.first)];
        return b.storage == Storage::pass || (b.storage == Storage::caller && b.name != "x");
      });
    }
    fill_input(pass_ == 1 ? "x" : "dy");
    closures_.clear();
    for (Index i = 0; i < steps.size(); ++i) take(steps[i], static_cast<int>(i), steps);
  }

  void expect_complete(const std::string& buffer) {
    for (Index i = 0; i < s_.buffers.size(); ++i) {
      if (s_.buffers[i].name != buffer) continue;
      for (const Writer& w : rows(static_cast<int>(i)))
        EXPECT_GT(w.pass, 0) << "a row of " << buffer << " is never written";
    }
  }

 private:
  struct Writer {
    int pass = 0, step = -1;  // pass 0: nobody
  };

  int root(int buffer) const {
    const int alias = s_.buffers[at(buffer)].alias;
    return alias < 0 ? buffer : root(alias);
  }
  std::vector<Writer>& rows(int buffer) {
    const int memory = root(buffer);
    auto& all = writers_[memory];
    if (all.empty()) {
      View v;
      v.buffer = memory;
      all.resize(static_cast<Index>(resolve(s_, v, groups_, counts_, rank_, rank_).rows));
    }
    return all;
  }
  void fill_input(const std::string& name) {
    for (Index i = 0; i < s_.buffers.size(); ++i)
      if (s_.buffers[i].name == name && s_.buffers[i].storage == Storage::caller && s_.buffers[i].alias < 0)
        for (Writer& w : rows(static_cast<int>(i))) w = {pass_, -1};
  }

  template <class Visit>
  void each_row(const View& v, int peer, const Step& step, Visit visit) {
    const RowRange range = resolve(s_, v, groups_, counts_, rank_, peer);
    auto& all = rows(v.buffer);
    ASSERT_LE(range.offset + range.rows, static_cast<double>(all.size()))
        << step.name << " beyond " << s_.buffers[at(v.buffer)].name;
    for (auto i = static_cast<Index>(range.offset); i < static_cast<Index>(range.offset + range.rows); ++i)
      visit(all[i]);
  }

  void read(const View& v, int peer, const Step& step, const std::set<int>& done) {
    bool ok = true;
    each_row(v, peer, step, [&](const Writer& w) {
      ok = ok && w.pass > 0 && (w.pass < pass_ || w.step < 0 || done.contains(w.step));
    });
    EXPECT_TRUE(ok) << "rank " << rank_ << ": " << step.name << " reads " << s_.buffers[at(v.buffer)].name
                    << " too early";
  }
  void write(const View& v, int peer, const Step& step, int index) {
    bool ok = true;
    each_row(v, peer, step, [&](Writer& w) {
      ok = ok && w.pass == 0;
      w = {pass_, index};
    });
    EXPECT_TRUE(ok) << "rank " << rank_ << ": " << step.name << " writes " << s_.buffers[at(v.buffer)].name << " again";
  }
  bool same_place(const View& a, const View& b) {
    return root(a.buffer) == root(b.buffer) && resolve(s_, a, groups_, counts_, rank_, rank_).offset ==
                                                   resolve(s_, b, groups_, counts_, rank_, rank_).offset;
  }

  void take(const Step& step, int index, const std::vector<Step>& steps) {
    std::set<int>& done = closures_.emplace_back();
    for (const int before : step.after) {
      ASSERT_LT(before, index) << step.name;
      done.insert(before);
      done.insert(closures_[at(before)].begin(), closures_[at(before)].end());
    }
    if (step.kind == StepKind::index) {
      maps_[step.map] = {pass_, index};
      if (s_.maps[at(step.map)].ids.buffer >= 0) read(s_.maps[at(step.map)].ids, rank_, step, done);
      return;
    }
    if (step.map >= 0) {
      ASSERT_TRUE(maps_.contains(step.map)) << step.name;
      const Writer builder = maps_[step.map];
      EXPECT_TRUE(builder.pass < pass_ || done.contains(builder.step)) << step.name << " uses its map too early";
    }
    if (step.kind == StepKind::counts_exchange) return;
    EXPECT_TRUE(sizes_known(step, done, steps)) << step.name << " does not wait for its counts";
    if (communicates(step)) {
      for (const int peer : groups_.members(step.group, rank_)) read(step.in[0], peer, step, done);
      for (const int peer : groups_.members(step.group, rank_))
        if (peer != rank_ || !same_place(step.in[0], step.out[0])) write(step.out[0], peer, step, index);
      return;
    }
    for (const View& v : step.in) read(v, rank_, step, done);
    if (step.weights.buffer >= 0) read(step.weights, rank_, step, done);
    for (const View& v : step.out) {
      if (step.kind == StepKind::route_backward) {  // adds
        read(v, rank_, step, done);
        each_row(v, rank_, step, [&](Writer& w) { w = {pass_, index}; });
      } else {
        write(v, rank_, step, index);
      }
    }
  }

  // Whoever touches rows that others count waits for all counts of the forward.
  bool sizes_known(const Step& step, const std::set<int>& done, const std::vector<Step>& steps) const {
    if (pass_ == 2) return true;
    for (const auto* views : {&step.in, &step.out})
      for (const View& v : *views) {
        const Buffer& b = s_.buffers[at(v.buffer)];
        const bool of_tp_group = b.sources == me() || b.sources == me({Role::tp});
        if ((b.symbol == Symbol::held || b.symbol == Symbol::tokens) && of_tp_group) continue;
        for (Index i = 0; i < steps.size(); ++i)
          if (steps[i].kind == StepKind::counts_exchange && !done.contains(static_cast<int>(i))) return false;
      }
    return true;
  }

  const Schedule& s_;
  const RankGroups& groups_;
  const CountSource& counts_;
  int rank_, pass_ = 0;
  std::map<int, std::vector<Writer>> writers_;  // by root
  std::map<int, Writer> maps_;
  std::vector<std::set<int>> closures_;  // by step: all steps before it
};

struct Transfer {
  int step;
  double amount;
  bool operator==(const Transfer&) const = default;
};
using Queues = std::map<std::tuple<Role, int, int>, std::vector<Transfer>>;  // by channel, from, to

// What each rank posts, in its issue order; transfers of nothing are not posted.
void post(const Schedule& s, const std::vector<Step>& steps, const LayerCase& c, const CountSource& counts,
          Queues& sends, Queues& receives) {
  const RankGroups groups(c.layout, c.gpus_per_node);
  for (int rank = 0; rank < c.layout.world; ++rank) {
    const RankCounts own(s, groups, rank, {c.shape.experts, c.layout.ep});
    for (Index i = 0; i < steps.size(); ++i) {
      const Step& step = steps[i];
      if (!communicates(step)) continue;
      for (const int peer : groups.members(step.group, rank)) {
        if (peer == rank) continue;
        double out = 0, in = 0;
        if (step.kind == StepKind::counts_exchange) {
          for (const CountSlice& slice : step.slices) {
            out += static_cast<double>(own.size_of(slice, rank, peer));
            in += static_cast<double>(own.size_of(slice, peer, rank));
          }
        } else {
          out = rows_of(s, step.in[0], groups, counts, rank, peer);
          in = rows_of(s, step.out[0], groups, counts, rank, peer);
          const Buffer &a = s.buffers[at(step.in[0].buffer)], &b = s.buffers[at(step.out[0].buffer)];
          EXPECT_TRUE(a.columns == b.columns && a.element == b.element) << step.name;
        }
        if (out > 0) sends[{step.group, rank, peer}].push_back({static_cast<int>(i), out});
        if (in > 0) receives[{step.group, peer, rank}].push_back({static_cast<int>(i), in});
      }
    }
  }
}

// Ranks take their steps in any interleaving; a step is issued once all before it are over, and a transfer is
// over once both its ends have been posted.
void expect_all_arrive(const std::vector<Step>& steps, int world, const Queues& sends, Draw& draw) {
  std::vector<Index> at_step(at(world));
  std::map<std::pair<int, int>, std::vector<int>> peers;  // of (rank, step): whom it needs
  for (const auto& [channel, queue] : sends)
    for (const Transfer& t : queue) {
      const auto& [role, from, to] = channel;
      peers[{from, t.step}].push_back(to);
      peers[{to, t.step}].push_back(from);
    }
  const auto over = [&](int rank, int step) {
    const auto it = peers.find({rank, step});
    return it == peers.end() ||
           std::all_of(it->second.begin(), it->second.end(), [&](int peer) { return at_step[at(peer)] > at(step); });
  };
  // Counts are waited for at once: the rank does not go on before they came.
  const auto may_go = [&](int rank) {
    const Index i = at_step[at(rank)];
    if (i == steps.size()) return false;
    if (i > 0 && steps[i - 1].kind == StepKind::counts_exchange && !over(rank, static_cast<int>(i) - 1)) return false;
    return std::all_of(steps[i].after.begin(), steps[i].after.end(), [&](int before) { return over(rank, before); });
  };
  for (;;) {
    std::vector<int> able;
    for (int rank = 0; rank < world; ++rank)
      if (may_go(rank)) able.push_back(rank);
    if (able.empty()) break;
    // One of them runs ahead as far as it can.
    const int rank = able[at(draw.below(static_cast<int>(able.size())))];
    for (int steps_ahead = 1 + draw.below(20); steps_ahead > 0 && may_go(rank); --steps_ahead) ++at_step[at(rank)];
  }
  for (int rank = 0; rank < world; ++rank)
    EXPECT_EQ(at_step[at(rank)], steps.size()) << "rank " << rank << " hangs before " << steps[at_step[at(rank)]].name;
}

class ScheduleFlow : public ::testing::TestWithParam<Fold> {};

TEST_P(ScheduleFlow, EverySchedule_ReadsWhatIsThereAndNeverHangs) {
  const Fold f = GetParam();
  Draw draw(static_cast<std::uint64_t>(f.tp * 100 + f.ep * 10 + (f.etp > 1 ? 1 : 0)) + 9000);
  const bool sp = f.tp > 1 && draw.coin();
  const FlowCase flow = draw_flow(f, sp, draw);
  const LayerCase& c = flow.c;
  const RankGroups groups(c.layout, c.gpus_per_node);
  for (const std::string_view transport : transport_names())
    for (const auto split : {TokenSplit::replicated, TokenSplit::sliced}) {
      if (!applies(transport, c.layout, c.gpus_per_node)) continue;
      const int n = draw.of({1, 2, 3, 4});
      const Schedule s =
          build_schedule(transport, draw_backward(request(c.layout, split, n, draw.coin() ? n : 1), draw));
      SCOPED_TRACE(describe(c) + ", " + s.name);
      const DrawnCounts counts(c, flow.held, split == TokenSplit::sliced, s.chunks);
      for (int rank = 0; rank < c.layout.world; ++rank) {
        Flow one(s, groups, counts, rank);
        one.run(s.forward);
        one.expect_complete("y");
        one.run(s.backward);
        one.expect_complete("dx");
      }
      for (const auto* steps : {&s.forward, &s.backward}) {
        Queues sends, receives;
        post(s, *steps, c, counts, sends, receives);
        EXPECT_EQ(sends, receives);
        expect_all_arrive(*steps, c.layout.world, sends, draw);
      }
      if (HasFailure()) return;
    }
}

INSTANTIATE_TEST_SUITE_P(Folds, ScheduleFlow, ::testing::ValuesIn(folds(16)),
                         [](const auto& fold) { return name(fold.param); });

}  // namespace
}  // namespace topomoe::testing
