// The Schedule: the only description of an algorithm (DESIGN 6).
//
// A Schedule is one SPMD template. It says for "me", any rank, which rows each buffer holds, in which
// order, and which steps move or compute them; peers are named by group role and never by number, so
// its size does not grow with the world. The planner prices it, the runtime executes it, plan.json
// carries it, a trace has one row for each of its steps. Nobody needs to know which algorithm it is.
//
// Three ideas carry everything:
//  * Rows. A buffer's rows are declared, not computed: a Symbol (what one row is), whose tokens
//    (sources), for which ranks' experts (dests), of which chunks, in which Order. Hence the size of
//    every message, as an expression over counts, and the place of every row follow from two
//    declarations; there are no offsets in a schedule.
//  * Maps. Moving rows between two declarations is a sparse 0/1 matrix P, known from the experts' ids
//    (pack) or from counts alone (repack). pack is P x, combine is P^T w y, and the backward of either
//    is the transpose of the other: one map serves four steps.
//  * Order. `steps` is the total issue order, equal on all ranks. Communication starts in that order.
//
// Tokens go to copies of experts (placement.hpp): "expert" is one of them wherever rows are meant.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "topomoe/device.hpp"
#include "topomoe/layout.hpp"
#include "topomoe/placement.hpp"

namespace topomoe {

// What one row is, and thereby which count says how many there are.
enum class Symbol : std::uint8_t {
  held,         // H[source]: a token as the caller holds it at the layer's boundary
  tokens,       // T[chunk][source]: a token that the source injects into the exchange
  pairs,        // C[chunk][source][expert]: a token for one of its experts (k rows a token)
  rank_tokens,  // R[chunk][source][rank]: a token, once for each rank that holds one of its experts
  node_tokens,  // N[chunk][source][node]: a token, once for each node that holds one of its experts
};

// How the tokens a rank injects follow from the tokens it holds.
enum class Intake : std::uint8_t {
  as_held,    // T = H
  tp_slice,   // all ranks of the TP group hold the same tokens; each injects its 1/t of them
  tp_gather,  // each holds its own (sequence parallelism) and injects the TP group's concatenation
};

struct Chunks {
  int begin = 0, end = 1;
  bool operator==(const Chunks&) const = default;
};

enum class Who : std::uint8_t { me, peer };

// {me, [etp, ep]}: for each member a of my ETP group, in order, each member of a's EP group.
struct RankSet {
  Who base = Who::me;
  std::vector<Role> spread;
  bool operator==(const RankSet&) const = default;
};

// Nesting of the loops that enumerate a buffer's rows, outermost first. Inside the innermost, rows
// stand in token order, then slot order. Chunks are consecutive tokens of one source; a unit is so many
// consecutive chunks that travel or are computed together (Buffer::together).
enum class Order : std::uint8_t {
  by_token,   // source, chunk                          held and tokens, which are also by_source
  by_source,  // unit, source, dest, expert, chunk      as they arrive
  by_dest,    // unit, dest, source, expert, chunk      as they leave
  by_expert,  // unit, dest, expert, source, chunk      as experts want them
};

// What one row holds: a vector of the model's width, or a sidecar.
enum class Columns : std::uint8_t { hidden, ffn, top_k, experts, shared_ffn };
// payload: the job's dtype. fp8: hidden rows that are only moved, their scales with them (fp8_row.hpp).
enum class Element : std::uint8_t { payload, f32, i32, fp8 };

// A part of the rows by position, for collectives that cut rows evenly among a group.
struct Split {
  Role role;
  Who who = Who::me;
  bool operator==(const Split&) const = default;
};

enum class Storage : std::uint8_t {
  pass,   // lives inside one pass; given back when the pass is over
  saved,  // written in the forward, kept by the handle for the backward
  caller  // the caller's memory: tokens, output, and their gradients
};

struct Buffer {
  std::string name;
  Symbol symbol = Symbol::tokens;
  Chunks chunks;
  RankSet sources, dests;  // dests is unused for held and tokens
  Order order = Order::by_token;
  int together = 0;  // chunks of a unit; 0: all where rows are by_expert, else 1
  Columns columns = Columns::hidden;
  Element element = Element::payload;
  Storage storage = Storage::pass;
  std::optional<Role> blocks;  // the rows once for each member of this group, one block after another
  std::optional<Split> split;  // only this part of the rows
  int alias = -1;              // the same memory as that buffer, declared in other words
};

// Some consecutive rows of a buffer: all of them, or those that match every selector given. Inside an
// exchange `peer` is each member of the step's group in turn.
struct View {
  int buffer = -1;
  std::optional<Chunks> chunks;
  std::optional<RankSet> sources, dests;
  std::optional<Split> split;
  std::optional<Who> block;
};

// Rows of `from` to rows of `to`. With `ids` (an i32 [rows, top_k] sidecar of `from`'s rows) a row goes
// to each of its experts among `to`'s dests, once for each row that `to`'s symbol distinguishes;
// without, both hold the same rows in different orders, and counts say where.
struct IndexMap {
  std::string name;
  View from, to;
  View ids;  // buffer -1: by counts
};

enum class StepKind : std::uint8_t {
  route,            // in: tokens                        out: ids, weights, logits
  counts_exchange,  // `slices` of the counts, over the group
  index,            // builds `map`
  pack,             // in: rows [, weights]              out: rows       P, each row times its weight
  repack,           // in: rows                          out: rows       P or P^T, a permutation
  exchange,         // in: view to peer                  out: view from peer
  all_gather,       // in: my view                       out: view from peer
  ordered_sum,      // in: blocks                        out: their sum in block order
  expert_forward,   // in: x                             out: y, gate, up, act
  expert_dgrad,     // in: dy, gate, up                  out: dx, act, dgate, dup
  expert_wgrad,     // in: x, dy, act, dgate, dup        out: the weights' gradients
  partial_combine,  // in: packed rows [, weights]       out: rows       P^T, in the node
  combine,          // in: packed rows [, weights]       out: rows       P^T, at the source
  weight_grad,      // in: dy rows, packed y rows        out: gradient of each weight (row, slot)
  route_backward,   // in: tokens, weight gradients, ids, logits          out: adds to token gradients
  copy,             // in: rows                          out: rows
  // The shared expert: an FFN that every token goes through, beside the routed ones.
  shared_forward,  // in: x                             out: y, gate, up, act
  shared_dgrad,    // in: dy, gate, up                  out: dx, act, dgate, dup
  shared_wgrad,    // in: x, dy, act, dgate, dup        out: the weights' gradients
  add,             // in: rows                          out: rows, added to
  mix,             // in: x, shared y                   out: routed y becomes y; routed y as it was
  mix_backward,    // in: x, dy, routed y, shared y     out: d routed y, d shared y, gate's part of dx
  convert,         // in: hidden rows                   out: the same rows as fp8, or fp8 as payload
};

enum class StepPhase : std::uint8_t { metadata, forward, dgrad, wgrad };

// A part of the count tables that a counts_exchange sends to `peer`: entries of one symbol.
struct CountSlice {
  Symbol symbol = Symbol::pairs;
  RankSet sources, dests;
};

struct Step {
  std::string name;
  StepKind kind = StepKind::copy;
  StepPhase phase = StepPhase::forward;
  int chunk = -1;  // the first, of a step that serves several; -1: the whole layer
  Lane lane = Lane::compute;
  Role group = Role::ep;      // of communication
  bool metadata = false;      // bytes counted apart from payload
  std::vector<View> in, out;  // as the kind says
  int map = -1;
  bool transpose = false;     // of a repack
  View weights;               // [rows, top_k] factors of pack and combine; buffer -1: all 1
  bool shared_by_tp = false;  // wgrad: every rank of the TP group computes this whole; 1/t of it counts
  bool beside = false;        // serves the shared expert; without such steps the rest moves tokens as with them
  std::vector<CountSlice> slices;
  std::vector<int> after;  // indices of earlier steps of this pass; a backward runs when its forward is over
};

struct Schedule {
  std::string name;  // for people: "sliced flat n=4"
  std::string split,
      transport;  // labels of the algorithm that built it: for people and emitters; no execution reads them
  Intake intake = Intake::as_held;
  int chunks = 1;  // by which tokens are counted: a multiple of the n of either pass
  int pieces = 1;  // r of the forward, divides n
  std::vector<Buffer> buffers;
  std::vector<IndexMap> maps;
  std::vector<Step> forward, backward;  // each in issue order
};

// ---------------------------------------------------------------------------------------------------
// Reading a schedule: groups, counts, and the rows of a view. All of this is used alike by the planner
// (expected counts) and the runtime (integers); rows are doubles, exact for integers below 2^53.

// Members of each group of each rank, computed on demand and kept: not thread-safe, const or not.
class RankGroups {
 public:
  RankGroups(const Layout& layout, int gpus_per_node);
  const Layout& layout() const { return layout_; }
  int gpus_per_node() const { return gpus_per_node_; }
  std::span<const int> members(Role role, int rank) const;
  int index_in(Role role, int rank) const;
  int size(Role role) const;
  // Ranks of a RankSet, in its order.
  void expand(const RankSet& set, int me, int peer, std::vector<int>& out) const;
  // Index of a rank's node among the nodes that its EP group spans.
  int node_index(int rank) const;

