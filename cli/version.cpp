// topomoe --version: what this is, and what is built in, as compiled and as loaded.

#include <fmt/format.h>
#include <hwloc.h>

#include <CLI/Version.hpp>
#include <boost/version.hpp>
#include <nlohmann/json.hpp>
#include <pugixml.hpp>
#include <utility>
#include <vector>
#ifdef TOPOMOE_HAVE_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

#include "TopomoeVersion.hpp"
#include "cli/commands.hpp"
#include "topomoe/communicator_mpi.hpp"
#include "topomoe/communicator_nccl.hpp"
#include "topomoe/device_cuda.hpp"

namespace topomoe::cli {
namespace {

std::string hwloc_line() {
  const auto text = [](unsigned v) { return fmt::format("{}.{}.{}", v >> 16, (v >> 8) & 0xFF, v & 0xFF); };
  return fmt::format("compiled {}, loaded {}", text(HWLOC_API_VERSION), text(hwloc_get_api_version()));
}

std::string onednn_line() {
#ifdef TOPOMOE_HAVE_ONEDNN
  const dnnl_version_t* v = dnnl_version();
  return fmt::format("compiled {}.{}.{}, loaded {}.{}.{}", DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, DNNL_VERSION_PATCH,
                     v->major, v->minor, v->patch);
#else
  return "not built in";
#endif
}

// The descriptions name their library themselves: "NCCL 2.30.4 (loaded ...)", "MPI: not built in".
std::string without_name(const std::string& line, const std::string& name) {
  if (!line.starts_with(name)) return line;
  const std::size_t rest = line.find_first_not_of(": ", name.size());
  return rest == std::string::npos ? line : line.substr(rest);
}

}  // namespace

std::string version_text(Format format) {
  const std::vector<std::pair<std::string, std::string>> libraries = {
      {"CUDA", without_name(cuda_description(), "CUDA")},
      {"NCCL", without_name(nccl_description(), "NCCL")},
      {"MPI", without_name(mpi_description(), "MPI")},
      {"oneDNN", onednn_line()},
      {"hwloc", hwloc_line()},
      {"Boost",
       fmt::format("{}.{}.{} (headers)", BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000, BOOST_VERSION % 100)},
      {"fmt", fmt::format("{}.{}.{}", FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100)},
      {"nlohmann_json", fmt::format("{}.{}.{} (headers)", NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR,
                                    NLOHMANN_JSON_VERSION_PATCH)},
      {"pugixml", fmt::format("{}.{}", PUGIXML_VERSION / 1000, PUGIXML_VERSION / 10 % 100)},
      {"CLI11", CLI11_VERSION " (headers)"},
  };
  if (format == Format::json) {
    nlohmann::ordered_json out{
        {"version", TOPOMOE_VERSION}, {"git", TOPOMOE_GIT_DESCRIBE}, {"build", TOPOMOE_BUILD_TYPE}};
    for (const auto& [name, text] : libraries) out["libraries"][name] = text;
    return out.dump(2) + "\n";
  }
  std::string out = "topomoe " TOPOMOE_VERSION " (git " TOPOMOE_GIT_DESCRIBE ", " TOPOMOE_BUILD_TYPE ")\n";
  for (const auto& [name, text] : libraries) out += fmt::format("  {:<14} {}\n", name, text);
  return out;
}

}  // namespace topomoe::cli
