// `nvidia-smi topo -m` -> the smallest host whose paths have the classes of the matrix.
//
// Model: PIX, one switch that both share; PXB, a second switch between; PHB and NODE, one CPU (host bridges of one CPU
// are not told apart); SYS, two CPUs. NVLinks are direct where a GPU can have that many, else to one NVSwitch plane.
// PCIe: of the generation that GPUs with so many NVLinks came with, 16 lanes.
// Ignored: every other rate (the matrix has none), and PCIe paths that NVLink hides in it: those GPUs are taken as
// apart.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "topology/read/nvidia_smi.hpp"
#include "topology/read/readers.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// NVLinks of one GPU: 18 of H100, B200 and their kin, less before (datasheets).
constexpr int kMostLinks = 18;

// A slot of 16 lanes: with 18 NVLinks Gen5 (H100 and later), with 12 at least Gen4 (A100, pairs of H100 PCIe), else at
// least Gen3 (V100). Datasheets.
Rate slot_rate(const SmiMatrix& matrix) {
  int links = 0;
  for (std::size_t a = 0; a < matrix.devices.size(); ++a)
    for (std::size_t b = 0; b < matrix.devices.size(); ++b)
      if (const SmiCell& cell = matrix.at(a, b); cell.what == SmiClass::nvlink) links = std::max(links, cell.links);
  if (links >= 18)
    return {64, 0.5, Source::assumed, fmt::format("PCIe Gen5 x16: {} NVLinks are Hopper's or later", links)};
  if (links >= 12)
    return {32, 0.5, Source::assumed, fmt::format("PCIe Gen4 x16: {} NVLinks are Ampere's or later", links)};
  return {16, 0.5, Source::assumed, "PCIe Gen3 x16; nvidia-smi topo -m gives no rates"};
}

// How far apart: 1 one bridge, 2 several, 3 one CPU, 4 two; 0: not said.
int distance(const SmiCell& cell) {
  switch (cell.what) {
    case SmiClass::pix: return 1;
    case SmiClass::pxb: return 2;
    case SmiClass::phb:
    case SmiClass::node: return 3;
    case SmiClass::sys: return 4;
    default: return 0;
  }
}

// Which of the devices are one, by the least of each set.
class Sets {
 public:
  explicit Sets(std::size_t count) : least_(count) { std::iota(least_.begin(), least_.end(), std::size_t{0}); }
  std::size_t of(std::size_t i) const {
    while (least_[i] != i) i = least_[i];
    return i;
  }
  void join(std::size_t a, std::size_t b) {
    a = of(a), b = of(b);
    least_[std::max(a, b)] = std::min(a, b);
  }

 private:
  std::vector<std::size_t> least_;
};

class HostReader {
 public:
  HostReader(const SmiMatrix& matrix, const std::string& where, std::vector<std::string>& warnings)
      : matrix_(matrix), where_(where), warnings_(warnings), pcie_(slot_rate(matrix)), count_(matrix.devices.size()) {}

  HostTemplate run(const std::string& name) {
    host_.name = name;
    group();
    join_cpus();
    add_devices();
    add_pcie();
    add_nvlink();
    return std::move(host_);
  }

 private:
  void warn(const std::string& line) { warnings_.push_back(host_.name + ": " + line); }
  const SmiDevice& device(std::size_t i) const { return matrix_.devices[i]; }
  std::string pair_name(std::size_t a, std::size_t b) const {
    return device(a).column + "-" + device(b).column + " " + smi_word(matrix_.at(a, b));
  }

  // All that is nearer than a distance is a tree only if nearness is passed on.
  void group() {
    std::string conflict = group_by(true);
    if (conflict.empty()) return;
    const std::string among_nics = group_by(false);
    if (!among_nics.empty())
      throw InvalidInput(where_ + ": classes", among_nics, "no tree of PCIe bridges does that; was the matrix edited?");
    warn("paths between NICs fit no tree of PCIe bridges and are left out (" + conflict + ")");
  }

