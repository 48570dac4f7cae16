// A load as text and JSON.
#include <fmt/format.h>

#include <algorithm>

#include "topology/names.hpp"
#include "topology/read/json_fields.hpp"
#include "topomoe/pattern_load.hpp"

namespace topomoe {
namespace {

std::string bytes_text(double bytes) {
  if (bytes >= 1024.0 * 1024 * 1024) return short_number(bytes / (1024.0 * 1024 * 1024)) + " GiB";
  if (bytes >= 1024.0 * 1024) return short_number(bytes / (1024.0 * 1024)) + " MiB";
  return bytes >= 1024 ? short_number(bytes / 1024) + " KiB" : short_number(bytes) + " bytes";
}

std::string time_text(double seconds) {
  return seconds >= 1      ? short_number(seconds, 3) + " s"
         : seconds >= 1e-3 ? short_number(seconds * 1e3, 3) + " ms"
                           : short_number(seconds * 1e6, 3) + " us";
}

}  // namespace

std::string pattern_load_text(const PatternLoad& load) {
  const Topology& topology = load.loads.router().topology();
  std::string out =
      fmt::format("{}: {}, {} a GPU, {} GPUs\n", topology.name, load.pattern, bytes_text(load.buffer_bytes), load.gpus);
  const auto worst = std::find_if(load.classes.begin(), load.classes.end(),
                                  [&](const LoadedClass& own) { return own.link == load.bottleneck.link; });
  out +=
      fmt::format("bottleneck: {} ({}, {} GB/s, {}): at least {}; {} such link{}\n", load.bottleneck.name,
                  load.bottleneck.klass, short_number(worst->GBps_per_direction, 3), name(worst->source),
                  time_text(load.bottleneck.seconds), worst->links_as_loaded, worst->links_as_loaded == 1 ? "" : "s");
  out += fmt::format("at most {} GB/s algorithm bandwidth, {} GB/s bus bandwidth a GPU\n\n",
                     short_number(load.algorithm_GBps), short_number(load.bus_GBps));
  std::size_t width = 10;
  for (const LoadedClass& own : load.classes) width = std::max(width, own.name.size());
  out += fmt::format("{:16} {:>12} {:>10} {:>9} {:>11} {:>10}  {:{}}  {}\n", "class", "all bytes", "worst link", "GB/s",
                     "time", "of slowest", "which (and how many as loaded)", width + 8, "source of its rate");
  for (const LoadedClass& own : load.classes)
    out += fmt::format("{:16} {:>12} {:>10} {:>9} {:>11} {:>9}%  {:{}}  {}\n", own.klass, bytes_text(own.total_bytes),
                       bytes_text(own.max_bytes), short_number(own.GBps_per_direction, 3), time_text(own.seconds),
                       short_number(100 * own.share, 1), fmt::format("{} ({})", own.name, own.links_as_loaded),
                       std::max<std::size_t>(width + 8, 30), source_text(own.source, own.source_note));
  return out;
}

std::string pattern_load_json(const PatternLoad& load) {
  using Json = nlohmann::ordered_json;
  const Topology& topology = load.loads.router().topology();
  Json json;
  json["schema"] = "topomoe.load/1";
  json["fingerprint"] = fingerprint(topology);
  json["pattern"] = load.pattern;
  json["gpus"] = load.gpus;
  json["buffer_bytes"] = json_number(load.buffer_bytes);
  json["sent_bytes"] = json_number(load.sent_bytes);
  json["bound_us"] = load.bottleneck.seconds * 1e6;
  json["algorithm_GBps"] = load.algorithm_GBps;
  json["bus_GBps"] = load.bus_GBps;
  json["bottleneck"] = {{"link", load.bottleneck.name}, {"class", load.bottleneck.klass}};
  Json classes = Json::array();
  for (const LoadedClass& own : load.classes) {
    Json value;
    value["class"] = own.klass;
    value["total_bytes"] = json_number(own.total_bytes);
    value["worst_link"] = own.name;
    value["link_bytes"] = json_number(own.max_bytes);
    value["GBps_per_direction"] = json_number(own.GBps_per_direction);
    value["source"] = source_text(own.source, own.source_note);
    value["us"] = own.seconds * 1e6;
    value["share_of_bottleneck"] = own.share;
    value["links_as_loaded"] = own.links_as_loaded;
    classes.push_back(std::move(value));
  }
  json["classes"] = std::move(classes);
  json["warnings"] = topology.warnings;
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace topomoe
