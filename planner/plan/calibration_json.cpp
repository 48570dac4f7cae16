#include "planner/plan/json.hpp"
#include "topomoe/calibration.hpp"

namespace topomoe {
namespace {

// Of a rank that got no CPU for a second between steps of microseconds.
constexpr double kMostSpread = 1e9;

constexpr const char* kSchema = "topomoe.calibration/1";
constexpr std::size_t kMaxCurves = 10'000, kMaxKnots = 1000;
constexpr double kMaxFigure = 1e18;

const char* const kSources[] = {"measured", "datasheet", "assumed", "unknown"};

// "datasheet: from where", as in cluster files.
std::string source_text(const GpuSpec& gpu) {
  const std::string word = kSources[static_cast<int>(gpu.source)];
  return gpu.source_note.empty() ? word : word + ": " + gpu.source_note;
}

void read_source(const std::string& text, const std::string& field, GpuSpec& gpu) {
  const auto colon = text.find(':');
  const std::string word = text.substr(0, colon);
  for (int i = 0; i < 4; ++i)
    if (word == kSources[i]) {
      gpu.source = static_cast<Source>(i);
      if (colon != std::string::npos) gpu.source_note = text.substr(text.find_first_not_of(' ', colon + 1));
      return;
    }
  throw InvalidInput(field, text.empty() ? "empty" : text,
                     "must begin with measured, datasheet, assumed or unknown, then \": why\"");
}

ordered_json to_json(const CalibrationMachine& m) {
  return {{"gpu",
           {{"name", m.gpu.name},
            {"memory_GiB", m.gpu.memory_GiB},
            {"hbm_GBps", m.gpu.hbm_GBps},
            {"bf16_TFLOPps", m.gpu.bf16_TFLOPps},
            {"fp8_TFLOPps", m.gpu.fp8_TFLOPps},
            {"fp32_TFLOPps", m.gpu.fp32_TFLOPps},
            {"sms", m.gpu.sms},
            {"source", source_text(m.gpu)}}},
          {"gpus_per_node", m.gpus_per_node},
          {"interconnect", m.interconnect},
          {"nvlink_GBps", m.nvlink_GBps},
          {"pcie_GBps", m.pcie_GBps},
          {"nic_GBps", m.nic_GBps}};
}

ordered_json to_json(const CalibrationCurve& c) {
  ordered_json knots = ordered_json::array();
  for (const CalibrationKnot& k : c.knots) knots.push_back({k.size, k.time_us});
  ordered_json j = {{"operation", c.operation}, {"gpus", c.gpus},           {"nodes", c.nodes},
                    {"dtype", c.dtype},         {"size_unit", c.size_unit}, {"parameters", c.parameters},
                    {"spread", c.spread}};
  if (c.parameters.empty()) j["parameters"] = ordered_json::object();
  if (!c.source.empty()) j["source"] = c.source;
  j["knots_size_us"] = std::move(knots);
  return j;
}

CalibrationMachine machine_from(const ordered_json& json, const std::string& where) {
  ObjectReader in(json, where);
  CalibrationMachine m;
  ObjectReader gpu(in.at("gpu"), in.field("gpu"));
  m.gpu.name = gpu.text("name");
  m.gpu.memory_GiB = gpu.number("memory_GiB", 0, kMaxFigure);
  m.gpu.hbm_GBps = gpu.number("hbm_GBps", 0, kMaxFigure);
  m.gpu.bf16_TFLOPps = gpu.number("bf16_TFLOPps", 0, kMaxFigure);
  m.gpu.fp8_TFLOPps = gpu.number("fp8_TFLOPps", 0, kMaxFigure);
  m.gpu.fp32_TFLOPps = gpu.number("fp32_TFLOPps", 0, kMaxFigure);
  m.gpu.sms = gpu.integer("sms", 0, 100'000);
  read_source(gpu.text("source"), gpu.field("source"), m.gpu);
  gpu.finish();
  m.gpus_per_node = in.integer("gpus_per_node", 0, kMaxRanks);
  m.interconnect = in.text("interconnect");
  m.nvlink_GBps = in.number("nvlink_GBps", 0, kMaxFigure);
  m.pcie_GBps = in.number("pcie_GBps", 0, kMaxFigure);
  m.nic_GBps = in.number("nic_GBps", 0, kMaxFigure);
  in.finish();
  return m;
}

std::map<std::string, double> figures_from(const ordered_json& json, const std::string& where) {
  ObjectReader in(json, where);
  std::map<std::string, double> figures;
  for (const auto& item : json.items()) figures[item.key()] = in.number(item.key().c_str(), -kMaxFigure, kMaxFigure);
  return figures;
}

CalibrationCurve curve_from(const ordered_json& json, const std::string& where) {
  ObjectReader in(json, where);
  CalibrationCurve c;
  c.operation = in.text("operation");
  c.gpus = in.integer("gpus", 1, kMaxRanks);
  c.nodes = in.integer("nodes", 1, kMaxRanks);
  c.dtype = in.text("dtype");
  c.size_unit = in.text("size_unit");
  c.parameters = figures_from(in.at("parameters"), in.field("parameters"));
  c.spread = in.number("spread", 0, kMostSpread);
  if (in.has("source")) c.source = in.text("source");
  const ordered_json& knots = in.at("knots_size_us");
  if (!knots.is_array() || knots.size() > kMaxKnots)
    throw InvalidInput(in.field("knots_size_us"), preview(knots),
                       "must be an array of at most " + std::to_string(kMaxKnots) + " pairs [size, microseconds]");
  for (const ordered_json& knot : knots) {
    if (!knot.is_array() || knot.size() != 2 || !knot[0].is_number() || !knot[1].is_number())
      throw InvalidInput(in.field("knots_size_us"), preview(knot), "a knot is [size, microseconds]");
    c.knots.push_back({knot[0].get<double>(), knot[1].get<double>()});
  }
  in.finish();
  return c;
}

}  // namespace

void check(const Calibration& c, std::string_view where) {
  const auto fail = [&](const std::string& field, const std::string& value, const std::string& hint) {
    throw InvalidInput(std::string(where) + ": " + field, value, hint);
  };
  const auto usable = [](double x) { return std::isfinite(x) && x >= 0 && x <= kMaxFigure; };
  if (c.name.empty()) fail("name", "empty", "say which machine this is, e.g. h100-sxm");
  if (c.source.empty()) fail("source", "empty", "say who measured it");
  const CalibrationMachine& m = c.machine;
  if (m.gpu.name.empty()) fail("machine.gpu.name", "empty", "the figures hold for one GPU only: name it");
  if (!m.interconnect.empty() && m.interconnect != "nvswitch" && m.interconnect != "nvlink" && m.interconnect != "pcie")
    fail("machine.interconnect", m.interconnect, "must be nvswitch, nvlink, pcie, or empty where not known");
  for (const double figure : {m.gpu.memory_GiB, m.gpu.hbm_GBps, m.gpu.bf16_TFLOPps, m.gpu.fp8_TFLOPps,
                              m.gpu.fp32_TFLOPps, m.nvlink_GBps, m.pcie_GBps, m.nic_GBps})
    if (!usable(figure)) fail("machine", std::to_string(figure), "figures are finite and not negative");
  for (std::size_t i = 0; i < c.curves.size(); ++i) {
    const CalibrationCurve& curve = c.curves[i];
    const std::string at = "curves[" + std::to_string(i) + "]";
    if (curve.operation.empty()) fail(at + ".operation", "empty", "name the operation");
    if (curve.size_unit.empty()) fail(at + ".size_unit", "empty", "say what sizes count, e.g. buffer_bytes");
    if (curve.gpus < 1 || curve.nodes < 1 || curve.gpus % curve.nodes != 0)
      fail(at + ".gpus", std::to_string(curve.gpus) + " on " + std::to_string(curve.nodes) + " nodes",
           "both are at least 1, and nodes divide GPUs");
    if (!usable(curve.spread)) fail(at + ".spread", std::to_string(curve.spread), "finite and not negative");
    if (curve.knots.empty()) fail(at + ".knots_size_us", "empty", "at least one [size, microseconds]");
    for (std::size_t k = 0; k < curve.knots.size(); ++k) {
      const CalibrationKnot& knot = curve.knots[k];
      const std::string field = at + ".knots_size_us[" + std::to_string(k) + "]";
      if (!usable(knot.size) || knot.size <= 0 || (k > 0 && knot.size <= curve.knots[k - 1].size))
        fail(field, std::to_string(knot.size), "sizes are positive and grow");
      if (!usable(knot.time_us) || knot.time_us <= 0)
        fail(field, std::to_string(knot.time_us), "times are positive and finite");
    }
  }
  for (const auto& [key, value] : c.figures)
    if (!std::isfinite(value)) fail("figures." + key, std::to_string(value), "must be finite");
}

Calibration read_calibration(std::string_view text, const std::string& where) {
  const ordered_json json = parse_json(text, where);
  ObjectReader in(json, where);
  if (const std::string schema = in.text("schema"); schema != kSchema)
    throw InvalidInput(in.field("schema"), schema, std::string("must be ") + kSchema);
  Calibration c;
  c.name = in.text("name");
  c.source = in.text("source");
  c.machine = machine_from(in.at("machine"), in.field("machine"));
  const std::string software_field = in.field("software");
  const ordered_json& software = in.at("software");
  ObjectReader versions(software, software_field);
  for (const auto& item : software.items()) c.software[item.key()] = versions.text(item.key().c_str());
  c.figures = figures_from(in.at("figures"), in.field("figures"));
  const ordered_json& curves = in.at("curves");
  if (!curves.is_array() || curves.size() > kMaxCurves)
    throw InvalidInput(in.field("curves"), preview(curves),
                       "must be an array of at most " + std::to_string(kMaxCurves));
  for (std::size_t i = 0; i < curves.size(); ++i)
    c.curves.push_back(curve_from(curves[i], in.field(("curves[" + std::to_string(i) + "]").c_str())));
  in.finish();
  check(c, where);
  return c;
}

// One line a curve: a file of a hundred of them stays readable, and so do its differences.
std::string write_calibration(const Calibration& c) {
  check(c, "calibration");
  ordered_json software = ordered_json::object(), figures = ordered_json::object();
  for (const auto& [key, value] : c.software) software[key] = value;
  for (const auto& [key, value] : c.figures) figures[key] = value;
  const ordered_json head = {{"schema", kSchema},    {"name", c.name},
                             {"source", c.source},   {"machine", to_json(c.machine)},
                             {"software", software}, {"figures", figures}};
  std::string text = head.dump(2);
  text.resize(text.size() - 2);  // "\n}"
  text += ",\n  \"curves\": [";
  for (std::size_t i = 0; i < c.curves.size(); ++i)
    text += (i == 0 ? "\n    " : ",\n    ") + to_json(c.curves[i]).dump();
  return text + (c.curves.empty() ? "]\n}\n" : "\n  ]\n}\n");
}

}  // namespace topomoe
