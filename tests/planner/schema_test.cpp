// The JSON Schemas of configs/schema against what is written and shipped. They are for editors and other
// programs; topomoe's own readers check more, in better words.
#include <gtest/gtest.h>

#if __has_include(<valijson/adapters/nlohmann_json_adapter.hpp>)

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>

#include "planner/whatif/whatif.hpp"
#include "tests/planner/helpers.hpp"
#include "tests/planner/sample_plan.hpp"
#include "topomoe/topology.hpp"

namespace topomoe {
namespace {

using Json = nlohmann::json;
using Adapter = valijson::adapters::NlohmannJsonAdapter;

std::string text_of(const std::filesystem::path& file) {
  std::ifstream in(file);
  EXPECT_TRUE(in) << file;
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

const std::filesystem::path kConfigs = std::filesystem::path(TOPOMOE_SOURCE_DIR) / "configs";

class JsonSchema {
 public:
  explicit JsonSchema(const std::string& name) {
    const Json json = Json::parse(text_of(kConfigs / "schema" / (name + ".schema.json")));
    valijson::SchemaParser(valijson::SchemaParser::kDraft7).populateSchema(Adapter(json), schema_);
  }
  // Why `json` does not fit, empty if it does.
  std::string complaint(const Json& json) const {
    valijson::ValidationResults results;
    if (valijson::Validator().validate(schema_, Adapter(json), &results)) return "";
    valijson::ValidationResults::Error error;
    std::string why;
    while (results.popError(error)) {
      for (const std::string& place : error.context) why += place;
      why += ": " + error.description + "\n";
    }
    return why.empty() ? "no reason given" : why;
  }

 private:
  valijson::Schema schema_;
};

TEST(PlanSchema, WrittenPlans_Fit) {
  const JsonSchema schema("topomoe.plan.1");
  for (const int n : {1, 4}) EXPECT_EQ(schema.complaint(Json::parse(write_plan(sample_plan(n)))), "");
  // One of each transport and intake, and a model with latent attention.
  each_schedule({2}, [&](const Schedule& s) {
    Plan plan = sample_plan(1);
    plan.schedule = s;
    plan.model = shipped("deepseek-v3");
    EXPECT_EQ(schema.complaint(Json::parse(write_plan(plan))), "") << s.name;
  });
  Plan replicated = sample_plan(1);
  replicated.job.dispatch_dtype = DispatchDType::fp8;
  replicated.expert_owners[3] = {1, 0};
  EXPECT_EQ(schema.complaint(Json::parse(write_plan(replicated))), "");
  Plan pyramid = sample_plan(1);
  pyramid.model = shipped("pr-moe-350m-32-64");
  pyramid.later_kinds = {{pyramid.expert_owners, pyramid.schedule, pyramid.forward, pyramid.backward, pyramid.loads}};
  Json json = Json::parse(write_plan(pyramid));
  EXPECT_EQ(schema.complaint(json), "");
  json["later_kinds"]["1"].erase("schedule");
  EXPECT_NE(schema.complaint(json), "");
}

void each_object(Json& value, const std::function<void(Json&)>& visit) {
  if (value.is_object()) visit(value);
  if (value.is_structured())
    for (auto& element : value) each_object(element, visit);
}

TEST(PlanSchema, KeyMissingOrUnknown_IsRefusedAsTheReaderDoes) {
  const JsonSchema schema("topomoe.plan.1");
  Json json = Json::parse(write_plan(sample_plan(1)));
  std::size_t turn = 0, missing = 0;
  const auto refused_by_reader = [&] { return message_of([&] { read_plan(json.dump(), "plan.json"); }); };
  each_object(json, [&](Json& object) {
    const Json kept = object;
    for (const auto& item : kept.items()) {
      if (++turn > 120 && turn % 61 != 0) continue;  // all of the first parts, then a sample
      object.erase(item.key());
      const bool required = refused_by_reader().find(": missing: this key is required") != std::string::npos;
      EXPECT_EQ(required, !schema.complaint(json).empty()) << item.key() << "\n" << refused_by_reader();
      missing += required;
      object = kept;
    }
    if (turn % 5 == 0 && kept.count("weights") + kept.count("activations") == 0) {  // buckets have any name
      object["no_such_key"] = 1;
      EXPECT_NE(schema.complaint(json), "");
      object = kept;
    }
  });
  EXPECT_GT(missing, 80U);
}

TEST(PlanSchema, WrongValue_IsRefused) {
  const JsonSchema schema("topomoe.plan.1");
  const Json good = Json::parse(write_plan(sample_plan(1)));
  const auto refused = [&](const std::function<void(Json&)>& edit) {
    Json json = good;
    edit(json);
    return !schema.complaint(json).empty();
  };
  EXPECT_TRUE(refused([](Json& j) { j["schema"] = "topomoe.plan/2"; }));
  EXPECT_TRUE(refused([](Json& j) { j["topology"]["fingerprint"] = "0123"; }));
  EXPECT_TRUE(refused([](Json& j) { j["schedule"]["forward"][0]["kind"] = "send"; }));
  EXPECT_TRUE(refused([](Json& j) { j["schedule"]["buffers"][0]["sources"] = "me.all"; }));
  EXPECT_TRUE(refused([](Json& j) { j["time"]["moe_ms"] = -1; }));
  EXPECT_TRUE(refused([](Json& j) { j["ranks"][0] = "host0"; }));
  EXPECT_TRUE(refused([](Json& j) { j["layout"]["tp"] = "8"; }));
}

TEST(CalibrationSchema, ShippedCalibrations_Fit) {
  const JsonSchema schema("topomoe.calibration.1");
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kConfigs / "calibration"))
    if (entry.path().extension() == ".json") {
      Json json = Json::parse(text_of(entry.path()));
      EXPECT_EQ(schema.complaint(json), "") << entry.path().filename();
      json["curves"][0]["knots_size_us"][0][1] = 0;
      EXPECT_NE(schema.complaint(json), "") << "a time of 0";
      ++files;
    }
  EXPECT_EQ(files, 4);
}

TEST(ClusterSchema, ShippedClusters_Fit) {
  const JsonSchema schema("topomoe.cluster.1");
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kConfigs / "clusters"))
    if (entry.path().extension() == ".json") {
      EXPECT_EQ(schema.complaint(Json::parse(text_of(entry.path()), nullptr, true, true)), "")
          << entry.path().filename();
      ++files;
    }
  EXPECT_GE(files, 8);
}

