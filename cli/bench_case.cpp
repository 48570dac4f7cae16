#include "cli/bench_case.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "cli/numbers.hpp"
#include "cli/run_size.hpp"
#include "topology/read/read_file.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

// A row of a usual model; smaller where messages would be of so few tokens that their number is chance.
constexpr double kTokenBytes = 4096;
constexpr double kTokensWanted = 1024;

int etp_of(const BenchOptions& o) { return o.etp > 0 ? o.etp : o.tp; }

// `least`: that is of use.
std::int64_t hidden_for(const BenchOptions& o, double bytes, double element, double least) {
  double token = std::max(kTokenBytes, static_cast<double>(std::bit_ceil(static_cast<std::uint64_t>(least))));
  if (o.token_bytes.empty())
    while (token / 2 >= least && bytes / (token * o.top_k) < kTokensWanted) token /= 2;
  else
    token = bytes_from(o.token_bytes, "--token-bytes");
  if (token < element || token > 1e8 ||
      token != element * static_cast<double>(static_cast<std::int64_t>(token / element)))
    throw InvalidInput("--token-bytes", o.token_bytes, fmt::format("a multiple of {}, one {} each", element, o.dtype));
  return static_cast<std::int64_t>(token / element);
}

void set_common(const BenchOptions& o, BenchCase& b) {
  b.seed = o.seed, b.warmup = o.warmup, b.repeat = o.repeat;
  b.nic_payload_GBps = o.rate_GBps, b.rank_TFLOPps = o.rate_TFLOPps;
}

}  // namespace

int ranks_of(const BenchOptions& o) { return o.ranks > 0 ? o.ranks : std::max(etp_of(o) * std::max(1, o.ep), o.tp); }

BenchCase case_of(const BenchOptions& o, int world, int per_host) {
  BenchCase b;
  const int etp = etp_of(o), ep = o.ep > 0 ? o.ep : std::max(1, world / etp);
  b.layout = make_layout(world, o.tp, 1, 1, etp, ep, o.edp_inner ? ExpertOrder::edp_inner : ExpertOrder::ep_inner);
  b.ranks_per_host = per_host;
  // ffn is no part of an exchange, and only must be divisible.
  b.shape = {.ffn = etp, .experts = o.experts > 0 ? o.experts : std::max(8, ep), .top_k = o.top_k};
  b.shape.dtype = o.dtype == "bf16" ? DType::bf16 : DType::f32;
  b.dispatch_dtype = dispatch_dtype_from(o.dispatch_dtype, "--dispatch-dtype");
  check(b.layout, b.shape.experts);
  if (o.top_k > b.shape.experts)
    throw InvalidInput("--top-k", std::to_string(o.top_k),
                       "at most the " + std::to_string(b.shape.experts) + " experts");
  const double bytes = bytes_from(o.bytes, "--bytes"), element = static_cast<double>(size_of(b.shape.dtype));
  b.shape.hidden = hidden_for(o, bytes, element, o.layer ? element * b.shape.experts : element);
  const double tokens = bytes / (element * static_cast<double>(b.shape.hidden) * o.top_k);
  if (tokens < o.tp || tokens > 1e8)
    throw InvalidInput("--bytes", o.bytes,
                       fmt::format("{} tokens of {} bytes for {} experts each: at least one for each TP rank, at most "
                                   "1e8; see --token-bytes",
                                   tokens, element * static_cast<double>(b.shape.hidden), o.top_k));
  b.tokens = static_cast<std::int64_t>(tokens);
  if (o.skew > 0) b.routing = zipf_routing(o.skew);
  // As wide as a token: between fine-grained experts (DeepSeek-V3: 0.29 of it) and Mixtral's (3.5).
  if (o.layer) b.shape.ffn = o.ffn > 0 ? o.ffn : (b.shape.hidden + etp - 1) / etp * etp;
  if (o.layer && b.shape.ffn % etp != 0)
    throw InvalidInput("--ffn", std::to_string(o.ffn), fmt::format("a multiple of ETP = {}", etp));
  b.backward = !o.forward_only;
  set_common(o, b);
  return b;
}

Plan plan_of(const BenchOptions& o) { return plan_of_kind(read_plan(read_text_file(o.plan), o.plan), o.kind); }

BenchCase case_of(const BenchOptions& o, const Plan& plan, Budget budget) {
  SizeRequest request = size_request_from(o.shrink, "--shrink");
  RehearsalSize size = choose_size(plan, request, budget);
  if (size.shape.hidden < size.shape.experts && request.hidden == 0 && !request.as_planned) {
    request.hidden =
        std::min<std::int64_t>(plan.model.hidden, std::bit_ceil(static_cast<unsigned>(size.shape.experts)));
    size = choose_size(plan, request, budget);
  }
  BenchCase b{.layout = plan.layout,
              .ranks_per_host = plan.topology.gpus_per_node,
              .shape = size.shape,
              .dispatch_dtype = plan.job.dispatch_dtype,
              .tokens = size.tokens,
              .routing = plan.routing,
              .backward = plan.job.phase == Phase::train && !o.forward_only};
  set_common(o, b);
  return b;
}

}  // namespace topomoe::cli
