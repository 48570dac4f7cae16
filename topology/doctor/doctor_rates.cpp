// What the description of one host does not say, or says by assumption.
#include <fmt/format.h>

#include <map>
#include <tuple>

#include "topology/doctor/doctor_host.hpp"
#include "topology/names.hpp"

namespace topomoe {
namespace {

// Links that share one origin of their rate are one finding.
struct Guess {
  std::string kind;
  Source source;
  double GBps;
  std::string note;
  bool operator<(const Guess& o) const {
    return std::tie(kind, source, GBps, note) < std::tie(o.kind, o.source, o.GBps, o.note);
  }
};

std::string folded(const std::vector<std::string>& names) {
  constexpr std::size_t kMostNames = 4;
  std::string out;
  for (std::size_t i = 0; i < std::min(kMostNames, names.size()); ++i) out += (i == 0 ? "" : ", ") + names[i];
  return names.size() > kMostNames ? fmt::format("{} and {} more", out, names.size() - kMostNames) : out;
}

}  // namespace

void diagnose_rates(const HostCase& own) {
  std::map<Guess, std::vector<std::string>> guesses;
  const auto guess = [&](const char* kind, Source source, double GBps, const std::string& note, std::string element) {
    if (source == Source::assumed || source == Source::unknown)
      guesses[{kind, source, GBps, note}].push_back(std::move(element));
  };
  for (const Link& link : own.host.links)
    guess(name(link.kind), link.source, link.GBps_per_direction, link.source_note,
          own.device(link.src).name + (link.both_ways ? "-" : "->") + own.device(link.dst).name);
  for (const Nic& nic : own.host.nics)
    guess("nic", nic.port.source, nic.port.GBps_per_direction, nic.port.source_note,
          nic.name.empty() ? own.device(nic.device).name : nic.name);
  for (const auto& [of, elements] : guesses) {
    const bool known = of.source == Source::assumed;
    own.add(Severity::note, own.where + of.kind + " " + folded(elements),
            fmt::format("the rate of {} link{} is {}", elements.size(), elements.size() == 1 ? "" : "s",
                        known ? fmt::format("assumed, {} GB/s{}", short_number(of.GBps),
                                            of.note.empty() ? "" : " (" + of.note + ")")
                              : "not known"),
            "a rate for each link; figures that follow from these are guesses",
            "give them in a cluster.json, or a dump that has them");
  }
  if (own.host.nvlink == Presence::unknown && !own.host.gpus.empty())
    own.add(Severity::note, own.where + "nvlink", "the description says nothing of NVLink",
            "a dump of the running machine (NCCL_TOPO_DUMP_FILE)", "bounds inside this host are of PCIe");
}

}  // namespace topomoe
