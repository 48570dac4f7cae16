// plan.json, read: the schema first, then each part strictly by its keys, then what the parts say of each
// other. Whoever gets a Plan from here may execute it without looking again.
#include <fmt/format.h>

#include "planner/plan/plan_summary.hpp"

namespace topomoe {
namespace {

constexpr std::size_t kMaxTextBytes = 64U << 20;  // the rank map of about two million GPUs
constexpr double kMostAmount = 1e18;              // of bytes, times and rates: more is a mistake
constexpr double kMostExact = 0x1p53;             // integers above it are not exact in JSON

double amount(ObjectReader& in, const char* key) { return in.number(key, 0, kMostAmount); }

std::int64_t count(ObjectReader& in, const char* key) {
  const double number = in.number(key, 0, kMostExact);
  if (number != std::floor(number)) throw InvalidInput(in.field(key), preview(in.at(key)), "must be an integer");
  return static_cast<std::int64_t>(number);
}

// Calls read(element, its place) for each element.
template <class F>
void each(ObjectReader& in, const char* key, F read) {
  const ordered_json& array = in.at(key);
  if (!array.is_array()) throw InvalidInput(in.field(key), preview(array), "must be an array");
  for (std::size_t i = 0; i < array.size(); ++i) read(array[i], in.field(key) + "[" + std::to_string(i) + "]");
}

std::string text_of(const ordered_json& value, const std::string& at) {
  if (!value.is_string()) throw InvalidInput(at, preview(value), "must be a string");
  return value.get<std::string>();
}

PlannedTopology topology_from(ObjectReader in) {
  PlannedTopology t;
  t.name = in.text("name");
  t.fingerprint = in.text("fingerprint");
  if (t.fingerprint.size() != 16 || t.fingerprint.find_first_not_of("0123456789abcdef") != std::string::npos)
    throw InvalidInput(in.field("fingerprint"), preview(t.fingerprint), "must be 16 hex digits, 0-9 and a-f");
  t.hosts = in.integer("hosts", 1, kMaxRanks);
  t.gpus = in.integer("gpus", 1, kMaxRanks);
  t.gpus_per_node = in.integer("gpus_per_node", 1, kMaxRanks);
  t.note = in.text("note");
  each(in, "warnings", [&](const ordered_json& j, const std::string& at) { t.warnings.push_back(text_of(j, at)); });
  in.finish();
  return t;
}

void time_from(ObjectReader in, Plan& p) {
  p.time = {.moe_ms = amount(in, "moe_ms"),
            .attention_ms = amount(in, "attention_ms"),
            .bubble_ms = amount(in, "bubble_ms"),
            .gradients_ms = amount(in, "gradients_ms"),
            .other_ms = amount(in, "other_ms")};
  p.tokens_per_rank = amount(in, "tokens_per_rank");
  p.model_TFLOPps_per_gpu = amount(in, "model_TFLOPps_per_gpu");
  p.peak_TFLOPps_per_gpu = amount(in, "peak_TFLOPps_per_gpu");
  p.low_ms = amount(in, "low_ms");
  p.high_ms = amount(in, "high_ms");
  each(in, "rates", [&](const ordered_json& j, const std::string& at) {
    ObjectReader rate(j, at);
    p.rates.push_back({rate.text("what"), rate.text("source"), amount(rate, "error")});
    rate.finish();
  });
  in.finish();
}

GradientOperation gradient_operation_from(const ordered_json& j, const std::string& at) {
  if (!j.is_array() || j.size() != 4) throw InvalidInput(at, preview(j), "must be [group, begin_us, end_us, bytes]");
  const auto number = [&](std::size_t i) {
    if (!j[i].is_number() || !(j[i].get<double>() >= 0 && j[i].get<double>() <= kMostAmount))
      throw InvalidInput(at, preview(j[i]), "must be [group, begin_us, end_us, bytes], none of them negative");
    return j[i].get<double>();
  };
  GradientOperation op{role_from(text_of(j[0], at), at), number(1), number(2), number(3)};
  if (op.end_us < op.begin_us) throw InvalidInput(at, preview(j[2]), "ends before it begins");
  return op;
}

PredictedGradients gradients_from(ObjectReader in, const Layout& layout) {
  PredictedGradients g;
  g.stage = in.integer("stage", 0, layout.pp - 1);
  g.backward_us = amount(in, "backward_us");
  g.windows = in.integer("windows", 0, kMaxTokens);
  g.hidden_bytes = amount(in, "hidden_bytes");
  g.exposed_bytes = amount(in, "exposed_bytes");
  g.exposed_us = amount(in, "exposed_us");
  double hidden = 0, exposed = 0;
  each(in, "exposed", [&](const ordered_json& j, const std::string& at) {
    ObjectReader e(j, at);
    g.exposed.emplace_back(role_from(e.text("group"), e.field("group")), amount(e, "bytes"));
    exposed += g.exposed.back().second;
    e.finish();
  });
  each(in, "layers", [&](const ordered_json& j, const std::string& at) {
    ObjectReader l(j, at);
    GradientLayers run{
        l.integer("first", 0, kMaxLayers), l.integer("layers", 1, kMaxLayers), amount(l, "backward_us"), {}};
    each(l, "operations", [&](const ordered_json& o, const std::string& place) {
      run.operations.push_back(gradient_operation_from(o, place));
      hidden += run.layers * run.operations.back().bytes;
    });
    l.finish();
    g.layers.push_back(std::move(run));
  });
  const auto same = [&](const char* key, double told, double sum) {
    if (std::abs(told - sum) > 1e-9 * (told + sum))
      throw InvalidInput(in.field(key), fmt::format("{}", told), fmt::format("the operations sum up to {}", sum));
  };
  same("hidden_bytes", g.hidden_bytes, hidden);
  same("exposed_bytes", g.exposed_bytes, exposed);
  in.finish();
  return g;
}

void memory_from(ObjectReader in, Plan& p) {
  p.memory_limit_GiB = amount(in, "limit_GiB");
  p.memory_stage = in.integer("stage", 0, p.layout.pp - 1);
  const ordered_json& json = in.at("by_bucket_GiB");
  ObjectReader buckets(json, in.field("by_bucket_GiB"));
  for (const auto& item : json.items()) p.memory_GiB.emplace_back(item.key(), amount(buckets, item.key().c_str()));
  in.finish();
}

LinkClassLoad load_from(ObjectReader in) {
  LinkClassLoad l{in.text("link_class"), in.text("link"), amount(in, "GBps_per_direction"), amount(in, "bytes"),
                  amount(in, "busy_us")};
  in.finish();
  return l;
}

PredictedPass pass_from(ObjectReader in) {
  PredictedPass pass;
  pass.time_us = amount(in, "time_us");
  pass.bound_us = amount(in, "bound_us");
  pass.bound_by = in.text("bound_by");
  each(in, "steps", [&](const ordered_json& j, const std::string& at) {
    ObjectReader step(j, at);
    pass.steps.push_back({step.text("name"), amount(step, "begin_us"), amount(step, "end_us"), amount(step, "alone_us"),
                          amount(step, "bytes"), step.text("bottleneck")});
    step.finish();
  });
  in.finish();
  return pass;
}

ExpertOwners owners_from(ObjectReader& in, const Layout& layout) {
  ExpertOwners owners;
  const auto place = [&](const ordered_json& j, const std::string& at) {
    return ObjectReader::as_integer(j, at, 0, layout.ep - 1);
  };
  each(in, "expert_owners", [&](const ordered_json& j, const std::string& at) {
    std::vector<int>& its = owners.emplace_back();
    if (!j.is_array()) return its.push_back(place(j, at));
    for (std::size_t i = 0; i < j.size(); ++i) its.push_back(place(j[i], fmt::format("{}[{}]", at, i)));
  });
  return owners;
}

PlannedKind kind_from(ObjectReader in, const Layout& layout) {
  PlannedKind k;
  each(in, "loads", [&](const ordered_json& j, const std::string& at) { k.loads.push_back(load_from({j, at})); });
  k.forward = pass_from({in.at("predicted_forward"), in.field("predicted_forward")});
  k.backward = pass_from({in.at("predicted_backward"), in.field("predicted_backward")});
  k.schedule = schedule_from_json(in.at("schedule"), in.field("schedule"));
  k.expert_owners = owners_from(in, layout);
  in.finish();
  return k;
}

Rejected rejected_from(ObjectReader in) {
  Rejected r{in.text("layout"),        in.text("algorithm"),    amount(in, "time_ms"),
             amount(in, "memory_GiB"), in.boolean("undecided"), in.text("reason")};
  in.finish();
  return r;
}

ParetoPoint pareto_from(ObjectReader in) {
  ParetoPoint c{in.text("layout"), in.text("algorithm"), amount(in, "time_ms"), amount(in, "memory_GiB")};
  in.finish();
  return c;
}

Sensitivity sensitivity_from(ObjectReader in) {
  Sensitivity c{in.text("rate"),       amount(in, "factor"), amount(in, "time_ms"),
                in.boolean("changes"), in.text("layout"),    in.text("algorithm")};
  in.finish();
  return c;
}

Flip flip_from(ObjectReader in) {
  Flip f{in.text("quantity"), amount(in, "at"), in.boolean("above"), in.text("instead")};
  in.finish();
  return f;
}

void search_from(ObjectReader in, Plan& p) {
  p.layouts_enumerated = count(in, "layouts_enumerated");
  p.layouts_too_large = count(in, "layouts_too_large");
  p.layouts_pruned = count(in, "layouts_pruned");
  p.schedules_priced = count(in, "schedules_priced");
  in.finish();
}

PlannedRank rank_from(const ordered_json& j, const std::string& at) {
  if (!j.is_array() || j.empty() || j.size() > 2)
    throw InvalidInput(at, preview(j), "must be [host] or [host, bus id]");
  return {text_of(j[0], at), j.size() == 2 ? text_of(j[1], at) : ""};
}

// What the parts of a plan say of each other.
class Consistency {
 public:
  Consistency(const Plan& plan, const std::string& where) : p_(plan), where_(where) {}

