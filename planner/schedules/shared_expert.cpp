// The shared expert in any schedule: every token goes through it on the rank's own TP group, while routed tokens are on
// their way.
//
// Sharded over TP as a dense layer is: a rank needs all tokens of its TP group, its partial outputs are summed in rank
// order. Where ranks of the group inject different tokens (sliced, sequence parallel) each gets the sum of its own,
// and what gathers y for the routed experts gathers both; otherwise each sums up 1/t and all get the result. Its steps
// are marked `beside`. Not cut into chunks: it hides behind the first exchanges, however those are cut.

#include "planner/schedules/draft.hpp"

namespace topomoe {
namespace {

constexpr double kOpenSlot = -2;  // before the first chunk

View part(View v, Who who) {
  v.split = Split{Role::tp, who};
  return v;
}

View block_of_peer(int buffer) {
  View v = whole(buffer);
  v.block = Who::peer;
  return v;
}

// Marks the steps that are added while it lives.
class Marked {
 public:
  explicit Marked(bool& flag) : flag_(flag) { flag_ = true; }
  ~Marked() { flag_ = false; }
  Marked(const Marked&) = delete;
  Marked& operator=(const Marked&) = delete;

 private:
  bool& flag_;
};

}  // namespace

bool LayerDraft::distinct_over_tp() const {
  return request_.tp > 1 &&
         (schedule_.intake == Intake::tp_slice || (schedule_.intake == Intake::as_held && request_.sequence_parallel));
}

int LayerDraft::token_rows(std::string name, RankSet sources, Columns columns, Storage storage) {
  return buffer({.name = std::move(name),
                 .symbol = Symbol::tokens,
                 .chunks = {0, schedule_.chunks},
                 .sources = std::move(sources),
                 .order = Order::by_token,
                 .columns = columns,
                 .storage = storage});
}

// Rows that each rank of the TP group has of its own tokens, on all of them.
int LayerDraft::gather_over_tp(const std::string& name, int from, Storage storage) {
  const int to = token_rows(name, me({Role::tp}), Columns::hidden, storage);
  move(kOpenSlot, StepKind::all_gather, "gather " + name, -1, Role::tp, all_of(from),
       from_source(to, {0, schedule_.chunks}, peer()));
  return to;
}

// Partial sums of the TP group's shards, added up into `done` (rows of my tokens). Returns it, or `partial` where one
// rank has all.
int LayerDraft::sum_over_tp(double slot, const std::string& tag, int partial, int done) {
  if (request_.tp == 1) return partial;
  const bool distinct = distinct_over_tp();
  Buffer rows = schedule_.buffers[static_cast<std::size_t>(done)];
  rows.name = tag + "shared shards", rows.storage = Storage::pass, rows.blocks = Role::tp;
  if (!distinct) rows.split = Split{Role::tp};
  const int shards = buffer(std::move(rows));
  move(slot, StepKind::exchange, tag + "scatter shared", -1, Role::tp,
       distinct ? from_source(partial, {0, schedule_.chunks}, peer()) : part(whole(partial), Who::peer),
       block_of_peer(shards));
  move(slot, StepKind::ordered_sum, tag + "sum shared", -1, Role::tp, whole(shards),
       distinct ? whole(done) : part(whole(done), Who::me));
  if (!distinct)
    move(slot, StepKind::all_gather, tag + "gather shared sums", -1, Role::tp, part(whole(done), Who::me),
         part(whole(done), Who::peer));
  return done;
}

void LayerDraft::shared_forward(double slot) {
  if (request_.shared == SharedPart::none) return;
  const Marked marked(beside_);
  const bool distinct = distinct_over_tp();
  const Storage kept = request_.shared == SharedPart::mixed ? Storage::saved : Storage::pass;
  shared_.x = x;
  if (distinct && schedule_.intake == Intake::as_held) {
    step(kOpenSlot, {.name = "held counts",
                     .kind = StepKind::counts_exchange,
                     .phase = StepPhase::metadata,
                     .lane = Lane::intra_node,
                     .group = Role::tp,
                     .metadata = true,
                     .slices = {{Symbol::held, me(), {}}}});
    shared_.x = gather_over_tp("shared x", x, Storage::saved);
  }
  const RankSet all = distinct ? me({Role::tp}) : me();
  const int partial = token_rows("shared partial", all, Columns::hidden, request_.tp == 1 ? kept : Storage::pass);
  if (request_.gated) shared_.gate = token_rows("shared gate", all, Columns::shared_ffn, Storage::saved);
  shared_.up = token_rows("shared up", all, Columns::shared_ffn, Storage::saved);
  if (!request_.gated) shared_.gate = shared_.up;
  const int act = token_rows("shared act", all, Columns::shared_ffn, Storage::pass);
  step(slot, {.name = "shared",
              .kind = StepKind::shared_forward,
              .in = {whole(shared_.x)},
              .out = {whole(partial), whole(shared_.gate), whole(shared_.up), whole(act)}});
  shared_.y = partial;
  if (request_.tp > 1) shared_.y = sum_over_tp(slot, "", partial, token_rows("shared y", me(), Columns::hidden, kept));
  if (request_.shared == SharedPart::mixed)
    shared_.routed = token_rows("routed y", me(), Columns::hidden, Storage::saved);
}

// The routed experts' output of chunk c is in y.
void LayerDraft::join(double slot, int c) {
  if (request_.shared == SharedPart::none) return;
  const Marked marked(beside_);
  const View mine_of_shared = from_source(shared_.y, chunk(c), me());
  Step s{.name = numbered("add shared", c), .kind = StepKind::add, .chunk = chunk(c).begin, .lane = Lane::copy};
  s.in = {mine_of_shared};
  s.out = {mine(y, c)};
  if (request_.shared == SharedPart::mixed) {
    s.name = numbered("mix shared", c), s.kind = StepKind::mix;
    s.in = {mine(x, c), mine_of_shared};
    s.out = {mine(y, c), from_source(shared_.routed, chunk(c), me())};
  }
  step(slot, std::move(s));
}

// Output gradients of both parts; from here on dy is that of the routed one.
void LayerDraft::open_mix() {
  shared_.dy = dy;
  if (request_.shared != SharedPart::mixed) return;
  const Marked marked(beside_);
  const int routed = token_rows("routed dy", me(), Columns::hidden, Storage::pass);
  shared_.dy = token_rows("shared dy", me(), Columns::hidden, Storage::pass);
  shared_.dx_of_gate = token_rows("dx of gate", me(), Columns::hidden, Storage::pass);
  step(kOpenSlot, {.name = "mix backward",
                   .kind = StepKind::mix_backward,
                   .phase = StepPhase::dgrad,
                   .in = {all_of(x), all_of(dy), whole(shared_.routed), all_of(shared_.y)},
                   .out = {whole(routed), whole(shared_.dy), whole(shared_.dx_of_gate)},
                   .shared_by_tp = request_.tp > 1 && !distinct_over_tp()});
  dy = routed;
}

void LayerDraft::shared_backward(double slot) {
  if (request_.shared == SharedPart::none) return;
  const Marked marked(beside_);
  const bool distinct = distinct_over_tp();
  // Output gradients that ranks hold alike are there for all tokens of the group.
  const bool whole_dy = request_.shared == SharedPart::added && schedule_.intake == Intake::tp_slice;
  const int all_dy = distinct && !whole_dy ? gather_over_tp("shared dy of all", shared_.dy, Storage::pass) : shared_.dy;
  const RankSet all = distinct ? me({Role::tp}) : me();
  const int partial = token_rows("b shared partial", all, Columns::hidden, Storage::pass),
            act = token_rows("b shared act", all, Columns::shared_ffn, Storage::pass);
  int dgate = -1;
  if (request_.gated) dgate = token_rows("shared dgate", all, Columns::shared_ffn, Storage::pass);
  const int dup = token_rows("shared dup", all, Columns::shared_ffn, Storage::pass);
  if (!request_.gated) dgate = dup;
  step(slot, {.name = "shared dgrad",
              .kind = StepKind::shared_dgrad,
              .phase = StepPhase::dgrad,
              .in = {whole(all_dy), whole(shared_.gate), whole(shared_.up)},
              .out = {whole(partial), whole(act), whole(dgate), whole(dup)}});
  shared_.dx = partial;
  if (request_.tp > 1)
    shared_.dx = sum_over_tp(slot, "b ", partial, token_rows("shared dx", me(), Columns::hidden, Storage::pass));
  step(slot, {.name = "shared wgrad",
              .kind = StepKind::shared_wgrad,
              .phase = StepPhase::wgrad,
              .in = {whole(shared_.x), whole(all_dy), whole(act), whole(dgate), whole(dup)}});
}

void LayerDraft::join_gradients(double slot) {
  if (request_.shared == SharedPart::none) return;
  const Marked marked(beside_);
  for (const auto& [name, from] : {std::pair{"add shared dx", shared_.dx}, {"add dx of gate", shared_.dx_of_gate}})
    if (from >= 0)
      step(slot, {.name = name,
                  .kind = StepKind::add,
                  .phase = StepPhase::dgrad,
                  .lane = Lane::copy,
                  .in = {all_of(from)},
                  .out = {all_of(dx)}});
}

}  // namespace topomoe
