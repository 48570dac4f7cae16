// What a launcher or a framework needs to run a plan: one table, one pure function a target, Plan -> text.
//
// A target rarely speaks all that a plan says. Where the layout itself cannot be run there is no text but a
// refusal, one line a reason; what is merely left to the target stands in `not_expressed` together with how it
// was priced, and in the text as comments where the format has them. Nothing is dropped silently.
// Ignored: what no plan knows (data, tokenizer, learning rate, norms, containers, paths).
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "topomoe/error.hpp"
#include "topomoe/plan.hpp"
#include "topomoe/topology.hpp"

namespace topomoe {

struct EmitOptions {
  // Real names of the plan's hosts, in its order; empty: they keep the plan's own ("host0"), or stay open.
  std::vector<std::string> hosts;
  // CPU sockets of a host, for targets that bind: local ranks are spread over them in order, as GPUs are.
  int sockets = 1;
  // Instead: the socket of each GPU of a host, in order, as a topology says (socket_of_gpus); a plan does not carry it.
  std::vector<int> socket_of_gpu;
};

struct Emitted {
  std::string text;  // ends in a newline
  std::vector<std::string> not_expressed;
};

struct Refused {
  std::vector<Infeasible> why;  // at least one
};

struct Emitter {
  std::string_view name, writes;
  Expected<Emitted, Refused> (*emit)(const Plan&, const EmitOptions&);
};

std::span<const Emitter> emitters();

// NUMA nodes of the GPUs of the first host, which Open MPI numbers as sockets where each has one. Throws InvalidInput
// where the topology does not know.
std::vector<int> socket_of_gpus(const Topology&);
// Throws InvalidInput that lists the known names.
const Emitter& find_emitter(std::string_view name);

// Elements of the largest reduction of gradients beside the backward, which is what stacks that reduce in buckets of a
// fixed size come nearest with; 0 where the plan hides none.
long long gradient_bucket(const Plan&);

// Why Megatron-LM cannot run a layout; empty where it can. A search for it asks the same question.
std::vector<Infeasible> megatron_refuses(const Model&, const Job&, const Layout&);

Expected<Emitted, Refused> emit_megatron(const Plan&, const EmitOptions&);
Expected<Emitted, Refused> emit_deepspeed(const Plan&, const EmitOptions&);
Expected<Emitted, Refused> emit_nccl_env(const Plan&, const EmitOptions&);
Expected<Emitted, Refused> emit_rankfile(const Plan&, const EmitOptions&);
Expected<Emitted, Refused> emit_torchrun(const Plan&, const EmitOptions&);
Expected<Emitted, Refused> emit_slurm(const Plan&, const EmitOptions&);

}  // namespace topomoe
