// Trains a small transformer block, causal attention and a planned MoE layer, on the ranks of an MPI job:
//
//   topomoe plan --cluster C --model M -o plan.json
//   mpirun -n 8 train_block plan.json
//
// The next token follows from the last two: after an even one x becomes 5x+3, else 7x+6 (mod 16). Without attention the
// loss stays above 7/8 ln 2 = 0.61, as two answers are equally likely. It begins near 3.2; exits with 0 where that of
// the last ten steps is less than an eighth of it.
//
// What a framework would do is block.hpp, plain C++ on one rank. Here is what the layer asks of its user: ranks of a TP
// group feed it the same tokens, others their own, and gradients are summed over who shares a parameter. The layer is
// as planned but for its width: placement with replicas, capacity, router and shared expert are the plan's.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "examples/block.hpp"
#include "topomoe/communicator_mpi.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"
#include "topomoe/moe_layer.hpp"
#include "topomoe/plan.hpp"
#include "topomoe/planned_layer.hpp"

namespace {

using namespace example;

constexpr int kSteps = 110, kSequences = 24;  // of each data-parallel rank
constexpr std::int64_t kFfn = 64;
constexpr float kLearningRate = 0.008F;

topomoe::Plan read(const char* path) {
  std::ifstream in(path, std::ios::binary);
  return topomoe::read_plan({std::istreambuf_iterator<char>(in), {}}, path);
}

struct Batch {
  std::vector<int> tokens, answers;
};
Batch draw(std::mt19937& random) {
  Batch b;
  for (int s = 0; s < kSequences; ++s)
    for (int t = 0, before = 0; t < kLength; ++t) {
      const int x = static_cast<int>(random() % kVocabulary);
      b.tokens.push_back(x);
      b.answers.push_back((before % 2 == 0 ? 5 * x + 3 : 7 * x + 6) % kVocabulary);
      before = x;
    }
  return b;
}

// Ranks that hold the same parameters, and what the sum of their gradients counts too often.
struct Sharers {
  MPI_Comm group;
  std::vector<Parameter*> parameters;
  float divide_by;
};
// Sums gradients, all in one message.
void reduce(const Sharers& s) {
  std::vector<float> bucket;
  for (const Parameter* p : s.parameters) bucket.insert(bucket.end(), p->gradient.begin(), p->gradient.end());
  MPI_Allreduce(MPI_IN_PLACE, bucket.data(), static_cast<int>(bucket.size()), MPI_FLOAT, MPI_SUM, s.group);
  const float* from = bucket.data();
  for (Parameter* p : s.parameters)
    for (float& g : p->gradient) g = *from++ / s.divide_by;
}
MPI_Comm ranks_alike(int colour, int rank) {
  MPI_Comm group = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, colour, rank, &group);
  return group;
}

// Of some experts, or of the shared one: a shard of each.
struct Experts {
  explicit Experts(std::int64_t shard_rows) : shard(shard_rows), random(0) {}
  void draw_one(unsigned seed) {
    std::mt19937 its(seed);
    gate.append(Parameter(shard, kWidth, its)), up.append(Parameter(shard, kWidth, its));
    down.append(Parameter(kWidth, shard, its, kFfn));
  }
  std::vector<Parameter*> parameters() { return {&gate, &up, &down}; }
  std::int64_t shard;
  std::mt19937 random;
  Parameter gate{0, kWidth, random}, up{0, kWidth, random}, down{0, kWidth, random};
};

