// What every schedule builder shares: a Schedule under construction.
//
// A builder declares buffers, maps and steps in whatever order reads best and gives each step a slot;
// finish() sorts by slot (stably) into the one issue order and derives `after` from who wrote what a
// step reads. LayerDraft adds what surrounds any transport: how tokens come in, the router, the
// experts of one piece, how output leaves. A transport is then the way from `tokens` to `expert_in` and
// back, nothing else.
#pragma once

#include <compare>
#include <string>
#include <vector>

#include "topomoe/schedule.hpp"

namespace topomoe {

enum class TokenSplit : std::uint8_t { replicated, sliced };
std::string_view name(TokenSplit);

// What a layer has beside its routed experts: nothing, a shared expert whose output is added, or one that a gate
// mixes in (SharedGate of topomoe/model.hpp).
enum class SharedPart : std::uint8_t { none, added, mixed };

// What a builder may look at. Group sizes tell it which steps there are (is there a TP group to gather over?);
// how many rows a step moves is never its business.
struct ScheduleRequest {
  TokenSplit split = TokenSplit::sliced;
  int tp = 1, etp = 1, ep = 1;
  bool sequence_parallel = false;
  int chunks = 1;  // n >= 1
  int pieces = 1;  // r divides n
  // Of the backward; 0: as the forward.
  int backward_chunks = 0, backward_pieces = 0;
  SharedPart shared = SharedPart::none;
  bool gated = true;  // else experts, the shared one too, have no gate: what is named so is up, and takes no memory
  // Tokens go out to experts as fp8 in the forward (Job::dispatch_dtype): converted before they are packed, where rows
  // are fewest, and back when they lie as experts want them; all between moves them as they are. Also where EP is 1 and
  // nothing travels, so that what experts see depends on no layout.
  bool fp8_dispatch = false;
  auto operator<=>(const ScheduleRequest&) const = default;
};

inline RankSet me(std::vector<Role> spread = {}) { return {Who::me, std::move(spread)}; }
inline RankSet peer(std::vector<Role> spread = {}) { return {Who::peer, std::move(spread)}; }
inline View whole(int buffer) { return {.buffer = buffer}; }
inline View from_source(int buffer, Chunks c, RankSet s) {
  View v = whole(buffer);
  v.chunks = c, v.sources = std::move(s);
  return v;
}
inline View to_dest(int buffer, RankSet d) {
  View v = whole(buffer);
  v.dests = std::move(d);
  return v;
}
inline std::string numbered(const std::string& name, int i) { return name + "." + std::to_string(i); }

// How the tokens of one pass are cut: n chunks travel, r pieces of them are computed.
struct Cut {
  int chunks = 1, pieces = 1;
  bool operator==(const Cut&) const = default;
};
// Throws InvalidInput where pieces do not divide chunks, or both passes together count in more than kMaxCountChunks.
Cut cut_of(const ScheduleRequest& request, bool backward);
constexpr int kMaxCountChunks = 256;

// Of a move, where it has any. `metadata`: sidecars on their way beside the payload.
struct MoveBy {
  int map = -1;
  View weights = {};
  bool transpose = false, metadata = false;
};

class LayerDraft {
 public:
  explicit LayerDraft(const ScheduleRequest& request, std::string transport);

  const ScheduleRequest& request() const { return request_; }
  bool sliced() const { return request_.split == TokenSplit::sliced; }
  bool expert_sharded() const { return request_.etp > 1; }
  // All ranks of my ETP group inject the same tokens.
  bool alike_over_etp() const { return expert_sharded() && request_.etp == request_.tp && !sliced(); }

  // Chunks and pieces of the pass under construction, by number; as chunks of the counts; and one in the other.
  int n() const { return cut_.chunks; }
  int r() const { return cut_.pieces; }
  Chunks chunk(int c) const { return {c * unit(), (c + 1) * unit()}; }
  Chunks piece(int p) const { return {p * schedule_.chunks / r(), (p + 1) * schedule_.chunks / r()}; }
  Chunks chunks_of_piece(int p) const { return {p * n() / r(), (p + 1) * n() / r()}; }
  int piece_of(int c) const { return c * r() / n(); }
  // The backward has other chunks or pieces than the forward: its maps are its own.
  bool recuts() const { return cut_of(request_, true) != cut_of(request_, false); }

  int buffer(Buffer b);
  int map(std::string name, View from, View to, View ids = {});
  // A slot is a tick of the pipeline: chunk c sets off at tick c, and each further hop or computation is one
  // later, so that chunk c+1's exchange is issued before anything waits for chunk c's. Steps of one slot keep the
  // order in which they were added. Steps before the first chunk have slots below 0, close_* one after all others.
  void step(double slot, Step s);
  // Rows from one place to another, at chunk c of this pass (the first of several): communication on the lane of its
  // group, anything else on the copy lane.
  void move(double slot, StepKind kind, std::string name, int c, Role group, View in, View out, MoveBy by = {});
  // Builds a map that was declared.
  void index(double slot, std::string name, int c, int map);
  void exchange_counts(std::string name, Role group, std::vector<CountSlice> slices);

