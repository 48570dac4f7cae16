#include "topology/doctor/measured_place.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "topology/doctor/hosts_by_name.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

std::string listed(const std::set<std::string>& names) {
  constexpr std::size_t kMostNames = 8;
  std::string out;
  std::size_t count = 0;
  for (const std::string& name : names) {
    if (count++ == kMostNames) return out + fmt::format(", and {} more", names.size() - kMostNames);
    out += (out.empty() ? "" : ", ") + name;
  }
  return out;
}

// Devices of a run on the hosts of a description.
class Placer {
 public:
  Placer(const std::vector<MeasuredDevice>& devices, std::string run, const Topology& topology,
         std::vector<Finding>& findings)
      : devices_(devices), run_(std::move(run)), topology_(topology), findings_(findings) {}

  // Hosts of the run: found by name, or to be taken in order. `named`: the run says their names.
  bool find_hosts(bool named) {
    for (const MeasuredDevice& own : devices_)
      if (host_.emplace(own.host, static_cast<int>(host_.size())).second) order_.push_back(own.host);
    const std::vector<int> with_gpus = hosts_with_gpus(topology_);
    if (with_gpus.empty()) {
      add(Severity::warning, "the description has no GPU", "a description of the hosts that ran it",
          "give a file of these hosts (NCCL_TOPO_DUMP_FILE, cluster.json)");
      return false;
    }
    if (named) by_name(with_gpus);
    return true;
  }
  // Names were to place the run, and could not: its verdict is of other hosts.
  bool first_hosts_instead() const { return instead_; }
  std::size_t hosts() const { return order_.size(); }
  // How many more hosts of the last kind the description needs.
  int missing_hosts() const {
    return chosen_.empty() ? static_cast<int>(hosts()) - static_cast<int>(hosts_with_gpus(topology_).size()) : 0;
  }
  static std::vector<int> hosts_with_gpus(const Topology& topology) {
    std::vector<int> out;
    for (int host = 0; host < topology.host_count(); ++host)
      if (topology.gpus_per_host(host) > 0) out.push_back(host);
    return out;
  }

  // The GPU of each device, on `grown`: the description, or more of its hosts.
  std::optional<std::vector<int>> find_gpus(const Topology& grown) {
    if (chosen_.empty()) chosen_ = hosts_with_gpus(grown);
    TOPOMOE_ASSERT(chosen_.size() >= hosts());
    std::vector<int> out;
    std::set<std::string> unknown, beyond, others;
    std::size_t known = 0;
    for (const MeasuredDevice& own : devices_) {
      const int host = chosen_[static_cast<std::size_t>(host_.at(own.host))];
      const int first = grown.first_gpu_of_host(host), count = grown.gpus_per_host(host);
      int local = -1;
      bool described = false;
      for (int gpu = 0; gpu < count && !own.bus_id.empty(); ++gpu) {
        const std::string id = plain_bus_id(grown.bus_id(first + gpu));
        described = described || !id.empty();
        const bool only_bus = own.bus_id.find(':') == std::string::npos;
        const bool same = id == own.bus_id || (only_bus && id.size() >= 7 && id.substr(id.size() - 5, 2) == own.bus_id);
        if (same && local < 0) local = gpu;
      }
      if (local >= 0)
        ++known;
      else if (described)
        unknown.insert(own.bus_id);
      if (local < 0) local = own.device;
      if (local >= count)
        beyond.insert(fmt::format("device {} of {}", own.device, own.host.empty() ? "the host" : own.host));
      const std::string seen = gpu_model(own.gpu),
                        said = local < count ? gpu_model(grown.gpu_spec(first + local).name) : "";
      if (!seen.empty() && !said.empty() && seen != said) others.insert(seen + " for " + said);
      out.push_back(first + local);
    }
    if (!others.empty())
      add(Severity::warning, "ran on " + listed(others) + " of the description", "the GPUs that are described",
          "is this the description of these hosts?");
    if (!unknown.empty())
      add(known > 0 ? Severity::warning : Severity::note,
          "bus ids that the description does not have: " + listed(unknown),
          fmt::format("those of the GPUs described: {} of {} are", known, devices_.size()),
          known > 0 ? "a GPU that was moved or replaced since; a new dump (NCCL_TOPO_DUMP_FILE)"
                    : "device numbers are taken instead; is this the description of these hosts?");
    if (!beyond.empty()) {
      add(Severity::warning, "ran on " + listed(beyond), "GPUs that the description has; the run is not compared",
          "GPUs missing in the description: a new dump (NCCL_TOPO_DUMP_FILE)");
      return std::nullopt;
    }
    if (std::set<int>(out.begin(), out.end()).size() != out.size()) {
      add(Severity::warning, "several ranks on one GPU", "a GPU a rank; the run is not compared",
          "NCCL_TESTS_DEVICE, CUDA_VISIBLE_DEVICES, or the launcher's binding");
      return std::nullopt;
    }
    return out;
  }

