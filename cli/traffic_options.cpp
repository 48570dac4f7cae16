#include "cli/traffic_options.hpp"

#include <optional>

#include "cli/numbers.hpp"
#include "topology/read/read_file.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

std::optional<TrafficPattern> named_pattern(const std::string& text) {
  if (text.empty()) return TrafficPattern::alltoall;
  for (const TrafficPattern pattern : {TrafficPattern::alltoall, TrafficPattern::rail, TrafficPattern::pairs})
    if (text == name(pattern)) return pattern;
  return std::nullopt;
}

}  // namespace

std::string TrafficOptions::traffic_file() const { return named_pattern(pattern) ? "" : pattern; }

void add_traffic_options(CLI::App& command, TrafficOptions& options) {
  command
      .add_option("--pattern", options.pattern,
                  "alltoall (default), rail: GPU i of each host with GPU i of all, pairs: GPU i to GPU i + n/2, or a "
                  "file of n x n bytes, comma-separated")
      ->option_text("alltoall|rail|pairs|FILE.csv");
  command.add_option("--bytes", options.bytes, "Buffer of each GPU (64M)")->option_text("SIZE");
}

PatternLoad asked_load(const Router& router, const TrafficOptions& options) {
  if (const auto pattern = named_pattern(options.pattern)) {
    const double bytes = bytes_from(options.bytes.empty() ? "64M" : options.bytes, "--bytes");
    if (bytes == 0) throw InvalidInput("--bytes", options.bytes, "above 0");
    return pattern_load(router, *pattern, bytes);
  }
  if (!options.bytes.empty()) throw InvalidInput("--bytes", options.bytes, "the file of --pattern says the bytes");
  const Topology& topology = router.topology();
  if (options.pattern.find_first_of("./") == std::string::npos)
    throw InvalidInput("--pattern", options.pattern, "one of alltoall, rail, pairs, or a file: matrix.csv");
  return pattern_load(router, read_traffic_csv(read_text_file(options.pattern), options.pattern, topology.gpu_count()));
}

}  // namespace topomoe::cli
