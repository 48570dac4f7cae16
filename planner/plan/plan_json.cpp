// plan.json, written (plan_json_read.cpp reads it): what a person asks first comes first, what grows
// comes last. Objects have a key a line; an element of an array (a step, a buffer, a rank) is one line,
// and so is an array of numbers, so that a diff shows what changed and the size stays small.
#include <fmt/format.h>

#include <cmath>

#include "planner/plan/json.hpp"
#include "planner/plan/plan_summary.hpp"
#include "topomoe/plan.hpp"

namespace topomoe {

std::string algorithms_name(const Plan& plan) {
  std::string all = plan.schedule.name;
  for (const PlannedKind& kind : plan.later_kinds) all += " / " + kind.schedule.name;
  return all;
}

// Derived from the rest of the plan, which the reader holds against it.
ordered_json summary_json(const Plan& plan) {
  double memory_GiB = 0;
  for (const auto& bucket : plan.memory_GiB) memory_GiB += bucket.second;
  const auto ratio = [](double a, double b) { return b > 0 ? a / b : 0; };
  const PredictedPass& slower = plan.backward.bound_us > plan.forward.bound_us ? plan.backward : plan.forward;
  return {{"layout", name(plan.layout)},
          {"algorithm", algorithms_name(plan)},
          {"time_ms", plan.time.total_ms()},
          {"tokens_per_s", ratio(tokens_per_step(plan.job), plan.time.total_ms() * 1e-3)},
          {"mfu", ratio(plan.model_TFLOPps_per_gpu, plan.peak_TFLOPps_per_gpu)},
          {"moe_layer_forward_us", plan.forward.time_us},
          {"moe_layer_backward_us", plan.backward.time_us},
          {"bottleneck", slower.bound_by},
          {"memory_GiB", memory_GiB}};
}

namespace {

template <class T, class F>
ordered_json list(const std::vector<T>& values, F json) {
  ordered_json array = ordered_json::array();
  for (const T& value : values) array.push_back(json(value));
  return array;
}

ordered_json json_of(const PlannedTopology& t) {
  return {{"name", t.name},        {"fingerprint", t.fingerprint},     {"hosts", t.hosts},
          {"gpus", t.gpus},        {"gpus_per_node", t.gpus_per_node}, {"note", t.note},
          {"warnings", t.warnings}};
}

ordered_json time_json(const Plan& p) {
  return {{"moe_ms", p.time.moe_ms},
          {"attention_ms", p.time.attention_ms},
          {"bubble_ms", p.time.bubble_ms},
          {"gradients_ms", p.time.gradients_ms},
          {"other_ms", p.time.other_ms},
          {"tokens_per_rank", p.tokens_per_rank},
          {"model_TFLOPps_per_gpu", p.model_TFLOPps_per_gpu},
          {"peak_TFLOPps_per_gpu", p.peak_TFLOPps_per_gpu},
          {"low_ms", p.low_ms},
          {"high_ms", p.high_ms},
          {"rates", list(p.rates, [](const RateSource& r) -> ordered_json {
             return {{"what", r.what}, {"source", r.source}, {"error", r.error}};
           })}};
}

// An operation is [group, begin_us, end_us, bytes], so that a run of layers stays one line.
ordered_json json_of(const PredictedGradients& g) {
  return {{"stage", g.stage},
          {"backward_us", g.backward_us},
          {"windows", g.windows},
          {"hidden_bytes", g.hidden_bytes},
          {"exposed_bytes", g.exposed_bytes},
          {"exposed_us", g.exposed_us},
          {"exposed", list(g.exposed,
                           [](const auto& e) -> ordered_json {
                             return {{"group", to_string(e.first)}, {"bytes", e.second}};
                           })},
          {"layers", list(g.layers, [](const GradientLayers& l) -> ordered_json {
             return {{"first", l.first},
                     {"layers", l.layers},
                     {"backward_us", l.backward_us},
                     {"operations", list(l.operations, [](const GradientOperation& op) {
                        return ordered_json::array({to_string(op.group), op.begin_us, op.end_us, op.bytes});
                      })}};
           })}};
}

ordered_json memory_json(const Plan& p) {
  ordered_json buckets = ordered_json::object();
  for (const auto& [bucket, GiB] : p.memory_GiB) {
    if (buckets.contains(bucket)) throw std::logic_error("topomoe bug: two memory buckets \"" + bucket + "\"");
    buckets[bucket] = GiB;
  }
  return {{"limit_GiB", p.memory_limit_GiB}, {"stage", p.memory_stage}, {"by_bucket_GiB", buckets}};
}

ordered_json json_of(const PredictedPass& pass) {
  return {{"time_us", pass.time_us},
          {"bound_us", pass.bound_us},
          {"bound_by", pass.bound_by},
          {"steps", list(pass.steps, [](const PredictedStep& s) -> ordered_json {
             return {{"name", s.name},         {"begin_us", s.begin_us}, {"end_us", s.end_us},
                     {"alone_us", s.alone_us}, {"bytes", s.bytes},       {"bottleneck", s.bottleneck}};
           })}};
}

ordered_json loads_json(const std::vector<LinkClassLoad>& loads) {
  return list(loads, [](const LinkClassLoad& l) -> ordered_json {
    return {{"link_class", l.link_class},
            {"link", l.link},
            {"GBps_per_direction", l.GBps_per_direction},
            {"bytes", l.bytes},
            {"busy_us", l.busy_us}};
  });
}

// An owner as a number, several (replicas) as an array of them.
ordered_json json_of(const ExpertOwners& owners) {
  return list(owners,
              [](const std::vector<int>& its) { return its.size() == 1 ? ordered_json(its[0]) : ordered_json(its); });
}

// By their place in the model's kinds: an object, since an element of an array is one line.
ordered_json later_kinds_json(const std::vector<PlannedKind>& kinds) {
  ordered_json j = ordered_json::object();
  for (std::size_t i = 0; i < kinds.size(); ++i)
    j[std::to_string(i + 1)] = {{"loads", loads_json(kinds[i].loads)},
                                {"predicted_forward", json_of(kinds[i].forward)},
                                {"predicted_backward", json_of(kinds[i].backward)},
                                {"schedule", to_json(kinds[i].schedule)},
                                {"expert_owners", json_of(kinds[i].expert_owners)}};
  return j;
}

ordered_json plan_json(const Plan& p) {
  ordered_json j;
  j["schema"] = "topomoe.plan/1";
  j["summary"] = summary_json(p);
  j["topology"] = json_of(p.topology);
  j["model"] = to_json(p.model);
  j["job"] = to_json(p.job);
  j["routing"] = to_json(p.routing);
  j["layout"] = to_json(p.layout);
  j["time"] = time_json(p);
  j["gradients"] = json_of(p.gradients);
  j["memory"] = memory_json(p);
  j["loads"] = loads_json(p.loads);
  j["predicted_forward"] = json_of(p.forward);
  j["predicted_backward"] = json_of(p.backward);
  j["rejected"] = list(p.rejected, [](const Rejected& r) -> ordered_json {
    return {{"layout", r.layout},         {"algorithm", r.algorithm}, {"time_ms", r.time_ms},
            {"memory_GiB", r.memory_GiB}, {"undecided", r.undecided}, {"reason", r.reason}};
  });
  j["pareto"] = list(p.pareto, [](const ParetoPoint& c) -> ordered_json {
    return {{"layout", c.layout}, {"algorithm", c.algorithm}, {"time_ms", c.time_ms}, {"memory_GiB", c.memory_GiB}};
  });
  j["sensitivity"] = list(p.sensitivity, [](const Sensitivity& c) -> ordered_json {
    return {{"rate", c.rate},       {"factor", c.factor}, {"time_ms", c.time_ms},
            {"changes", c.changes}, {"layout", c.layout}, {"algorithm", c.algorithm}};
  });
  j["flips"] = list(p.flips, [](const Flip& f) -> ordered_json {
    return {{"quantity", f.quantity}, {"at", f.at}, {"above", f.above}, {"instead", f.instead}};
  });
  j["search"] = {{"layouts_enumerated", p.layouts_enumerated},
                 {"layouts_too_large", p.layouts_too_large},
                 {"layouts_pruned", p.layouts_pruned},
                 {"schedules_priced", p.schedules_priced}};
  j["schedule"] = to_json(p.schedule);
  j["expert_owners"] = json_of(p.expert_owners);
  if (!p.later_kinds.empty()) j["later_kinds"] = later_kinds_json(p.later_kinds);
  j["ranks"] = list(p.ranks, [](const PlannedRank& r) {
    ordered_json rank = ordered_json::array({r.host});
    if (!r.bus_id.empty()) rank.push_back(r.bus_id);
    return rank;
  });
  return j;
}

class Printer {
 public:
  std::string print(const ordered_json& value) {
    block(value, "", 0);
    return std::move(text_) + '\n';
  }