  void add(Severity severity, std::string seen, std::string expected, std::string check) {
    findings_.push_back({severity, run_, std::move(seen), std::move(expected), "", std::move(check)});
  }

 private:
  void by_name(const std::vector<int>& with_gpus) {
    const HostsByName named(topology_, with_gpus);
    if (named.empty()) {
      // Which of them it was makes no difference where all are alike.
      const bool alike = topology_.uniform() && (!topology_.fabric || topology_.fabric->exceptions.empty());
      if (with_gpus.size() > 1 && !alike)
        add(Severity::warning, fmt::format("ran on {}", listed({order_.begin(), order_.end()})),
            "names of hosts in the description, which has none: its hosts differ, and the first are taken",
            "give the description names (hosts, in a cluster.json; topo compose keeps them)");
      return;
    }
    std::set<std::string> missing, several;
    std::set<int> taken;
    for (const std::string& host : order_) {
      chosen_.push_back(named.find(host));
      taken.insert(chosen_.back());
      if (chosen_.back() == -1) missing.insert(host);
      if (chosen_.back() == HostsByName::kSeveral) several.insert(host);
    }
    const char* instead = "is this the description of these hosts? Its first hosts are taken instead";
    if (!missing.empty())
      add(Severity::warning, fmt::format("ran on {}", listed(missing)),
          fmt::format("hosts that the description names: {} of {} are not there", missing.size(), order_.size()),
          instead);
    if (!several.empty())
      add(Severity::warning, fmt::format("ran on {}", listed(several)),
          "names that are of one host each in the description; of these it has several", instead);
    if (missing.empty() && several.empty() && taken.size() != chosen_.size())
      add(Severity::warning, fmt::format("ran on {}", listed({order_.begin(), order_.end()})),
          fmt::format("a host of the description for each: they are {} of them", taken.size()), instead);
    instead_ = !missing.empty() || !several.empty() || taken.size() != chosen_.size();
    if (instead_) chosen_.clear();
  }

  const std::vector<MeasuredDevice>& devices_;
  const std::string run_;
  const Topology& topology_;
  std::vector<Finding>& findings_;
  std::map<std::string, int> host_;  // name -> number in order_
  std::vector<std::string> order_;
  std::vector<int> chosen_;  // of the description; empty: in order
  bool instead_ = false;
};

// Ranks that were cut out of the output are taken to stand in order on full hosts.
std::vector<MeasuredDevice> all_devices(const MeasuredCollective& run, const Topology& topology) {
  if (static_cast<int>(run.devices.size()) >= run.ranks) return run.devices;
  const std::vector<int> with_gpus = Placer::hosts_with_gpus(topology);
  const int each = with_gpus.empty() ? 1 : topology.gpus_per_host(with_gpus.front());
  std::vector<MeasuredDevice> out(static_cast<std::size_t>(run.ranks));
  for (int rank = 0; rank < run.ranks; ++rank)
    out[static_cast<std::size_t>(rank)] = {rank, 0, fmt::format("host {}", rank / each), rank % each, "", ""};
  for (const MeasuredDevice& named : run.devices) {
    out[static_cast<std::size_t>(named.rank)].gpu = named.gpu;
    out[static_cast<std::size_t>(named.rank)].bus_id = named.bus_id;
  }
  return out;
}

}  // namespace

std::string run_name(const MeasuredCollective& run) {
  std::set<std::string> hosts;
  for (const MeasuredDevice& own : run.devices) hosts.insert(own.host);
  const bool whole = static_cast<int>(run.devices.size()) == run.ranks;
  return fmt::format("{} of {} ranks{} ({})", run.operation.empty() ? "run" : run.operation, run.ranks,
                     whole ? fmt::format(" on {} host{}", hosts.size(), hosts.size() == 1 ? "" : "s") : "", run.where);
}