  void require() const {
    if (static_cast<int>(p_.later_kinds.size()) != moe_kind_count(p_.model) - 1)
      fail("later_kinds", fmt::format("{} kinds", p_.later_kinds.size()),
           fmt::format("the model has {} kinds of MoE layers after the first", moe_kind_count(p_.model) - 1));
    for (int kind = 0; kind < moe_kind_count(p_.model); ++kind)
      check(p_.layout, p_.layout.ep, where_ + ": layout");  // experts need not divide: expert_owners says who has them
    if (p_.routing.kind == RoutingProfile::Kind::histogram &&
        static_cast<int>(p_.routing.histogram.size()) != p_.model.experts)
      fail("routing.histogram", fmt::format("{} counts", p_.routing.histogram.size()),
           fmt::format("must have one for each of the {} experts", p_.model.experts));
    if (p_.layout.world != p_.topology.gpus)
      fail("layout.world", std::to_string(p_.layout.world),
           fmt::format("must be topology.gpus = {}", p_.topology.gpus));
    if (p_.ranks.size() != static_cast<std::size_t>(p_.layout.world))
      fail("ranks", fmt::format("{} ranks", p_.ranks.size()),
           fmt::format("must have all {} of the layout", p_.layout.world));
    kind("", 0, p_);
    for (std::size_t i = 0; i < p_.later_kinds.size(); ++i)
      kind(fmt::format("later_kinds.{}.", i + 1), static_cast<int>(i) + 1, p_.later_kinds[i]);
  }

