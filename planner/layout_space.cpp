#include "planner/layout_space.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>

namespace topomoe {

namespace {

constexpr std::array<std::string_view, 7> kDimensions = {"tp", "cp", "dp", "pp", "etp", "ep", "edp"};
constexpr std::array<std::string_view, 10> kKeys = {"tp", "cp", "dp", "pp", "etp", "ep", "edp", "vpp", "mbs", "zero"};
constexpr int kLeastTokensOfCp =
    1024;  // of one sequence on a rank: below, attention has nothing to hide its ring behind

int value_of_dimension(const Layout& l, std::string_view key) {
  const int values[] = {l.tp, l.cp, l.dp, l.pp, l.etp, l.ep, l.edp};
  return values[std::find(kDimensions.begin(), kDimensions.end(), key) - kDimensions.begin()];
}
bool is_dimension(std::string_view key) {
  return std::find(kDimensions.begin(), kDimensions.end(), key) != kDimensions.end();
}

int fixed_or(const LayoutConstraints& c, const char* key, int otherwise) {
  const auto found = c.fix.find(key);
  return found != c.fix.end() ? found->second : otherwise;
}
int at_most(const LayoutConstraints& c, const char* key, int otherwise) {
  const auto found = c.max.find(key);
  return found != c.max.end() ? std::min(found->second, otherwise) : otherwise;
}
// What a constraint on a key may be.
bool in_range(std::string_view key, int value) { return key == "zero" ? value >= 0 && value <= kMostZero : value >= 1; }
// The lowest stage of ZeRO that the request allows, of those that are ever worth it.
int first_zero(const LayoutConstraints& c) { return fixed_or(c, "zero", at_most(c, "zero", 1)); }
// The least micro-batch that the request allows.
int least_micro_batch(const Job& job, const LayoutConstraints& c) {
  return fixed_or(c, "mbs", std::max(1, job.micro_batch));
}
// Interleaved 1F1B: the same number of layers in every virtual stage, and micro-batches in groups of pp.
bool interleaves(const Model& m, const Job& job, const Layout& l, int vpp, int micro_batch) {
  if (vpp == 1) return true;
  const long long batches = job.global_batch / (1LL * l.dp * micro_batch);
  return l.pp > 1 && job.phase == Phase::train && m.layers % (1LL * l.pp * vpp) == 0 && batches % l.pp == 0;
}

std::vector<int> divisors(int n) {
  std::vector<int> low, high;
  for (int d = 1; d <= n / d; ++d) {
    if (n % d != 0) continue;
    low.push_back(d);
    if (d != n / d) high.push_back(n / d);
  }
  low.insert(low.end(), high.rbegin(), high.rend());
  return low;
}

bool sequence_parallel(const Job& job, int tp) {
  if (tp == 1 || job.sequence_parallel == SequenceParallel::off) return false;
  return job.sequence_parallel == SequenceParallel::on || job.phase == Phase::train;
}

// One pass over all candidates. Rules are asked in a fixed order; the rule that the candidate which came
// furthest failed on is the binding constraint.
struct Search {
  int world, gpus_per_node;
  const Model& model;
  const Job& job;
  const LayoutConstraints& constraints;
  bool ignore_batch = false;

  std::vector<Layout> found;
  int furthest = -1;
  std::string binding;

  int rule = 0;  // of the current candidate
  template <class Message>
  bool require(bool holds, Message message) {
    if (!holds && rule > furthest) furthest = rule, binding = message();
    ++rule;
    return holds;
  }

  std::vector<int> choices(std::string_view key, std::vector<int> free) const {
    const auto fixed = constraints.fix.find(std::string(key));
    return fixed != constraints.fix.end() ? std::vector<int>{fixed->second} : std::move(free);
  }
  bool within_constraints(const Layout& l, std::initializer_list<std::string_view> keys) {
    for (const std::string_view key : keys) {
      const std::string name(key);
      const int value = value_of_dimension(l, key);
      const auto fix = constraints.fix.find(name), max = constraints.max.find(name);
      if (!require(fix == constraints.fix.end() || fix->second == value,
                   [&] { return fmt::format("{} is fixed to {}, but comes out as {}", key, fix->second, value); }) ||
          !require(max == constraints.max.end() || value <= max->second,
                   [&] { return fmt::format("{} is at most {}, but needs {}", key, max->second, value); }))
        return false;
    }
    return true;
  }