// The first loss and that of the last ten steps, means over all ranks.
std::pair<double, double> train(const topomoe::Plan& plan, int rank) {
  const topomoe::Layout& layout = plan.layout;
  const auto device = topomoe::make_cpu_device();
  const auto ranks = topomoe::make_mpi_communicator();
  if (layout.sequence_parallel) throw topomoe::InvalidInput("plan", "sequence parallel", "its ranks hold other tokens");
  topomoe::LayerShape shape = topomoe::layer_shape_of(plan);
  shape.hidden = kWidth, shape.ffn = kFfn, shape.dtype = topomoe::DType::f32;
  if (shape.shared_ffn > 0) shape.shared_ffn = kFfn;
  topomoe::MoeLayer moe(topomoe::schedule_of(plan), layout, plan.topology.gpus_per_node, shape, *ranks, *device);

  // What is the same on all ranks is drawn from one seed; experts, and the shard of the shared one, each from its own:
  // replicas begin alike, and stay so.
  const topomoe::Coordinates place = topomoe::coordinates(layout, rank);
  std::mt19937 same(1), data(10000 + static_cast<unsigned>(rank / layout.tp));
  Block block(same);
  Parameter router(shape.experts, kWidth, same), mix(static_cast<int>(shape.shared_gate), kWidth, same);
  Experts experts(kFfn / layout.etp), shared(shape.shared_ffn / layout.tp);
  for (const int expert : topomoe::held_experts(plan, rank))
    experts.draw_one(100 + static_cast<unsigned>(expert * layout.etp + place.etp));
  if (shape.shared_ffn > 0) shared.draw_one(1000 + static_cast<unsigned>(place.tp));

  // The loss is the mean over data ranks. Every rank of a TP group computes the block's gradients whole; of its own
  // parameters the layer gives each rank a share: experts have theirs from all that hold this shard of them, the shared
  // expert from the tokens of its TP group, router and mix from all.
  const float data_ranks = static_cast<float>(layout.world / layout.tp);
  const std::vector<Sharers> sharers{
      {MPI_COMM_WORLD, block.parameters(), static_cast<float>(layout.world)},
      {MPI_COMM_WORLD, {&router, &mix}, data_ranks},
      {ranks_alike(place.ep * layout.etp + place.etp, rank), experts.parameters(), data_ranks},
      {ranks_alike(place.tp, rank), shared.parameters(), data_ranks}};
  const topomoe::LayerWeights weights{.router = router.value.data(),
                                      .gate = experts.gate.value.data(),
                                      .up = experts.up.value.data(),
                                      .down = experts.down.value.data(),
                                      .shared_gate = shared.gate.value.data(),
                                      .shared_up = shared.up.value.data(),
                                      .shared_down = shared.down.value.data(),
                                      .mix = mix.value.data()};
  const topomoe::LayerGradients gradients{.router = router.gradient.data(),
                                          .gate = experts.gate.gradient.data(),
                                          .up = experts.up.gradient.data(),
                                          .down = experts.down.gradient.data(),
                                          .shared_gate = shared.gate.gradient.data(),
                                          .shared_up = shared.up.gradient.data(),
                                          .shared_down = shared.down.gradient.data(),
                                          .mix = mix.gradient.data()};
  double first = 0, last = 0;
  for (int step = 1; step <= kSteps; ++step) {
    const Batch batch = draw(data);
    const std::size_t rows = batch.tokens.size();
    Matrix out(rows * kWidth), d_in(rows * kWidth);

    const Matrix& in = block.attend(batch.tokens);
    auto handle = moe.forward(in.data(), static_cast<std::int64_t>(rows), out.data(), weights);
    double loss = block.judge(out, batch.answers);

    const Matrix& d_out = block.judge_backward();
    moe.backward(handle, d_out.data(), d_in.data(), weights, gradients);
    block.attend_backward(d_in);

    moe.sum_over_replicas(gradients);
    for (const Sharers& s : sharers) {
      reduce(s);
      for (Parameter* p : s.parameters) p->step(step, kLearningRate);
    }

    MPI_Allreduce(MPI_IN_PLACE, &loss, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    loss /= layout.world;
    if (step == 1) first = loss;
    if (step > kSteps - 10) last += loss / 10;
    if (rank == 0 && (step == 1 || step % 20 == 0)) std::printf("step %3d  loss %.3f\n", step, loss);
  }
  for (const Sharers& s : sharers)
    if (MPI_Comm group = s.group; group != MPI_COMM_WORLD) MPI_Comm_free(&group);
  return {first, last};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const topomoe::MpiSession session;
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  try {
    const topomoe::Plan plan = read(argv[1]);
    if (rank == 0) std::printf("%s, %s\n", topomoe::name(plan.layout).c_str(), plan.schedule.name.c_str());
    const auto [first, last] = train(plan, rank);
    if (rank == 0) std::printf("loss fell %.1f times\n", first / last);
    return first > 8 * last ? 0 : 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "train_block: rank %d: %s\n", rank, e.what());
    topomoe::end_mpi_job();
    return 1;
  }
}