  std::string group_by(bool nics_too) {
    sets_.assign(4, Sets(count_));
    const auto asked = [&](std::size_t a, std::size_t b) { return nics_too || device(a).gpu || device(b).gpu; };
    for (std::size_t a = 0; a < count_; ++a)
      for (std::size_t b = a + 1; b < count_; ++b)
        if (const int apart = distance(matrix_.at(a, b)); apart > 0 && asked(a, b))
          for (int reach = apart; reach <= 3; ++reach) sets_[static_cast<std::size_t>(reach)].join(a, b);
    for (int reach = 1; reach <= 3; ++reach)
      for (std::size_t a = 0; a < count_; ++a)
        for (std::size_t b = a + 1; b < count_; ++b) {
          const Sets& sets = sets_[static_cast<std::size_t>(reach)];
          if (distance(matrix_.at(a, b)) > reach && asked(a, b) && sets.of(a) == sets.of(b))
            return why(a, b, reach, asked);
        }
    return "";
  }

  // The shortest chain of nearer pairs from a to b, which are not near.
  template <class Asked>
  std::string why(std::size_t a, std::size_t b, int reach, Asked asked) const {
    std::vector<std::size_t> from(count_, count_), queue{a};
    from[a] = a;
    for (std::size_t next = 0; next < queue.size() && from[b] == count_; ++next)
      for (std::size_t to = 0; to < count_; ++to) {
        const int apart = distance(matrix_.at(queue[next], to));
        if (from[to] < count_ || apart == 0 || apart > reach || !asked(queue[next], to)) continue;
        from[to] = queue[next];
        queue.push_back(to);
      }
    std::string chain;
    for (std::size_t at = b; at != a; at = from[at])
      chain = pair_name(from[at], at) + (chain.empty() ? "" : ", ") + chain;
    return chain + ", yet " + pair_name(a, b);
  }

  std::string affinity(std::size_t i) const {
    return !device(i).numa_affinity.empty() ? "NUMA " + device(i).numa_affinity
           : device(i).cpu_affinity.empty() ? ""
                                            : "CPUs " + device(i).cpu_affinity;
  }

  // NVLink hides the PCIe path: the affinity tells which of those GPUs share a CPU, unless the matrix speaks against
  // it.
  void join_cpus() {
    Sets& cpus = sets_[3];
    const auto apart = [&](std::size_t a, std::size_t b) {
      for (std::size_t i = 0; i < count_; ++i)
        for (std::size_t j = 0; j < count_; ++j)
          if (cpus.of(i) == cpus.of(a) && cpus.of(j) == cpus.of(b) && distance(matrix_.at(i, j)) == 4) return true;
      return false;
    };
    const auto join_if = [&](auto wanted, const char* otherwise) {
      for (std::size_t a = 0; a < count_; ++a)
        for (std::size_t b = a + 1; b < count_; ++b) {
          if (cpus.of(a) == cpus.of(b) || !wanted(a, b)) continue;
          if (!apart(a, b))
            cpus.join(a, b);
          else if (otherwise != nullptr && distance(matrix_.at(a, b)) == 4 && said_.insert(affinity(a)).second)
            warn(fmt::format("{} and {} have one affinity ({}), {}", device(a).column, device(b).column, affinity(a),
                             otherwise));
        }
    };
    join_if([&](std::size_t a, std::size_t b) { return !affinity(a).empty() && affinity(a) == affinity(b); },
            "yet SYS between them: taken as two CPUs");
    bool unknown = false;
    join_if(
        [&](std::size_t a, std::size_t b) {
          const bool wanted = device(a).gpu && device(b).gpu && (affinity(a).empty() || affinity(b).empty()) &&
                              distance(matrix_.at(a, b)) == 0 && !apart(a, b);
          unknown = unknown || wanted;
          return wanted;
        },
        nullptr);
    if (unknown) warn("neither path nor affinity tells which CPU some GPUs hang on; taken as one");
  }

  int add(DeviceKind kind, std::string name, int numa) {
    host_.devices.push_back({kind, std::move(name), "", numa, {}});
    return static_cast<int>(host_.devices.size()) - 1;
  }
  void join(int src, int dst, LinkKind kind, const Rate& rate, int count = 0) {
    host_.links.push_back(
        {src, dst, kind, rate.GBps_per_direction, rate.latency_us, rate.source, rate.source_note, true, count});
  }

