#include "tests/fuzz/promises.hpp"

#include <algorithm>
#include <array>
#include <functional>

#include "topology/show/diff.hpp"
#include "topomoe/doctor.hpp"
#include "topomoe/draw.hpp"
#include "topomoe/export.hpp"

namespace topomoe::fuzz {
namespace {

constexpr int kMostNamed = 5000;                // hosts that are written at all: 70 bytes of Slurm's may name 200,000
constexpr std::size_t kMostBytes = 1U << 20;    // of JSON that is read again: templates may be many times their text
constexpr int kMostHosts = 16, kMostGpus = 64;  // for what works host by host, or GPU by GPU
constexpr std::size_t kMostDevices = 256;       // of one host, for what looks at pairs
constexpr std::size_t kOneIn = 4;               // gets what takes ten times as long as reading: which, its JSON says

void require(bool holds, const char* promise) {
  if (!holds) throw std::logic_error(promise);
}

void require_same(const std::string& before, const std::string& after) {
  if (before == after) return;
  const auto differs = std::mismatch(before.begin(), before.end(), after.begin(), after.end()).first - before.begin();
  const auto line = [&](const std::string& text) {
    const std::size_t begin = text.rfind('\n', static_cast<std::size_t>(differs));
    return text.substr(begin == text.npos ? 0 : begin, 200);
  };
  throw std::logic_error("JSON that is read is written as it was:" + line(before) + "\nbecame" + line(after));
}

// Where a writer may refuse; what it refuses it must say.
template <class Write>
void or_refuses(Write write) {
  try {
    write();
  } catch (const InvalidInput& error) {
    require_message(error);
  }
}

}  // namespace

void require_message(const InvalidInput& error) {
  const std::string text = error.what();
  require(!text.empty(), "a message says something");
  require(text.find('\n') == text.npos && text.find('\0') == text.npos, "a message is one line");
  require(text.size() < 4096, "a message can be read");
}

void require_promises(const Topology& topology) {
  require_valid(topology, "promises");
  if (topology.host_names.size() > kMostNamed) return;
  const std::string json = write_cluster_json(topology);
  if (json.size() > kMostBytes) return;
  const Topology again = read_cluster_json(json, "again");
  require_same(json, write_cluster_json(again));
  require(fingerprint(again) == fingerprint(topology), "a cluster that is written stays the same");
  const bool small = std::all_of(topology.templates.begin(), topology.templates.end(), [](const HostTemplate& host) {
    return host.devices.size() <= kMostDevices && host.gpus.size() <= kMostGpus;
  });
  if (!small || topology.host_count() > kMostHosts || topology.gpu_count() > kMostGpus) return;
  if (std::hash<std::string>()(json) % kOneIn != 0) return;
  facts_json(topology);
  show_text(topology);
  show_json(topology);
  write_dot(topology);
  write_svg(topology);
  diagnose(std::array{topology, again});
  for (const Difference& own : differences(topology, again))
    throw std::logic_error("nothing differs from itself: " + own.element + ": " + own.before + ", " + own.after);
  or_refuses([&] { read_nccl_xml(write_nccl_xml(topology), "our own XML"); });
  for (const auto write : {write_simgrid, write_simai, write_astra, write_slurm_tree, write_slurm_blocks})
    or_refuses([&] { require(!write(topology).empty(), "what is written is not empty"); });
  or_refuses([&] {
    const Router router(topology);
    for (int src = 0; src < topology.gpu_count(); ++src)
      for (int dst = 0; dst < topology.gpu_count(); ++dst) router.route(src, dst);
    draw_page(router, usual_traffic(router));
    pattern_load_text(pattern_load(router, TrafficPattern::alltoall, 1 << 20));
  });
}

}  // namespace topomoe::fuzz