  void require_summary(const ordered_json& summary) const {
    const ordered_json expected = summary_json(p_);
    ObjectReader in(summary, where_ + ": summary");
    for (const auto& item : expected.items())
      if (in.at(item.key().c_str()) != item.value())
        fail("summary." + item.key(), preview(in.at(item.key().c_str())),
             "the rest of the plan says " + preview(item.value()));
    in.finish();
  }

 private:
  [[noreturn]] void fail(const std::string& field, const std::string& value, const std::string& hint) const {
    throw InvalidInput(where_ + ": " + field, value, hint);
  }

  // k: a Plan or a PlannedKind.
  template <class K>
  void kind(const std::string& at, int index, const K& k) const {
    // Even of an empty list, which would mean even blocks.
    if (k.expert_owners.empty())
      fail(at + "expert_owners", "none",
           fmt::format("must have one for each of the {} experts", moe_kind(p_.model, index).experts));
    ExpertPlacement(moe_kind(p_.model, index).experts, p_.layout.ep, k.expert_owners,
                    where_ + ": " + at + "expert_owners");
    if (const auto violations = check(k.schedule); !violations.empty())
      fail(at + "schedule", violations.front(),
           fmt::format("{}no schedule of this version; plan again",
                       violations.size() > 1 ? fmt::format("and {} more: ", violations.size() - 1) : ""));
    steps(at + "predicted_forward", k.forward, k.schedule.forward);
    // Inference predicts no backward.
    if (p_.job.phase == Phase::train || !k.backward.steps.empty())
      steps(at + "predicted_backward", k.backward, k.schedule.backward);
  }