  void add_devices() {
    cpu_.assign(count_, 0);
    int cpus = 0;
    for (std::size_t i = 0; i < count_; ++i) {
      if (sets_[3].of(i) == i) cpu_[i] = add(DeviceKind::numa, fmt::format("numa{}", cpus), cpus), ++cpus;
      cpu_[i] = cpu_[sets_[3].of(i)];
    }
    for (int a = 0; a < cpus; ++a)
      for (int b = a + 1; b < cpus; ++b)
        join(a, b, LinkKind::cpu_interconnect, {40, 0.3, Source::assumed, "CPU not known to nvidia-smi"});
    for (const bool gpus : {true, false})
      for (std::size_t i = 0; i < count_; ++i)
        if (device(i).gpu == gpus) add_device(i);
    host_.gpu.name = "GPU, type not in the matrix";
    host_.gpu.source_note = "nvidia-smi topo -m does not name the GPU; give \"gpu\" in a cluster JSON";
  }

  void add_device(std::size_t i) {
    const SmiDevice& own = device(i);
    place_.resize(count_);
    if (own.gpu) {
      place_[i] = add(DeviceKind::gpu, fmt::format("gpu{}", host_.gpus.size()), cpu_[i]);
      host_.gpus.push_back(place_[i]);
    } else {
      place_[i] = add(DeviceKind::nic, fmt::format("nic{}", host_.nics.size()), -1);
      host_.nics.push_back({place_[i],
                            static_cast<int>(host_.nics.size()),
                            own.os_name.empty() ? own.column : own.os_name,
                            {pcie_.GBps_per_direction, 1, Source::unknown,
                             "port speed not in the matrix; that of its slot taken: " + pcie_.source_note},
                            {}});
    }
    std::vector<Attribute>& attributes = host_.devices.back().attributes;
    attributes.push_back({"column", own.column});
    if (own.has_row) attributes.push_back({"topo", own.row});
    if (!own.cpu_affinity.empty()) attributes.push_back({"cpu_affinity", own.cpu_affinity});
    if (!own.numa_affinity.empty()) attributes.push_back({"numa_affinity", own.numa_affinity});
  }

  int add_switch(std::size_t below, int above) {
    const int own = add(DeviceKind::pci_switch, fmt::format("pci_switch{}", switches_++), cpu_[below]);
    join(own, above, LinkKind::pcie, pcie_);
    return own;
  }

  void add_pcie() {
    std::vector<std::size_t> members(count_), trees(count_);  // of a shared switch; shared switches of a tree
    for (std::size_t i = 0; i < count_; ++i) {
      ++members[sets_[1].of(i)];
      if (sets_[1].of(i) == i) ++trees[sets_[2].of(i)];
    }
    std::vector<int> top(count_, -1), shared(count_, -1);
    for (std::size_t i = 0; i < count_; ++i) {
      const std::size_t own = sets_[1].of(i), tree = sets_[2].of(i);
      if (own == i) {
        // The first set of a tree hangs on its top switch, each other on one of its own below.
        if (trees[tree] > 1 && i == tree)
          shared[i] = top[i] = add_switch(i, cpu_[i]);
        else if (trees[tree] > 1)
          shared[i] = add_switch(i, top[tree]);
        else
          shared[i] = members[i] > 1 ? add_switch(i, cpu_[i]) : cpu_[i];
      }
      join(place_[i], shared[own], LinkKind::pcie, pcie_);
    }
  }