 private:
  Layout layout_;
  int gpus_per_node_;
  mutable std::vector<std::unordered_map<int, std::vector<int>>> known_;  // [role], by rank: those asked for
};

// Where counts come from. `index` is a copy of an expert for pairs, a rank for rank_tokens (it stands for its place in
// its EP group: a token of another EP group has a rank there) and node_tokens (any rank of the node), unused otherwise.
// Throws std::logic_error when the count is not known here.
class CountSource {
 public:
  explicit CountSource(ExpertPlacement placement) : placement_(std::move(placement)) {}
  virtual ~CountSource() = default;
  virtual double count(Symbol symbol, int chunk, int source, int index) const = 0;
  const ExpertPlacement& placement() const { return placement_; }

 private:
  ExpertPlacement placement_;
};

// One run of rows that share chunk, source, dest and expert.
struct Segment {
  int chunk, source, dest, expert;
  double offset, rows;
};

// Chunks of one unit of the buffer's rows.
int unit_of(const Buffer& buffer);

// The rows of a buffer as its declaration orders them (one block, before `split`).
std::vector<Segment> segments_of(const Buffer& buffer, const RankGroups& groups, const CountSource& counts, int me);

// First row and number of rows of a view in its buffer.
struct RowRange {
  double offset = 0, rows = 0;
};
// Throws std::logic_error when the selected rows are not consecutive: a schedule that says so is wrong.
RowRange resolve(const Schedule& schedule, const View& view, const RankGroups& groups, const CountSource& counts,
                 int me, int peer);
// Rows of a view without its place: cheaper, and defined even where the place is not.
double rows_of(const Buffer& buffer, const View& view, const RankGroups& groups, const CountSource& counts, int me,
               int peer);
double rows_of(const Schedule& schedule, const View& view, const RankGroups& groups, const CountSource& counts, int me,
               int peer);

// The buffer whose memory this one is. Alias chains must be sound: check() says whether they are.
int root_of(const Schedule& schedule, int buffer);

// What a row's width depends on: the model, the experts' shards and the job's dtype.
struct RowWidths {
  double hidden = 0, ffn_shard = 0, top_k = 0, experts = 0, element_bytes = 0;
  double shared_shard = 0;  // of the shared expert's FFN
};
double columns_of(const Buffer& buffer, const RowWidths& widths);
double row_bytes(const Buffer& buffer, const RowWidths& widths);

// [begin, end) of part `index` of `parts` of n rows: the one rule by which anything is cut evenly.
inline std::int64_t part_begin(std::int64_t n, int parts, int index) { return n * index / parts; }

// Everything that must hold of a schedule whatever the counts: indices in range, dependencies backward,
// metadata before use, chunk ranges, views of existing buffers. Returns one line a violation.
std::vector<std::string> check(const Schedule& schedule);

std::string_view name(Symbol);
std::string_view name(StepKind);
std::string_view name(StepPhase);

}  // namespace topomoe