  // Rows for experts as a transport moves them: the job's dtype unless it is a sidecar.
  int rows(std::string name, Symbol symbol, Chunks chunks, RankSet sources, RankSet dests, Order order,
           Storage storage = Storage::pass, Element element = Element::payload);
  int sidecar(std::string name, int like, Columns columns, Element element, Storage storage = Storage::pass);

  // My tokens of chunk c in one of the four token buffers, or in a sidecar of them.
  View mine(int token_buffer, int c) const { return from_source(token_buffer, chunk(c), me()); }

  // Token space: x (input), y (output), dy, dx: rows of the tokens that this rank injects, all chunks.
  int x = -1, y = -1, dy = -1, dx = -1;
  int ids = -1, weights = -1, weight_grads = -1;  // [rows, top_k], rows as x's own

  // Intake, router; then the transport exchanges the counts that it needs.
  void open_forward();
  // After combine of chunk c: give the rows to the ranks that should hold them.
  void deliver(double slot, int token_buffer, int c);
  void close_forward(double slot);
  void open_backward();
  // Router backward, then delivery of dx.
  void close_backward(double slot);

  // Whose rows come together at my experts.
  RankSet computing() const;
  // Rows of piece p by_expert that the forward keeps for the backward: what goes into the experts and, if
  // asked for, what comes out. Where the backward has other pieces it repacks them first.
  View expert_in(int p) const { return of_piece(saved_.in, p); }
  View expert_out(int p) const { return of_piece(saved_.out, p); }
  void keep_expert_out();

  // The shared expert, TP-sharded as a dense layer, on the compute lane at `slot`: where the first chunks are on their
  // way and nothing has arrived. Does nothing where the layer has none. deliver() and close_backward() join its rows.
  void shared_forward(double slot);
  void shared_backward(double slot);

  // Tokens that set off in the forward: x, or x as fp8, which chunk c becomes at `slot`; and how rows of a token buffer
  // travel.
  int outgoing() const { return x_fp8_ >= 0 ? x_fp8_ : x; }
  void to_fp8(double slot, int c);
  Element element_of(int buffer) const { return schedule_.buffers[static_cast<std::size_t>(buffer)].element; }
  // Where rows of that element are put for the experts of piece p: expert_in, or what from_fp8 converts to it.
  View arrives_in(int p, Element element);
  void from_fp8(double slot, int p, const View& arrived);

  // Experts of piece p from expert_in to `out`.
  void expert_forward(double slot, int p, View out);
  // Returns dx rows; wgrad is issued at `wgrad_slot`.
  int expert_backward(double slot, double wgrad_slot, int p, int dout);

  Schedule finish();

 private:
  struct Slotted {
    double slot;
    Step step;
  };
  struct Saved {
    int in, gate, up, out = -1;
  };
  int unit() const { return schedule_.chunks / n(); }
  View of_piece(int buffer, int p) const {
    View v = whole(buffer);
    v.chunks = piece(p);
    return v;
  }
  int all_pieces(const std::string& name, Columns columns, Storage storage);
  Lane lane_of(Role group) const;
  int token_buffer(const std::string& name, bool saved);
  void gather_intake(const std::string& name, int buffer);
  bool distinct_over_tp() const;
  int token_rows(std::string name, RankSet sources, Columns columns, Storage storage);
  View all_of(int token_buffer) const { return from_source(token_buffer, {0, schedule_.chunks}, me()); }
  int gather_over_tp(const std::string& name, int from, Storage storage);
  int sum_over_tp(double slot, const std::string& tag, int partial, int done);
  void join(double slot, int c);
  void open_mix();
  void join_gradients(double slot);

  ScheduleRequest request_;
  Schedule schedule_;
  std::vector<Slotted> forward_, backward_;
  std::vector<Slotted>* pass_ = &forward_;
  Cut cut_;  // of this pass
  int logits_ = -1, x_fp8_ = -1;
  Saved saved_;
  // Of the shared expert: its tokens, output and what the forward saves; in the backward gradients.
  struct SharedBuffers {
    int x = -1, gate = -1, up = -1, y = -1, routed = -1, dy = -1, dx = -1, dx_of_gate = -1;
  };
  SharedBuffers shared_;
  bool beside_ = false;
};

// Partial sums of experts' shards, added up in rank order over the ETP group. `rows` declares what one rank gets of
// chunk c: from `partial`, which has them beside those of other ranks of the group, to `done`. Ranks that hold the
// same rows each sum up 1/t of them and all get the result.
void sum_over_etp(LayerDraft& draft, double slot, const std::string& tag, int c, Buffer rows, int partial,
                  const View& done, bool metadata = false);

// Fills in `after` of the steps of one pass, which stand in issue order.
void derive_dependencies(const Schedule& schedule, std::vector<Step>& steps);

}  // namespace topomoe