  void add_nvlink() {
    Sets islands(count_);
    std::vector<int> most(count_), sum(count_);
    bool any = false;
    for (std::size_t a = 0; a < count_; ++a)
      for (std::size_t b = 0; b < count_; ++b) {
        const SmiCell& cell = matrix_.at(a, b);
        if (cell.what != SmiClass::nvlink) continue;
        if (!device(a).gpu || !device(b).gpu)
          throw InvalidInput(where_ + ": classes", pair_name(a, b), "NVLink joins GPUs; has a column moved?");
        any = true;
        islands.join(a, b);
        most[a] = std::max(most[a], cell.links);
        sum[a] += cell.links;
      }
    if (any)
      host_.nvlink = Presence::present;
    else if (host_.gpus.size() > 1)
      host_.nvlink = Presence::absent;
    for (std::size_t first = 0; first < count_; ++first) {
      if (islands.of(first) != first || most[first] == 0) continue;
      std::vector<std::size_t> island;
      for (std::size_t i = first; i < count_; ++i)
        if (islands.of(i) == first) island.push_back(i);
      const bool plane = std::any_of(island.begin(), island.end(), [&](std::size_t i) { return sum[i] > kMostLinks; });
      if (plane)
        add_plane(island, most);
      else
        add_pairs(island);
    }
  }

  static Rate nvlink(int links) {
    return {
        25.0 * links, 0.3, Source::assumed,
        fmt::format("{} x 25 GB/s, NVLink of V100 to H100; the matrix does not name the generation (B200: 50)", links)};
  }

  // The counts of a pair cannot all be cables of its own: they are those of each GPU to the switches.
  void add_plane(const std::vector<std::size_t>& island, const std::vector<int>& most) {
    for (const std::size_t a : island)
      for (const std::size_t b : island)
        if (a < b && matrix_.at(a, b).links != std::min(most[a], most[b]))
          throw InvalidInput(
              where_ + ": " + pair_name(a, b),
              fmt::format("{} has NV{} elsewhere and {} NV{}", device(a).column, most[a], device(b).column, most[b]),
              fmt::format("more than {} NVLinks of one GPU lead to switches, which join all alike; was the "
                          "matrix edited?",
                          kMostLinks));
    const int plane = add(DeviceKind::nvswitch, planes_ == 0 ? "nvswitch" : fmt::format("nvswitch{}", planes_), -1);
    ++planes_;
    for (const std::size_t i : island) join(place_[i], plane, LinkKind::nvlink, nvlink(most[i]), most[i]);
    warn(fmt::format("NVSwitch follows from the counts ({} and {} others by NV{} each): no GPU has more than {} links",
                     device(island.front()).column, island.size() - 1, most[island.front()], kMostLinks));
  }

  void add_pairs(const std::vector<std::size_t>& island) {
    for (const std::size_t a : island)
      for (const std::size_t b : island)
        if (const int links = matrix_.at(a, b).links; a < b && links > 0)
          join(place_[a], place_[b], LinkKind::nvlink, nvlink(links), links);
    if (island.size() == 2 && matrix_.at(island[0], island[1]).links > 6)
      warn(pair_name(island[0], island[1]) + ": cables or a switch, the matrix does not tell; taken as cables");
  }

  const SmiMatrix& matrix_;
  const std::string& where_;
  std::vector<std::string>& warnings_;
  const Rate pcie_;
  std::size_t count_;
  HostTemplate host_;
  std::vector<Sets> sets_;        // [1] one bridge, [2] bridges, [3] one CPU
  std::vector<int> cpu_, place_;  // devices of the host
  std::set<std::string> said_;
  int switches_ = 0, planes_ = 0;
};

}  // namespace

Topology read_nvidia_smi(std::string_view text, const std::string& where) {
  const SmiMatrix matrix = parse_nvidia_smi(text, where);
  Topology topology;
  topology.name = stem_of_file(where);
  topology.source = where;
  std::vector<std::string> warnings;
  topology.templates.push_back(HostReader(matrix, where, warnings).run(topology.name));
  topology.groups.push_back({0, 1});
  for (const SmiDevice& device : matrix.devices)
    if (!device.has_row)
      add_warning(topology, "no row for " + device.column + ": its paths to other NICs are not known");
  for (const std::string& line : warnings) add_warning(topology, line);
  require_valid(topology, where);
  for (const std::string& line : warnings_from_sources(topology)) add_warning(topology, line);
  return topology;
}

}  // namespace topomoe