  void run() {
    for (const int tp : choices("tp", divisors(world)))
      for (const int cp : choices("cp", context_cuts()))
        for (const int pp : choices("pp", divisors(world))) {
          rule = 0;
          if (!attention_fits(tp, cp, pp)) continue;
          const int rules_of_attention = rule;
          for (const int etp : choices("etp", expert_cuts(tp)))
            for (const int ep : choices("ep", etp == 1 || etp == tp ? divisors(model.experts) : std::vector<int>{1})) {
              rule = rules_of_attention;
              add_expert_side(tp, cp, pp, etp, ep);
            }
        }
  }

  std::vector<int> context_cuts() const {
    std::vector<int> out{1};
    if (job.phase == Phase::decode || model.encoder_only || !constraints.target.context_parallel) return out;
    for (const int cp : divisors(world))
      if (cp > 1 && job.sequence % (2 * cp) == 0 && job.sequence / cp >= kLeastTokensOfCp) out.push_back(cp);
    return out;
  }
  std::vector<int> expert_cuts(int tp) const {
    std::vector<int> out{1};
    if (tp > 1 && constraints.target.expert_tensor) out.push_back(tp);
    if (constraints.target.sharded_experts)  // MoEShard: over a node or an even part of it
      for (const int etp : divisors(std::min(world, gpus_per_node)))
        if (etp > 1 && etp != tp) out.push_back(etp);
    std::sort(out.begin(), out.end());
    return out;
  }

  // That `parts` divides a figure of every kind of MoE layers; the first that it does not is named.
  bool each_kind(int MoeKind::*figure, int parts, std::string_view words) {
    int kind = 0;
    while (kind < moe_kind_count(model) && moe_kind(model, kind).*figure % parts == 0) ++kind;
    return require(kind == moe_kind_count(model), [&] {
      const int value = moe_kind(model, kind).*figure;
      return fmt::format(fmt::runtime(words), parts, value) +
             (kind == 0 && model.moe_kinds.empty() ? "" : " of " + kind_name(model, kind));
    });
  }

  bool attention_fits(int tp, int cp, int pp) {
    const double ranks = 1.0 * tp * cp * pp;
    if (!require(ranks <= world && world % static_cast<int>(ranks) == 0,
                 [&] { return fmt::format("tp*cp*pp = {}*{}*{} does not divide the {} GPUs", tp, cp, pp, world); }))
      return false;
    const Layout l = make_layout(world, tp, cp, pp, 1, 1);
    const TargetLimits& target = constraints.target;
    const int slowest = (model.layers + pp - 1) / pp;
    const bool sp = sequence_parallel(job, tp);
    const int mbs = least_micro_batch(job, constraints), vpp = fixed_or(constraints, "vpp", 1);
    const int cut = job.phase == Phase::decode ? mbs : job.sequence / cp;
    return require(tp <= gpus_per_node && (world <= gpus_per_node || gpus_per_node % tp == 0),
                   [&] { return fmt::format("tp = {} does not lie within a node of {} GPUs", tp, gpus_per_node); }) &&
           require(model.heads % tp == 0 &&
                       (model.kv_heads % tp == 0 || (!target.kv_heads_divide && tp % model.kv_heads == 0)),
                   [&] {
                     return fmt::format("tp = {} does not divide {} heads and {} KV heads", tp, model.heads,
                                        model.kv_heads);
                   }) &&
           require(model.dense_ffn % tp == 0,
                   [&] { return fmt::format("tp = {} does not divide the FFN width {}", tp, model.dense_ffn); }) &&
           each_kind(&MoeKind::shared_ffn, tp, "tp = {} does not divide the shared experts' width {}") &&
           require(pp <= model.layers && 10LL * slowest * pp <= 11LL * model.layers,
                   [&] {
                     return fmt::format("pp = {} cuts {} layers unevenly: a stage would hold {}", pp, model.layers,
                                        slowest);
                   }) &&
           require((pp == 1 || target.pipeline) && (cp == 1 || target.context_parallel),
                   [&] { return fmt::format("target {} cannot express pp = {}, cp = {}", target.name, pp, cp); }) &&
           require(job.sequence % cp == 0 && (!sp || cut % tp == 0),
                   [&] {
                     return fmt::format("{} tokens are not a multiple of cp = {}{}",
                                        job.phase == Phase::decode ? cut : job.sequence, cp,
                                        sp ? fmt::format(" and tp = {} (sequence parallel)", tp) : "");
                   }) &&
           require(sp || tp == 1 || !target.needs_sequence_parallel || job.phase != Phase::train,
                   [&] {
                     return fmt::format("target {} trains MoE layers with tp = {} only with sequence parallelism",
                                        target.name, tp);
                   }) &&
           require(pp == 1 || first_zero(constraints) < 2,
                   [&] {
                     return fmt::format("zero = {} needs whole micro-batches: pp = 1, not {}", first_zero(constraints),
                                        pp);
                   }) &&
           require(first_zero(constraints) <= target.most_zero,
                   [&] {
                     return fmt::format("target {} has no zero = {}, at most {}", target.name, first_zero(constraints),
                                        target.most_zero);
                   }) &&
           within_constraints(l, {"tp", "cp", "pp", "dp"}) &&
           require(
               ignore_batch || job.global_batch % (1LL * l.dp * mbs) == 0,
               [&] {
                 return fmt::format(
                     "global_batch = {} is not a multiple of dp * micro_batch = {} * {} (tp = {}, cp = {}, pp = {})",
                     job.global_batch, l.dp, mbs, tp, cp, pp);
               }) &&
           require(vpp == 1 || (target.virtual_stages && interleaves(model, job, l, vpp, mbs)), [&] {
             return fmt::format("vpp = {} does not interleave {} layers over pp = {} with {} micro-batches{}", vpp,
                                model.layers, pp, job.global_batch / (1LL * l.dp * mbs),
                                target.virtual_stages ? "" : " on target " + target.name);
           });
  }

