#include "tests/support/layer_matrix.hpp"

#include <algorithm>
#include <array>

#include "runtime/host_exchange.hpp"
#include "tests/support/drawn_counts.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe::testing {
namespace {

using Index = std::size_t;
constexpr int kExperts = 8;

// Named by what is uncommon about it.
struct Placement {
  ExpertOwners owners;
  double capacity_factor = 0;
};

std::vector<Placement> placements(int ep) {
  if (ep == 1) return {{{}, 0}, {{}, 0.7}};
  const int last = ep - 1;
  ExpertOwners uneven, scattered, replicated;
  for (int e = 0; e < kExperts; ++e) {
    uneven.push_back({e < 5 ? 0 : last});  // nobody between them has any
    scattered.push_back({(5 * e + 1) % ep});
    replicated.push_back({(3 * e + 1) % ep});
  }
  replicated[0] = {last, 0};  // not in order of rank
  replicated[5].clear();
  for (int place = 0; place < ep; ++place) replicated[5].push_back(place);
  return {{{}, 0}, {uneven, 0}, {scattered, 0}, {replicated, 0}, {replicated, 0.7}};
}

std::vector<Layout> layouts() {
  return {layout(4, 1, 1, 4),
          layout(4, 2, 1, 4),
          layout(4, 2, 2, 2),
          layout(4, 2, 2, 2, true),
          layout(4, 2, 1, 2, true, ExpertOrder::edp_inner),
          layout(4, 2, 4, 1)};
}

struct Cut {
  int chunks, pieces, backward_chunks, backward_pieces;  // 0: as the forward
};
constexpr std::array kCuts = {Cut{1, 1, 0, 0}, Cut{3, 3, 0, 0}, Cut{4, 2, 2, 1}};

struct Tokens {
  std::vector<int> held;
  DType dtype;
};
const std::vector<Tokens>& tokens() {
  static const std::vector<Tokens> all{{{5, 0, 7, 2}, DType::f32}, {{5, 0, 7, 2}, DType::bf16}, {{0}, DType::f32}};
  return all;
}

template <class A, class B>
void judge(std::vector<std::string>& wrong, const MatrixCase& m, const char* what, const A& actual, const B& expected) {
  const double worst = worst_of_bound(actual, expected);
  if (!(worst <= 1))
    wrong.push_back(describe(m) + ": " + what + " off by " + std::to_string(worst) + " of what roundings may do");
}

void judge_bytes(std::vector<std::string>& wrong, const MatrixCase& m, const char* pass, int rank,
                 const std::vector<Traffic>& actual, const std::vector<std::vector<Traffic>>& expected) {
  for (Index to = 0; to < actual.size(); ++to) {
    const Traffic &a = actual[to], &e = expected[static_cast<Index>(rank)][to];
    if (a.payload_bytes != e.payload_bytes || a.metadata_bytes != e.metadata_bytes)
      wrong.push_back(describe(m) + ": " + pass + ", rank " + std::to_string(rank) + " to " + std::to_string(to) +
                      ": " + std::to_string(a.payload_bytes) + " + " + std::to_string(a.metadata_bytes) +
                      " bytes, by tokens " + std::to_string(e.payload_bytes) + " + " +
                      std::to_string(e.metadata_bytes));
  }
}

TrafficMatrix traffic(const MatrixCase& m, const ExpectedResult& expected) {
  const ScheduleRequest& r = m.request;
  const int backward = r.backward_chunks > 0 ? r.backward_chunks : r.chunks;
  const bool recut = backward != r.chunks || (r.backward_pieces > 0 && r.backward_pieces != r.pieces);
  return expect_traffic(m.layer, expected.ids, r.split == TokenSplit::sliced, way_of(m.transport),
                        {r.chunks, backward, recut});
}

}  // namespace