std::optional<RunPlace> place_run(const MeasuredCollective& run, const Topology& topology,
                                  std::vector<Finding>& findings) {
  if (run.ranks == 0)
    throw InvalidInput(run.where + ": ranks", "none is named", "keep the lines \"#  Rank  0 ...\" of the output");
  constexpr int kMostRanks = 65536;
  const std::vector<MeasuredDevice> devices = all_devices(run, topology);
  Placer placer(devices, run_name(run), topology, findings);
  if (run.ranks > kMostRanks || static_cast<int>(devices.size()) != run.ranks) {
    placer.add(Severity::warning, fmt::format("{} ranks, {} of them named", run.ranks, devices.size()),
               fmt::format("each of at most {} ranks once; the run is not compared", kMostRanks),
               "the whole output of one run");
    return std::nullopt;
  }
  if (static_cast<int>(run.devices.size()) < run.ranks)
    placer.add(Severity::note, fmt::format("{} of {} ranks are named", run.devices.size(), run.ranks),
               "a line for each; they are taken to stand in order on full hosts, the first of the description",
               "the whole output");
  const bool named = static_cast<int>(run.devices.size()) == run.ranks && !run.devices.front().host.empty();
  if (!placer.find_hosts(named)) return std::nullopt;
  RunPlace out{topology, {}, 0, 0, 0, false, placer.first_hosts_instead()};
  if (const int more = placer.missing_hosts(); more > 0) {
    std::string note;
    try {
      const int each = topology.gpus_per_host(Placer::hosts_with_gpus(topology).back());
      out.topology = resize_hosts(topology, topology.gpu_count() + more * each, &note);
    } catch (const InvalidInput& error) {
      placer.add(Severity::warning, fmt::format("ran on {} hosts", placer.hosts()),
                 fmt::format("as many as are described ({}), or NICs to join more; the run is not compared",
                             topology.host_count()),
                 error.what());
      return std::nullopt;
    }
    placer.add(topology.host_count() > 1 ? Severity::warning : Severity::note,
               fmt::format("ran on {} hosts", placer.hosts()),
               fmt::format("the {} described; taken: {}", topology.host_count(), note),
               "a description of all hosts, with their fabric");
  }
  const auto gpus = placer.find_gpus(out.topology);
  if (!gpus) return std::nullopt;
  std::map<int, std::vector<int>> by_group;
  for (std::size_t i = 0; i < devices.size(); ++i) by_group[devices[i].group].push_back((*gpus)[i]);
  for (auto& [group, members] : by_group) out.groups.push_back(std::move(members));
  out.ranks = static_cast<int>(out.groups.front().size());
  for (const std::vector<int>& group : out.groups)
    if (static_cast<int>(group.size()) != out.ranks) {
      placer.add(Severity::warning, "groups of different sizes", "equal ones; the run is not compared",
                 "NCCL_TESTS_SPLIT");
      return std::nullopt;
    }
  std::set<int> hosts, nodes;
  for (const int gpu : out.groups.front()) {
    hosts.insert(out.topology.host_of(gpu));
    nodes.insert(out.topology.node_of(gpu));
  }
  out.hosts = static_cast<int>(hosts.size()), out.nodes = static_cast<int>(nodes.size());
  out.first_gpus = out.groups.size() == 1;
  for (int i = 0; i < out.ranks && out.first_gpus; ++i)
    out.first_gpus = out.groups[0][static_cast<std::size_t>(i)] == i;
  return out;
}

std::vector<int> place_devices(const MeasuredCopies& run, const Topology& topology, std::vector<Finding>& findings) {
  std::vector<MeasuredDevice> devices = run.devices;
  std::size_t most = devices.size();
  for (const MeasuredMatrix& own : run.matrices) most = std::max(most, own.GBps.front().size());
  for (std::size_t i = devices.size(); i < most; ++i)
    devices.push_back(
        {static_cast<int>(i), 0, devices.empty() ? "" : devices.back().host, static_cast<int>(i), "", ""});
  Placer placer(devices, run.where, topology, findings);
  if (devices.empty() || !placer.find_hosts(!devices.front().host.empty())) return {};
  if (placer.missing_hosts() > 0) {
    placer.add(Severity::warning, fmt::format("ran on {} hosts", placer.hosts()),
               fmt::format("the {} described; pairs are only held against each other", topology.host_count()),
               "a description of all hosts");
    return {};
  }
  return placer.find_gpus(topology).value_or(std::vector<int>{});
}

}  // namespace topomoe