  void steps(const std::string& field, const PredictedPass& pass, const std::vector<Step>& steps) const {
    if (pass.steps.size() != steps.size())
      fail(field + ".steps", fmt::format("{} steps", pass.steps.size()),
           fmt::format("the schedule has {}", steps.size()));
    for (std::size_t i = 0; i < steps.size(); ++i)
      if (pass.steps[i].name != steps[i].name)
        fail(fmt::format("{}.steps[{}].name", field, i), preview(pass.steps[i].name),
             "the schedule's is " + preview(steps[i].name));
  }

  const Plan& p_;
  const std::string& where_;
};

}  // namespace

Plan read_plan(const std::string& text, const std::string& where) {
  if (text.size() > kMaxTextBytes)
    throw InvalidInput(where, fmt::format("{} bytes", text.size()),
                       fmt::format("a plan has at most {} MiB", kMaxTextBytes >> 20));
  const ordered_json json = parse_json(text, where);
  ObjectReader in(json, where);
  if (const std::string schema = in.text("schema"); schema != "topomoe.plan/1")
    throw InvalidInput(in.field("schema"), preview(schema), "this version of topomoe reads \"topomoe.plan/1\"");
  const auto part = [&](const char* key) { return ObjectReader(in.at(key), in.field(key)); };
  Plan p;
  p.topology = topology_from(part("topology"));
  p.model = model_from_json(in.at("model"), in.field("model"));
  p.job = job_from_json(in.at("job"), in.field("job"));
  p.routing = routing_from_json(in.at("routing"), in.field("routing"));
  p.layout = layout_from_json(in.at("layout"), in.field("layout"));
  time_from(part("time"), p);
  p.gradients = gradients_from(part("gradients"), p.layout);
  memory_from(part("memory"), p);
  each(in, "loads", [&](const ordered_json& j, const std::string& at) { p.loads.push_back(load_from({j, at})); });
  p.forward = pass_from(part("predicted_forward"));
  p.backward = pass_from(part("predicted_backward"));
  each(in, "rejected", [&](const ordered_json& j, const std::string& at) {
    p.rejected.push_back(rejected_from({j, at}));
  });
  each(in, "pareto", [&](const ordered_json& j, const std::string& at) { p.pareto.push_back(pareto_from({j, at})); });
  each(in, "sensitivity", [&](const ordered_json& j, const std::string& at) {
    p.sensitivity.push_back(sensitivity_from({j, at}));
  });
  each(in, "flips", [&](const ordered_json& j, const std::string& at) { p.flips.push_back(flip_from({j, at})); });
  search_from(part("search"), p);
  p.schedule = schedule_from_json(in.at("schedule"), in.field("schedule"));
  p.expert_owners = owners_from(in, p.layout);
  if (in.has("later_kinds")) {
    ObjectReader kinds = part("later_kinds");
    for (int kind = 1; kind < moe_kind_count(p.model); ++kind) {
      const std::string key = std::to_string(kind);
      p.later_kinds.push_back(kind_from({kinds.at(key.c_str()), kinds.field(key.c_str())}, p.layout));
    }
    kinds.finish();
  }
  each(in, "ranks", [&](const ordered_json& j, const std::string& at) { p.ranks.push_back(rank_from(j, at)); });
  const Consistency parts(p, where);
  parts.require();
  parts.require_summary(in.at("summary"));
  in.finish();
  return p;
}

}  // namespace topomoe