 private:
  static std::string scalar(const ordered_json& value, const std::string& path) {
    if (value.is_number_float() && !std::isfinite(value.get<double>()))
      throw std::logic_error("topomoe bug: plan: " + path + " is not a finite number");
    // Doubles come out shortest and read back as they were; bytes that are not UTF-8 are replaced.
    return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  }

  // Calls each(key or "", element, its path).
  template <class F>
  static void elements(const ordered_json& value, const std::string& path, F each) {
    std::size_t i = 0;
    for (const auto& item : value.items()) {
      if (value.is_object()) {
        each(scalar(item.key(), path) + ": ", item.value(), path.empty() ? item.key() : path + "." + item.key());
      } else {
        each(std::string(), item.value(), path + "[" + std::to_string(i++) + "]");
      }
    }
  }

  void line(const ordered_json& value, const std::string& path) {
    if (!value.is_structured()) {
      text_ += scalar(value, path);
      return;
    }
    text_ += value.is_object() ? '{' : '[';
    bool first = true;
    elements(value, path, [&](const std::string& key, const ordered_json& element, const std::string& place) {
      text_ += (first ? "" : ", ") + key;
      line(element, place);
      first = false;
    });
    text_ += value.is_object() ? '}' : ']';
  }

  void block(const ordered_json& value, const std::string& path, std::size_t indent) {
    if (!value.is_structured() || value.empty() || (value.is_array() && value[0].is_number())) return line(value, path);
    const std::string margin(indent + 2, ' ');
    text_ += value.is_object() ? '{' : '[';
    bool first = true;
    elements(value, path, [&](const std::string& key, const ordered_json& element, const std::string& place) {
      text_ += (first ? "\n" : ",\n") + margin + key;
      value.is_array() ? line(element, place) : block(element, place, indent + 2);
      first = false;
    });
    text_ += '\n' + std::string(indent, ' ') + (value.is_object() ? '}' : ']');
  }

  std::string text_;
};

}  // namespace

std::string write_plan(const Plan& plan) { return Printer().print(plan_json(plan)); }

// FNV-1a, 64 bits (Fowler, Noll, Vo; RFC 9923): tells plans apart that differ by accident, not by intent.
std::string plan_hash(const Plan& plan) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char c : write_plan(plan)) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return fmt::format("{:016x}", hash);
}

}  // namespace topomoe