std::vector<MatrixCase> layer_matrix() {
  std::vector<MatrixCase> all;
  for (const Layout& l : layouts())
    for (const Tokens& t : tokens()) {
      LayerCase c{
          .layout = l, .gpus_per_node = 2, .shape = {8, 8, kExperts, 3, true}, .tokens = t.held, .dtype = t.dtype};
      while (!expect_layer(c).decided) ++c.seed;  // neither placement nor schedule change the choice
      for (const Placement& p : placements(l.ep)) {
        if (t.held.size() == 1 && p.capacity_factor > 0) continue;
        c.owners = p.owners, c.shape.capacity_factor = p.capacity_factor;
        for (const std::string_view transport : transport_names())
          for (const auto split : {TokenSplit::replicated, TokenSplit::sliced})
            for (const Cut& cut : kCuts) {
              if (l.tp == 1 && split == TokenSplit::replicated) continue;  // the same schedule
              if (!applies(transport, l, c.gpus_per_node)) continue;
              ScheduleRequest r = request(l, split, cut.chunks, cut.pieces);
              r.backward_chunks = cut.backward_chunks, r.backward_pieces = cut.backward_pieces;
              all.push_back({c, transport, r});
            }
      }
    }
  return all;
}

std::string describe(const MatrixCase& m) {
  return std::string(m.transport) + " " + std::string(name(m.request.split)) +
         " n=" + std::to_string(m.request.chunks) + " r=" + std::to_string(m.request.pieces) + ", " + describe(m.layer);
}

const ExpectedResult& Expectations::of(const MatrixCase& m) {
  const bool sliced = m.request.split == TokenSplit::sliced;
  LayerCase c = m.layer;
  c.owners.clear();
  const std::string key = describe(c) + (c.shape.capacity_factor > 0 && sliced ? " sliced" : "");
  const std::lock_guard lock(mutex_);
  auto& known = known_[key];
  if (!known) known = std::make_unique<ExpectedResult>(expect_layer(c, sliced));
  return *known;
}

std::vector<std::string> check_layers(const std::vector<MatrixCase>& cases, Expectations& expectations,
                                      Communicator& communicator) {
  std::vector<std::string> wrong;
  HostExchange host(communicator);
  const auto device = make_cpu_device();
  const int rank = communicator.rank();
  for (const MatrixCase& m : cases) {
    const LayerCase& c = m.layer;
    const ExpectedResult& expected = expectations.of(m);
    RankTensors t(c, make_weights(c), rank);
    CountingCommunicator counting(communicator);
    MoeLayer layer = make_layer(c, build_schedule(m.transport, m.request), counting, *device);
    const TrafficMatrix bytes = traffic(m, expected);
    auto handle = layer.forward(t.x.data(), t.rows, t.y.data(), t.weights());
    judge_bytes(wrong, m, "forward", rank, counting.sent(), bytes.forward);
    counting.reset();
    layer.backward(handle, t.dy.data(), t.dx.data(), t.weights(), t.gradients());
    judge_bytes(wrong, m, "backward", rank, counting.sent(), bytes.backward);
    judge(wrong, m, "output", decode(t.y, c.dtype), expected.output[static_cast<Index>(rank)]);
    judge(wrong, m, "token gradients", decode(t.dx, c.dtype), expected.token_grads[static_cast<Index>(rank)]);

    ReferenceWeights mine = zero_weights(c);
    add_shards(c, rank, t, mine);
    std::vector<double> flat;
    for (const Values* v : {&mine.router, &mine.gate, &mine.up, &mine.down})
      flat.insert(flat.end(), v->begin(), v->end());
    ReferenceWeights sum = zero_weights(c);
    for (const auto& share : host.gather("gradients of weights", flat)) {
      Index at = 0;
      for (Values* v : {&sum.router, &sum.gate, &sum.up, &sum.down})
        for (Index i = 0; i < v->size() && !share.empty(); ++i) (*v)[i] += share[at++];
    }
    if (rank != 0) continue;
    judge(wrong, m, "router gradient", sum.router, expected.grads.router);
    judge(wrong, m, "gate gradients", sum.gate, expected.grads.gate);
    judge(wrong, m, "up gradients", sum.up, expected.grads.up);
    judge(wrong, m, "down gradients", sum.down, expected.grads.down);
  }
  return wrong;
}

}  // namespace topomoe::testing