  void add_expert_side(int tp, int cp, int pp, int etp, int ep) {
    if (!require(
            etp == 1 || etp == tp || ep == 1,
            [&] { return fmt::format("etp = {} is neither 1 nor tp = {} (and ep = {} is not 1)", etp, tp, ep); }) ||
        !each_kind(&MoeKind::expert_ffn, etp, "etp = {} does not divide the expert width {}") ||
        !each_kind(&MoeKind::experts, ep, "ep = {} does not divide the {} experts"))
      return;
    const double ranks = 1.0 * etp * ep * pp;
    if (!require(ranks <= world && world % static_cast<int>(ranks) == 0,
                 [&] { return fmt::format("etp*ep*pp = {}*{}*{} does not divide the {} GPUs", etp, ep, pp, world); }))
      return;
    Layout l = make_layout(world, tp, cp, pp, etp, ep);
    l.sequence_parallel = sequence_parallel(job, tp);
    if (job.phase == Phase::train) l.zero = first_zero(constraints);
    if (!within_constraints(l, {"etp", "ep", "edp"})) return;
    found.push_back(l);
    if (l.ep == 1 || l.edp == 1 || !constraints.target.edp_inner) return;
    l.expert_order = ExpertOrder::edp_inner;
    found.push_back(l);
  }
};

// The single change nearest to what was asked for after which something fits; tried, not guessed.
std::string nearest_fix(const Search& failed) {
  const auto retry = [&](int world, const LayoutConstraints& constraints, bool ignore_batch = false) {
    Search search{world, failed.gpus_per_node, failed.model, failed.job, constraints, ignore_batch, {}, -1, "", 0};
    search.run();
    return search.found;
  };
  for (const bool fix : {true, false})
    for (const auto& [key, asked] : fix ? failed.constraints.fix : failed.constraints.max) {
      if (!is_dimension(key)) continue;
      LayoutConstraints relaxed = failed.constraints;
      (fix ? relaxed.fix : relaxed.max).erase(key);
      std::optional<int> nearest;
      for (const Layout& l : retry(failed.world, relaxed)) {
        const int value = value_of_dimension(l, key);
        if (!nearest || std::abs(value - asked) < std::abs(*nearest - asked)) nearest = value;
      }
      if (nearest) return fmt::format("{}={} would fit instead of {}", key, *nearest, asked);
    }
  const long long wanted = failed.job.global_batch;
  long long batch = 0;
  for (const Layout& l : retry(failed.world, failed.constraints, true)) {
    const long long unit = 1LL * l.dp * least_micro_batch(failed.job, failed.constraints);
    const long long nearest = std::max(1LL, (wanted + unit / 2) / unit) * unit;
    if (batch == 0 || std::llabs(nearest - wanted) < std::llabs(batch - wanted)) batch = nearest;
  }
  if (batch > 0) return fmt::format("global_batch={} would fit", batch);
  if (failed.constraints.target.name != "any") {
    LayoutConstraints relaxed = failed.constraints;
    relaxed.target = {};
    if (!retry(failed.world, relaxed).empty())
      return fmt::format("it would fit without target {}", failed.constraints.target.name);
  }
  // Other sizes of the cluster, up to twice as large; whole nodes where it has several.
  const int step = failed.world > failed.gpus_per_node ? failed.gpus_per_node : 1;
  std::vector<int> worlds;
  for (int world = step; world <= 2LL * failed.world && world <= 2048 * step; world += step) worlds.push_back(world);
  std::stable_sort(worlds.begin(), worlds.end(),
                   [&](int a, int b) { return std::abs(a - failed.world) < std::abs(b - failed.world); });
  for (const int world : worlds)
    if (world != failed.world && !retry(world, failed.constraints).empty())
      return fmt::format("{} GPUs would fit", world);
  // Several constraints in each other's way: the layout closest to all of them, by ratio.
  LayoutConstraints relaxed;
  relaxed.target = failed.constraints.target;
  std::string together;
  double least = std::numeric_limits<double>::infinity();
  for (const Layout& l : retry(failed.world, relaxed)) {
    std::string change;
    double distance = 0;
    const auto compare = [&](const std::string& key, int asked, bool fixed) {
      if (!is_dimension(key)) return;
      const int value = value_of_dimension(l, key);
      if (value == asked || (!fixed && value < asked)) return;
      distance += std::abs(std::log(1.0 * value / asked));
      change += (change.empty() ? "" : " with ") + fmt::format("{}={}", key, value);
    };
    for (const auto& [key, asked] : failed.constraints.fix) compare(key, asked, true);
    for (const auto& [key, asked] : failed.constraints.max) compare(key, asked, false);
    if (distance < least) least = distance, together = change;
  }
  return together.empty() ? "no single change helps" : "no single change helps; " + together + " would fit";
}

void parse_into(std::map<std::string, int>& out, const std::vector<std::string>& texts, const std::string& flag) {
  const auto one = [&](std::string_view text) {
    const auto equals = text.find('=');
    if (equals == std::string_view::npos)
      throw InvalidInput(flag, text.empty() ? "empty" : std::string(text), "must read like tp=8");
    const std::string key(text.substr(0, equals));
    const std::string_view number = text.substr(equals + 1);
    if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end()) {
      throw InvalidInput(flag, std::string(text),
                         fmt::format("unknown key \"{}\"; known: {}", key, fmt::join(kKeys, ", ")));
    }
    int value = 0;
    const auto [rest, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    if (error != std::errc() || rest != number.data() + number.size() || !in_range(key, value))
      throw InvalidInput(flag, std::string(text),
                         key + (key == "zero" ? " must be 0, 1, 2 or 3" : " must be a positive integer"));
    if (const auto [it, fresh] = out.emplace(key, value); !fresh && it->second != value)
      throw InvalidInput(flag, std::string(text), fmt::format("{} was already given as {}", key, it->second));
  };
  for (std::string_view text : texts)
    for (bool more = true; more;) {
      const auto comma = text.find(',');
      one(text.substr(0, comma));
      more = comma != std::string_view::npos;
      if (more) text.remove_prefix(comma + 1);
    }
}

}  // namespace

TargetLimits target_limits(std::string_view name) {
  constexpr int kAnyEp = std::numeric_limits<int>::max();
  // Megatron builds expert groups with EP inside EDP. DeepSpeed's MoE has both orders
  // (use_data_before_expert_parallelism); that it has neither PP nor CP beside MoE is assumed.
  const std::array<TargetLimits, 3> table = {
      {{},
       {.name = "megatron",
        .edp_inner = false,
        .kv_heads_divide = true,
        .needs_sequence_parallel = true,
        .sharded_experts = false,
        .chunked = false,
        .most_zero = 1,
        .transports = {{"flat", kAnyEp}, {"node_dedup", kMostDeepEpRanks}, {"gather", kAnyEp}}},
       {.name = "deepspeed",
        .pipeline = false,
        .context_parallel = false,
        .virtual_stages = false,
        .sharded_experts = false,
        .expert_tensor = false,
        .chunked = false,
        .transports = {{"flat", kAnyEp}}}}};
  std::string known;
  for (const TargetLimits& target : table) {
    if (target.name == name) return target;
    known += (known.empty() ? "" : ", ") + target.name;
  }
  throw InvalidInput("target", std::string(name), "must be one of " + known);
}

LayoutConstraints parse_constraints(const std::vector<std::string>& fix, const std::vector<std::string>& max) {
  LayoutConstraints constraints;
  parse_into(constraints.fix, fix, "--fix");
  parse_into(constraints.max, max, "--max");
  return constraints;
}

Expected<std::vector<Layout>, Infeasible> enumerate_layouts(int world, int gpus_per_node, const Model& model,
                                                            const Job& job, const LayoutConstraints& constraints) {
  if (world < 1) throw InvalidInput("world", std::to_string(world), "must be a positive number of GPUs");
  if (gpus_per_node < 1) throw InvalidInput("gpus_per_node", std::to_string(gpus_per_node), "must be positive");
  check(model);
  check_request(job);
  for (const auto* given : {&constraints.fix, &constraints.max})
    for (const auto& [key, value] : *given)
      if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end() || !in_range(key, value))
        throw InvalidInput("constraint", fmt::format("{}={}", key, value),
                           fmt::format("must be a positive value of one of {}", fmt::join(kKeys, ", ")));
  if (const auto zero = constraints.fix.find("zero"); zero != constraints.fix.end() && job.phase != Phase::train)
    throw InvalidInput("constraint", fmt::format("zero={}", zero->second), "inference has nothing that ZeRO shards");
  if (const auto mbs = constraints.fix.find("mbs");
      mbs != constraints.fix.end() && job.micro_batch > 0 && mbs->second != job.micro_batch)
    throw InvalidInput("constraint", fmt::format("mbs={}", mbs->second),
                       fmt::format("the job's micro-batch is {}: give one of them", job.micro_batch));
  Search search{world, gpus_per_node, model, job, constraints, false, {}, -1, "", 0};
  search.run();
  if (!search.found.empty()) return std::move(search.found);
  return Infeasible{search.binding, nearest_fix(search)};
}

