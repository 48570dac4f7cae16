// Memory of one GPU by bucket, on the pipeline stage that needs most: the worst stage counts, not the mean.
//
// Weights fall into three kinds: cut over TP (attention, shared experts, embeddings), replicated over TP
// (router, MLA down-projections), routed (experts, over ETP*EP). Training in bf16 keeps 2 B weights, 4 B
// gradients and 12 B of optimizer state a parameter. Activations assume flash attention (no s x s scores).
// ZeRO (Layout::zero) shards over DP*CP what all of them hold and over EDP the experts: from 1 the optimizer, from 2
// gradients (and holds one layer's in full until it is reduced), from 3 weights (and holds two layers', the one that
// computes and the next). Ignored: fragmentation, the framework's own memory, CUDA graphs, offloading.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "topomoe/job.hpp"
#include "topomoe/layout.hpp"
#include "topomoe/model.hpp"
#include "topomoe/units.hpp"

namespace topomoe {

struct MemoryOptions {
  double skew = 1;              // routed tokens of the busiest rank over the mean, in the kind where it is largest
  double token_copies = 1;      // tp where each TP rank dispatches all tokens (`replicated`, ETP 1), 1 where sliced
  double dispatch_scale = 1;    // of the rule for dispatch buffers, where one schedule's were worked out
  Bytes comm_buffers = GiB(1);  // NCCL's and the like. Assumed: not measured here
};

// Pipeline stages that hold the same layers count as one: `stage` is the first of them, which has most
// micro-batches in flight.
struct StageClass {
  int stage = 0, count = 1;
  int moe = 0, dense = 0;  // layers, without MTP
  bool first = false, last = false;
  KindLayers later{};  // of `moe`, layers of each kind after the first
};
std::vector<StageClass> stage_classes(const Model&, const Layout&);
// MoE layers of a kind in a stage, of which it has `mtp` MTP layers.
int moe_layers(const Model&, const StageClass&, int kind, int mtp);

// Parameters that one GPU of a stage holds.
struct RankParameters {
  double tensor_sharded = 0;  // its share of what TP cuts, embedding and logits apart
  double replicated = 0;      // the same on all TP ranks
  double routed = 0;          // its share of the experts, over ETP*EP
  double embedding = 0;       // its share of token table and output matrix
  double dense() const { return tensor_sharded + replicated + embedding; }
};
RankParameters rank_parameters(const Model&, const Layout&, const StageClass&);
RankParameters rank_parameters(const Model&, const Layout&, int stage);

// Elements of one token's cache in one layer on one rank: K and V of its heads; under MLA the latent and the
// rotary key, on every TP rank.
double kv_elements_per_token(const Model& m, int tp);

struct MemoryBreakdown {
  int stage = 0;
  Bytes weights, gradients, optimizer, kv_cache, activations, logits, dispatch_buffers, comm_buffers;
  Bytes total() const;
  // ("weights", bytes) and so on in this order, for tables and plan.json.
  std::vector<std::pair<std::string, Bytes>> buckets() const;
};
MemoryBreakdown estimate_stage_memory(const Model&, const Job&, const Layout&, int stage, const MemoryOptions& = {});
// The stage with the largest total (the first of equals).
MemoryBreakdown estimate_memory(const Model&, const Job&, const Layout&, const MemoryOptions& = {});
// The same where the layout's stage classes are at hand.
MemoryBreakdown estimate_memory(const Model&, const Job&, const Layout&, std::span<const StageClass>,
                                const MemoryOptions&);

}  // namespace topomoe
