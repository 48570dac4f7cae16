#include "planner/emit/emit.hpp"

#include <algorithm>

namespace topomoe {
namespace {

constexpr Emitter kEmitters[] = {
    {"megatron", "a bash array of Megatron-LM arguments, and the environment they demand", emit_megatron},
    {"deepspeed", "ds_config.json with DeepSpeed's AutoEP section", emit_deepspeed},
    {"nccl-env", "NCCL variables to source, each with its reason", emit_nccl_env},
    {"rankfile", "Open MPI's rankfile: rank -> host", emit_rankfile},
    {"torchrun", "the torchrun command line of each host, ranks fixed", emit_torchrun},
    {"slurm", "an sbatch script that keeps the plan's rank order", emit_slurm},
};

}  // namespace

std::span<const Emitter> emitters() { return kEmitters; }

long long gradient_bucket(const Plan& p) {
  double most = 0;
  for (const GradientLayers& l : p.gradients.layers)
    for (const GradientOperation& op : l.operations) most = std::max(most, op.bytes);
  return static_cast<long long>(most / 4);  // fp32
}

const Emitter& find_emitter(std::string_view name) {
  std::string known;
  for (const Emitter& e : emitters()) {
    if (e.name == name) return e;
    known += (known.empty() ? "" : ", ") + std::string(e.name);
  }
  throw InvalidInput("emit", std::string(name), "known: " + known);
}

}  // namespace topomoe
