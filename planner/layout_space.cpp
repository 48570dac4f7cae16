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

int value_of_dimension(const Layout& l, std::string_view key) {
  const int values[] = {l.tp, l.cp, l.dp, l.pp, l.etp, l.ep, l.edp};
  return values[std::find(kDimensions.begin(), kDimensions.end(), key) - kDimensions.begin()];
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
    const int cp = choices("cp", {1})[0];
    for (const int tp : choices("tp", divisors(world)))
      for (const int pp : choices("pp", divisors(world))) {
        rule = 0;
        if (!attention_fits(tp, cp, pp)) continue;
        const int rules_of_attention = rule;
        for (const int etp : choices("etp", tp == 1 ? std::vector<int>{1} : std::vector<int>{1, tp}))
          for (const int ep : choices("ep", divisors(model.experts))) {
            rule = rules_of_attention;
            add_expert_side(tp, cp, pp, etp, ep);
          }
      }
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
    const int cut = job.phase == Phase::decode ? job.micro_batch : job.sequence / cp;
    return require(tp <= gpus_per_node && (world <= gpus_per_node || gpus_per_node % tp == 0),
                   [&] { return fmt::format("tp = {} does not lie within a node of {} GPUs", tp, gpus_per_node); }) &&
           require(model.heads % tp == 0 && (model.kv_heads % tp == 0 || tp % model.kv_heads == 0),
                   [&] {
                     return fmt::format("tp = {} does not divide {} heads and {} KV heads", tp, model.heads,
                                        model.kv_heads);
                   }) &&
           require(model.dense_ffn % tp == 0 && model.shared_ffn % tp == 0,
                   [&] {
                     return fmt::format("tp = {} does not divide FFN widths {} and {}", tp, model.dense_ffn,
                                        model.shared_ffn);
                   }) &&
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
           within_constraints(l, {"tp", "cp", "pp", "dp"}) &&
           require(ignore_batch || job.global_batch % (1LL * l.dp * job.micro_batch) == 0, [&] {
             return fmt::format(
                 "global_batch = {} is not a multiple of dp * micro_batch = {} * {} (tp = {}, cp = {}, pp = {})",
                 job.global_batch, l.dp, job.micro_batch, tp, cp, pp);
           });
  }

  void add_expert_side(int tp, int cp, int pp, int etp, int ep) {
    if (!require(
            etp == 1 || etp == tp || ep == 1,
            [&] { return fmt::format("etp = {} is neither 1 nor tp = {} (and ep = {} is not 1)", etp, tp, ep); }) ||
        !require(model.expert_ffn % etp == 0,
                 [&] { return fmt::format("etp = {} does not divide the expert width {}", etp, model.expert_ffn); }) ||
        !require(model.experts % ep == 0,
                 [&] { return fmt::format("ep = {} does not divide the {} experts", ep, model.experts); }))
      return;
    const double ranks = 1.0 * etp * ep * pp;
    if (!require(ranks <= world && world % static_cast<int>(ranks) == 0,
                 [&] { return fmt::format("etp*ep*pp = {}*{}*{} does not divide the {} GPUs", etp, ep, pp, world); }))
      return;
    Layout l = make_layout(world, tp, cp, pp, etp, ep);
    l.sequence_parallel = sequence_parallel(job, tp);
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
    const long long unit = 1LL * l.dp * failed.job.micro_batch;
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
    if (std::find(kDimensions.begin(), kDimensions.end(), key) == kDimensions.end()) {
      throw InvalidInput(flag, std::string(text),
                         fmt::format("unknown key \"{}\"; known: {}", key, fmt::join(kDimensions, ", ")));
    }
    int value = 0;
    const auto [rest, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    if (error != std::errc() || rest != number.data() + number.size() || value < 1)
      throw InvalidInput(flag, std::string(text), key + " must be a positive integer");
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
  // Megatron builds expert groups with EP inside EDP. DeepSpeed's MoE has both orders
  // (use_data_before_expert_parallelism); that it has neither PP nor CP beside MoE is assumed.
  const std::array<TargetLimits, 3> table = {
      {{"any", true, true, true}, {"megatron", false, true, true}, {"deepspeed", true, false, false}}};
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
  check(job);
  for (const auto* given : {&constraints.fix, &constraints.max})
    for (const auto& [key, value] : *given)
      if (value < 1 || std::find(kDimensions.begin(), kDimensions.end(), key) == kDimensions.end())
        throw InvalidInput("constraint", fmt::format("{}={}", key, value),
                           fmt::format("must be a positive value of one of {}", fmt::join(kDimensions, ", ")));
  Search search{world, gpus_per_node, model, job, constraints, false, {}, -1, "", 0};
  search.run();
  if (!search.found.empty()) return std::move(search.found);
  return Infeasible{search.binding, nearest_fix(search)};
}

}  // namespace topomoe