TEST(ClusterSchema, WrittenClusters_Fit) {
  const JsonSchema schema("topomoe.cluster.1");
  const auto expect_fits = [&](const Topology& t) {
    EXPECT_EQ(schema.complaint(Json::parse(write_cluster_json(t))), "") << t.name;
  };
  for (const char* name : {"h100-2x8", "gb200-nvl72", "l40s-8x-pcie", "quickstart-2xh100"}) {
    Topology t = read_topology_file((kConfigs / "clusters" / (std::string(name) + ".json")).string());
    expect_fits(t);
    t.templates[0].shape.reset();  // device by device
    expect_fits(t);
  }
}

TEST(ClusterSchema, Wrong_IsRefused) {
  const JsonSchema schema("topomoe.cluster.1");
  const Json good = Json::parse(text_of(kConfigs / "clusters" / "h100-2x8.json"), nullptr, true, true);
  const auto refused = [&](const std::function<void(Json&)>& edit) {
    Json json = good;
    edit(json);
    return !schema.complaint(json).empty();
  };
  EXPECT_FALSE(refused([](Json&) {}));
  EXPECT_TRUE(refused([](Json& j) { j.erase("hosts"); }));
  EXPECT_TRUE(refused([](Json& j) { j["fabrik"] = 1; }));
  EXPECT_TRUE(refused([](Json& j) { j["fabric"].erase("hosts_per_leaf"); }));
  EXPECT_TRUE(refused([](Json& j) { j["templates"][0]["shape"]["nic"]["GBps_per_direction"] = 0; }));
  EXPECT_TRUE(refused([](Json& j) { j["templates"][0]["shape"]["gpu"] = 8; }));
  EXPECT_TRUE(refused([](Json& j) { j["templates"][0].erase("shape"); }));
  EXPECT_FALSE(refused([](Json& j) { j["templates"][0] = {{"nccl_xml", "h100-host.nccl.xml"}}; }));
  const Json rate = {{"GBps_per_direction", 450}, {"source", "assumed"}};
  Json link = {{"src", "gpu0"}, {"dst", "numa0"}, {"kind", "pcie"}, {"GBps_per_direction", 32}, {"source", "assumed"}};
  const Json graph = {
      {"name", "odd"},
      {"nvlink", "absent"},
      {"devices", {{{"kind", "gpu"}, {"name", "gpu0"}}, {{"kind", "numa"}, {"name", "numa0"}, {"numa", 0}}}},
      {"links", {link}},
      {"nics", Json::array({{{"device", "nic0"}, {"rail", 0}, {"port", rate}}})}};
  EXPECT_FALSE(refused([&](Json& j) { j["templates"][0] = graph; }));
  EXPECT_TRUE(refused([&](Json& j) {
    j["templates"][0] = graph;
    j["templates"][0]["links"][0]["kind"] = "nic";
  }));
}

// A point with a plan, one without, and one that is not computed.
TEST(WhatIfSchema, WrittenResults_Fit) {
  const JsonSchema schema("topomoe.whatif.1");
  WhatIf w;
  w.clusters.push_back({"small", read_topology_file((kConfigs / "clusters/h100-2x8.json").string()), ""});
  w.base.model = shipped("switch-base-16");
  w.base.fix = {"pp=1,cp=1"};
  w.degrade = {"leaf0=0.5"};
  w.settings = {parse_setting("tp=2,3"), parse_setting("split=sliced")};
  auto outcomes = run_what_if(w);
  outcomes.back() = {};
  const Json json = Json::parse(what_if_json(w, outcomes));
  EXPECT_EQ(schema.complaint(json), "");
  const auto refused = [&](const std::function<void(Json&)>& spoil) {
    Json spoilt = json;
    spoil(spoilt);
    return !schema.complaint(spoilt).empty();
  };
  EXPECT_TRUE(refused([](Json& j) { j["points"][0].erase("step_ms"); }));
  EXPECT_TRUE(refused([](Json& j) { j["points"][1]["step_ms"] = 1; })) << "a time without a plan";
  EXPECT_TRUE(refused([](Json& j) { j["points"][0]["forward"]["steps"][0]["lane"] = "express"; }));
  EXPECT_TRUE(refused([](Json& j) { j["axes"][0]["values"] = Json::array(); }));
}

}  // namespace
}  // namespace topomoe

#else

TEST(JsonSchemas, NeedValijson) { GTEST_SKIP() << "valijson is not installed (Debian: libvalijson-dev)"; }

#endif
