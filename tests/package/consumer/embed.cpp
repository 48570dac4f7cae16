// embed PLAN: plans for a cluster of two GPUs, writes the plan, reads it back, and runs its MoE layer on two threads of
// this process.

#include <cmath>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/moe_layer.hpp"
#include "topomoe/planner.hpp"
#include "topomoe/topology.hpp"

namespace {

topomoe::Topology two_gpus() {
  const auto rate = [](double GBps_per_direction) {
    return topomoe::Rate{GBps_per_direction, 0.5, topomoe::Source::assumed, "an example"};
  };
  topomoe::HostShape shape;
  shape.kind = "nvswitch";
  shape.gpus = 2, shape.nics = 2;
  shape.nvlink = rate(450), shape.pcie = rate(64), shape.nic = rate(50);
  const topomoe::GpuSpec gpu{"made up", 80, 3350, 989, 1978, 67, 132, topomoe::Source::assumed, "an example"};
  topomoe::Topology t;
  t.name = "pair";
  t.templates = {topomoe::build_host(shape, gpu, "pair")};
  t.groups = {{0, 1}};
  return t;
}

topomoe::Plan make_a_plan() {
  topomoe::PlanRequest request;
  request.topology = two_gpus();
  topomoe::Model& m = request.model;
  m.name = "tiny", m.model_type = "mixtral";
  m.hidden = 64, m.layers = 2, m.heads = 4, m.kv_heads = 4, m.head_dim = 16, m.vocab = 256;
  m.experts = 4, m.top_k = 2, m.expert_ffn = 32, m.is_moe = {1, 1}, m.renormalize = true;
  request.job.sequence = 32, request.job.global_batch = 4;
  request.job.dtype = topomoe::DType::f32;
  request.fix = {"ep=2"};
  request.flips = false;
  return *topomoe::make_plan(request);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::string text = topomoe::write_plan(make_a_plan());
  std::ofstream(argv[1]) << text;
  const topomoe::Plan plan = topomoe::read_plan(text, argv[1]);
  std::printf("%s, %s\n", topomoe::name(plan.layout).c_str(), plan.schedule.name.c_str());
  topomoe::run_inproc(plan.layout.world, [&](topomoe::Communicator& ranks) {
    const auto device = topomoe::make_cpu_device();
    const topomoe::LayerShape shape{64, 32, 4, 2, true, topomoe::DType::f32};
    topomoe::MoeLayer layer(plan.schedule, plan.layout, plan.topology.gpus_per_node, shape, ranks, *device);
    constexpr std::size_t kRows = 8, kMatrix = 2 * 64 * 32;  // two local experts
    const std::vector<float> x(kRows * 64, 0.5F), router(4 * 64, 0.1F), gate(kMatrix, 0.01F), down(kMatrix, 0.01F);
    std::vector<float> y(x.size());
    layer.forward(x.data(), kRows, y.data(), {router.data(), gate.data(), gate.data(), down.data()});
    // All experts alike and weights that sum to 1: y = 32 * 0.01 * silu(g) * g, with g = 64 * 0.5 * 0.01.
    const double g = 0.32, expected = 0.32 * g / (1 + std::exp(-g)) * g;
    for (const float value : y)
      if (!(std::abs(value - expected) < 1e-6)) throw std::runtime_error("wrong output " + std::to_string(value));
  });
  std::puts("both ranks agree with the formula");
  return 0;
}