std::vector<Variant> variants(const Layout& l, const Model& m, const Job& job, const LayoutConstraints& c) {
  const bool train = job.phase == Phase::train;
  std::vector<int> batches;
  const long long share = job.global_batch / l.dp;  // of a data-parallel rank
  const int least = least_micro_batch(job, c);
  const bool open = job.micro_batch == 0 && c.fix.count("mbs") == 0;
  for (long long b = least; b <= (open ? std::min<long long>(share, at_most(c, "mbs", 1 << 20)) : least); b *= 2)
    if (share % b == 0) batches.push_back(static_cast<int>(b));
  std::vector<Recompute> recomputes{job.recompute};
  if (job.recompute == Recompute::automatic) {
    recomputes = {Recompute::none};
    if (train) recomputes.insert(recomputes.end(), {Recompute::selective, Recompute::full});
  }
  std::vector<int> stages{fixed_or(c, "vpp", 1)};
  if (c.fix.count("vpp") == 0 && l.pp > 1 && train && c.target.virtual_stages && m.layers % l.pp == 0)
    for (const int v : divisors(m.layers / l.pp))
      if (v > 1 && v <= at_most(c, "vpp", m.layers)) stages.push_back(v);
  // Without a group of more than one rank there is nothing to shard.
  std::vector<int> zeros{l.zero};
  if (train && c.fix.count("zero") == 0 && l.pp == 1 && (l.dp * l.cp > 1 || l.edp > 1))
    for (int z = l.zero + 1;
         z <= std::min(c.max.count("zero") > 0 ? c.max.at("zero") : c.unasked_zero, c.target.most_zero); ++z)
      zeros.push_back(z);
  std::vector<Variant> out;
  for (const int b : batches)
    for (const int v : stages)
      if (interleaves(m, job, l, v, b))
        for (const Recompute r : recomputes)
          for (const int z : zeros) out.push_back({v, b, r, z});
  return out;
}

}  // namespace topomoe
