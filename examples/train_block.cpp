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
// group feed it the same tokens, others their own, and gradients are summed over who shares a parameter.
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
#include "topomoe/moe_layer.hpp"
#include "topomoe/plan.hpp"

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

struct Shared {
  Parameter* parameter;
  float divide_by;  // what the ranks' sum counts too often
};
// Sums gradients over the ranks of `group`, all in one message.
void reduce(const std::vector<Shared>& shared, MPI_Comm group) {
  std::vector<float> bucket;
  for (const Shared& s : shared)
    bucket.insert(bucket.end(), s.parameter->gradient.begin(), s.parameter->gradient.end());
  MPI_Allreduce(MPI_IN_PLACE, bucket.data(), static_cast<int>(bucket.size()), MPI_FLOAT, MPI_SUM, group);
  const float* from = bucket.data();
  for (const Shared& s : shared)
    for (float& g : s.parameter->gradient) g = *from++ / s.divide_by;
}

// The first loss and that of the last ten steps, means over all ranks.
std::pair<double, double> train(const topomoe::Plan& plan, int rank) {
  const topomoe::Layout& layout = plan.layout;
  const auto device = topomoe::make_cpu_device();
  const auto ranks = topomoe::make_mpi_communicator();
  const topomoe::LayerShape shape{kWidth, kFfn, plan.model.experts, plan.model.top_k, true, topomoe::DType::f32};
  topomoe::MoeLayer moe(plan.schedule, layout, plan.topology.gpus_per_node, shape, *ranks, *device);

  // What is the same on all ranks is drawn from one seed; experts from that of their place in the expert groups.
  const topomoe::Coordinates place = topomoe::coordinates(layout, rank);
  std::mt19937 same(1), own(100 + static_cast<unsigned>(place.ep * layout.etp + place.etp)),
      data(10000 + static_cast<unsigned>(rank / layout.tp));
  Block block(same);
  const int local = shape.experts / layout.ep;
  const std::int64_t shard = kFfn / layout.etp;
  Parameter router(shape.experts, kWidth, same), gate(local * shard, kWidth, own), up(local * shard, kWidth, own),
      down(local * kWidth, shard, own, kFfn);
  MPI_Comm replicas = MPI_COMM_NULL;  // ranks that hold the same (shards of) experts
  MPI_Comm_split(MPI_COMM_WORLD, place.ep * layout.etp + place.etp, rank, &replicas);

  // The loss is the mean over data ranks. Every rank of a TP group computes the block's gradients whole; of its own
  // parameters the layer gives each rank a share.
  const float data_ranks = static_cast<float>(layout.world / layout.tp);
  const std::vector<Shared> experts{{&gate, data_ranks}, {&up, data_ranks}, {&down, data_ranks}};
  std::vector<Shared> everywhere{{&router, data_ranks}};
  for (Parameter* p : block.parameters()) everywhere.push_back({p, static_cast<float>(layout.world)});
  double first = 0, last = 0;
  for (int step = 1; step <= kSteps; ++step) {
    const Batch batch = draw(data);
    const std::size_t rows = batch.tokens.size();
    Matrix out(rows * kWidth), d_in(rows * kWidth);

    const Matrix& in = block.attend(batch.tokens);
    auto handle = moe.forward(in.data(), static_cast<std::int64_t>(rows), out.data(),
                              {router.value.data(), gate.value.data(), up.value.data(), down.value.data()});
    double loss = block.judge(out, batch.answers);

    const Matrix& d_out = block.judge_backward();
    moe.backward(handle, d_out.data(), d_in.data(),
                 {router.value.data(), gate.value.data(), up.value.data(), down.value.data()},
                 {router.gradient.data(), gate.gradient.data(), up.gradient.data(), down.gradient.data()});
    block.attend_backward(d_in);

    reduce(everywhere, MPI_COMM_WORLD);
    reduce(experts, replicas);
    for (Parameter* p : block.parameters()) p->step(step, kLearningRate);
    for (Parameter* p : {&router, &gate, &up, &down}) p->step(step, kLearningRate);

    MPI_Allreduce(MPI_IN_PLACE, &loss, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    loss /= layout.world;
    if (step == 1) first = loss;
    if (step > kSteps - 10) last += loss / 10;
    if (rank == 0 && (step == 1 || step % 20 == 0)) std::printf("step %3d  loss %.3f\n", step, loss);
  }
  MPI_Comm_free(&replicas);
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
