// What of a transformer layer is not the movement of tokens and the routed experts: attention, dense and shared
// FFNs, logits, with the collectives around them; one micro-batch, one rank, forward and backward apart.
//
//   matrices   one GEMM forward; backward one for the input's gradient and one for the weight's
//   scores     flash attention: 4 T s h_a flops forward (half of it where causal), 2.5 times as much backward, since
//              scores are computed again, at the rate of that length; in decode the KV cache is read once
//   stream     norms, rotary embedding, residuals: bytes over HBM
//   TP         all-gather before and reduce-scatter after each of attention and FFN (all-reduce without sequence
//              parallelism: as many bytes); as many in the backward; none is hidden behind GEMMs
//   CP         keys and values go round the ring hop by hop; what a part of attention does not hide is added, and parts
//              are short: each is a kernel at the rate of its own length, whose result is added to what is there
// Ignored: dropout, the re-gather of inputs for weight gradients (Megatron hides it behind the dgrad), TP overlap.
#pragma once

#include "planner/machine.hpp"
#include "topomoe/job.hpp"
#include "topomoe/layout.hpp"
#include "topomoe/model.hpp"

namespace topomoe {

// Seconds that links inside nodes and between them take.
struct LinkTimes {
  double node_s = 0, between_s = 0;
};

struct PassCost {
  double forward_s = 0, backward_s = 0;
  LinkTimes forward_links, backward_links;  // of these, in collectives
  double again_s = 0;                       // what selective recomputation does a second time
};

struct LayerCosts {
  PassCost attention, dense, shared;  // of a layer; shared: the shared experts of a MoE layer
  PassCost logits;                    // of the last stage (each MTP layer makes its own)
};

// `layout`: tp, cp and sequence_parallel matter, and where its groups lie.
LayerCosts layer_costs(const Model& model, const Job& job, const Layout& layout, const Machine& machine,
                       int gpus_per_node);

}  // namespace topomoe
