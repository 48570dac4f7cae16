#include "topology/doctor_host.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>

#include "topology/host_tree.hpp"
#include "topology/names.hpp"

namespace topomoe {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

// The value that more than half have.
template <class T>
std::optional<T> usual(const std::vector<T>& values) {
  for (const T& value : values)
    if (2 * std::count(values.begin(), values.end(), value) > static_cast<std::ptrdiff_t>(values.size())) return value;
  return std::nullopt;
}

class HostDoctor {
 public:
  HostDoctor(const HostTemplate& host, const std::string& where, std::vector<Finding>& findings)
      : host_(host), where_(where), findings_(findings), above_gpus_(host.devices.size()) {
    const HostTree tree(host);
    for (const int gpu : host.gpus)
      for (const int above : tree.way_up(gpu)) above_gpus_[at(above)] = true;
  }

  void run() {
    links_of_gpus();
    one_way_links();
    links_that_end_nowhere();
    slots();
    nics();
    assumed_rates();
  }

 private:
  const HostDevice& device(int index) const { return host_.devices[at(index)]; }
  std::string named(int index) const { return where_ + shown(device(index)); }
  void add(Severity severity, std::string element, std::string seen, std::string expected, std::string check,
           std::string cost = {}) {
    findings_.push_back(
        {severity, std::move(element), std::move(seen), std::move(expected), std::move(cost), std::move(check)});
  }
  std::string make_of(int index) const {
    const HostDevice& own = device(index);
    return fmt::format("{} {} {} {}", name(own.kind), attribute(own.attributes, "class"),
                       attribute(own.attributes, "vendor"), attribute(own.attributes, "device"));
  }
  // What a fault costs: the bound of an all-to-all as the host is, and as it would be.
  std::string cost_against(const std::function<void(HostTemplate&)>& repair) const {
    constexpr std::size_t kMostGpus = 32;  // pairs of more take seconds a finding
    if (host_.gpus.size() > kMostGpus) return {};
    HostTemplate repaired = host_;
    repair(repaired);
    if (now_GBps_ < 0) now_GBps_ = all_to_all_GBps(host_);
    const double now = now_GBps_, then = all_to_all_GBps(repaired);
    if (!(now > 0) || !(then > now * 1.001)) return {};
    return fmt::format("all-to-all inside this host: at most {} of {} GB/s a GPU", short_number(now, 1),
                       short_number(then, 1));
  }

  struct GpuLinks {
    double GBps = 0;
    int count = 0;
    bool counted = true;
    std::string text() const {
      if (GBps == 0) return "no NVLink";
      return counted ? fmt::format("{} links, {} GB/s", count, short_number(GBps, 1))
                     : fmt::format("NVLink of {} GB/s", short_number(GBps, 1));
    }
    bool operator==(const GpuLinks&) const = default;
  };
  GpuLinks out_of(int gpu) const {
    GpuLinks out;
    for (const Link& link : host_.links) {
      if (!joins_gpus(link) || (link.src != gpu && !(link.both_ways && link.dst == gpu))) continue;
      out.GBps += link.GBps_per_direction, out.count += link.count;
      out.counted = out.counted && link.count > 0;
    }
    return out;
  }

  void links_of_gpus() {
    std::vector<GpuLinks> all;
    for (const int gpu : host_.gpus) all.push_back(out_of(gpu));
    double most = 0;
    for (const GpuLinks& own : all) most = std::max(most, own.GBps);
    if (most == 0) return;
    const auto whole = [&](const GpuLinks& own) { return own.GBps > 0.999 * most; };
    const auto like = std::count_if(all.begin(), all.end(), whole);
    const GpuLinks& best = *std::find_if(all.begin(), all.end(), whole);
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (whole(all[i])) continue;
      // Where most GPUs have as few (meshes in which corners have one link less), that is the design.
      const auto as_few =
          std::count_if(all.begin(), all.end(), [&](const GpuLinks& o) { return o.GBps < 1.001 * all[i].GBps; });
      const bool by_design = as_few > 1 && 2 * as_few >= static_cast<std::ptrdiff_t>(all.size()) && all[i].GBps > 0;
      const int gpu = host_.gpus[i];
      add(by_design ? Severity::note : Severity::severe, named(gpu), all[i].text(),
          fmt::format("{}, as {} of the {} GPUs beside it", best.text(), like, all.size()),
          "nvidia-smi nvlink --status -i of this GPU (rocm-smi --showtopo); Xid 74 in the kernel log; was the file "
          "edited?",
          by_design ? std::string() : cost_against([&](HostTemplate& host) {
            for (const Link& link : host.links)
              if (joins_gpus(link) &&
                  (device(link.src).kind == DeviceKind::nvswitch || device(link.dst).kind == DeviceKind::nvswitch)) {
                Link repaired = link;
                (device(link.src).kind == DeviceKind::gpu ? repaired.src : repaired.dst) = gpu;
                std::erase_if(host.links,
                              [&](const Link& own) { return joins_gpus(own) && (own.src == gpu || own.dst == gpu); });
                repaired.GBps_per_direction = most;
                host.links.push_back(repaired);
                return;
              }
          }));
    }
  }

  void one_way_links() {
    for (const Link& link : host_.links) {
      if (!joins_gpus(link) || link.both_ways) continue;
      double back = 0;
      for (const Link& other : host_.links)
        if (joins_gpus(other) && other.src == link.dst && other.dst == link.src) back += other.GBps_per_direction;
      if (back >= link.GBps_per_direction) continue;
      add(Severity::severe, named(link.src) + " -> " + named(link.dst),
          fmt::format("{} GB/s there, {} back", short_number(link.GBps_per_direction, 1), short_number(back, 1)),
          "as many links in both directions: they are the same cables",
          "the NVLinks of both GPUs (nvidia-smi nvlink --status); was the file edited?");
    }
  }

  void links_that_end_nowhere() {
    for (const int gpu : host_.gpus)
      if (const std::string_view count = attribute(device(gpu).attributes, kLinksLeftOut); !count.empty())
        add(Severity::warning, named(gpu), fmt::format("{} links to a device that the file does not have", count),
            "both ends of a link in one file",
            "a GPU that is hidden (CUDA_VISIBLE_DEVICES, a container, a VM) or has fallen off the bus");
  }

  // PCIe, against devices of the same make: what the slot gives.
  void slots() {
    std::map<std::string, std::vector<const Link*>> alike;
    for (const Link& link : host_.links) {
      if (link.kind != LinkKind::pcie || link.source == Source::assumed) continue;
      const HostDevice& own = device(link.src);
      if (own.kind != DeviceKind::gpu && own.kind != DeviceKind::nic && !above_gpus_[at(link.src)]) continue;
      alike[make_of(link.src)].push_back(&link);
    }
    for (const auto& [make, links] : alike) {
      std::vector<double> rates;
      for (const Link* link : links) rates.push_back(link->GBps_per_direction);
      const auto rate = usual(rates);
      if (!rate) continue;
      for (const Link* link : links) {
        if (link->GBps_per_direction > 0.999 * *rate) continue;
        const auto like = std::count_if(rates.begin(), rates.end(), [&](double r) { return r > 0.999 * *rate; });
        add(Severity::severe, named(link->src),
            fmt::format("PCIe at {} GB/s ({})", short_number(link->GBps_per_direction, 1), link->source_note),
            fmt::format("{} GB/s, as {} of {} devices of its make here", short_number(*rate, 1), like, rates.size()),
            "lspci -vv: LnkSta against LnkCap; reseat, or another slot, riser or cable",
            cost_against([&](HostTemplate& host) {
              host.links[static_cast<std::size_t>(link - host_.links.data())].GBps_per_direction = *rate;
            }));
      }
    }
  }

  void nics() {
    if (host_.gpus.empty()) return;
    const Topology alone{.templates = {host_}, .groups = {{0, 1}}};
    const Router router(alone);
    std::vector<PathClass> classes;
    for (std::size_t gpu = 0; gpu < host_.gpus.size(); ++gpu) {
      const int nic = router.nearest_nic(static_cast<int>(gpu));
      classes.push_back(nic < 0 ? PathClass::DIS : router.route_to_nic(static_cast<int>(gpu), nic).path_class);
    }
    const auto most = usual(classes);
    for (std::size_t gpu = 0; most && gpu < classes.size(); ++gpu) {
      if (classes[gpu] <= *most) continue;
      const auto near = std::count_if(classes.begin(), classes.end(), [&](PathClass c) { return c <= *most; });
      // Where fewer NICs than GPUs serve the host, some GPUs are far from them by design.
      const bool own = static_cast<std::ptrdiff_t>(host_.nics.size()) >= near;
      add(own ? Severity::severe : Severity::warning, named(host_.gpus[gpu]),
          fmt::format("nearest NIC by {}{}", name(classes[gpu]),
                      classes[gpu] >= PathClass::SYS ? ": on another NUMA node" : ""),
          fmt::format("{}, as {} of {} GPUs", name(*most), near, classes.size()),
          "the slot of its NIC, or a NIC that is missing (lspci, ibstat)",
          "what it sends takes links that others need");
    }
    // Nets on as many NICs as GPUs is a rail for each.
    std::map<double, int> by_rate;
    for (const Nic& nic : host_.nics)
      if (nic.port.source != Source::unknown) ++by_rate[nic.port.GBps_per_direction];
    for (const auto& [rate, count] : by_rate)
      if (const int gpus = static_cast<int>(host_.gpus.size()); gpus > 2 && count < gpus && 2 * count > gpus)
        add(count + 1 == gpus ? Severity::severe : Severity::warning, where_ + "NICs",
            fmt::format("{} NICs of {} GB/s for {} GPUs", count, short_number(rate, 1), gpus),
            "one for each GPU, or a whole number of GPUs for each: rails of other hosts have no partner here",
            "a NIC or port that is down or missing (lspci, ibstat)",
            fmt::format("traffic between hosts: {} of {} GB/s", short_number(rate * count, 1),
                        short_number(rate * gpus, 1)));
    ports();
    for (const Nic& nic : host_.nics)
      if (nic.name.find('+') != std::string::npos)
        add(Severity::note, where_ + nic.name, "one net made of several ports (NCCL merged them)",
            "a net for each port, unless meant", "NCCL_NET_MERGE_LEVEL");
  }

  // Ports of NICs of one make.
  void ports() {
    std::map<std::string, std::vector<const Nic*>> alike;
    for (const Nic& nic : host_.nics)
      if (nic.port.source == Source::datasheet) alike[make_of(nic.device)].push_back(&nic);
    for (const auto& [make, nics] : alike) {
      std::vector<double> rates;
      for (const Nic* nic : nics) rates.push_back(nic->port.GBps_per_direction);
      const auto rate = usual(rates);
      if (!rate || rates.size() < 4) continue;  // fewer are told apart by what they are for
      for (const Nic* nic : nics)
        if (nic->port.GBps_per_direction < 0.999 * *rate)
          add(Severity::severe, where_ + (nic->name.empty() ? device(nic->device).name : nic->name),
              fmt::format("a port of {} GB/s", short_number(nic->port.GBps_per_direction)),
              fmt::format("{} GB/s, as {} of {} ports of its make here", short_number(*rate),
                          std::count(rates.begin(), rates.end(), *rate), rates.size()),
              "the cable, the transceiver and the switch port (ibstat, mlxlink, ethtool)",
              fmt::format("traffic between hosts on this rail: {} of {} GB/s",
                          short_number(nic->port.GBps_per_direction), short_number(*rate)));
    }
  }

  void assumed_rates() {
    std::map<std::string, int> unknown;
    for (const Link& link : host_.links)
      if (link.source == Source::unknown) ++unknown[name(link.kind)];
    for (const Nic& nic : host_.nics)
      if (nic.port.source == Source::unknown) ++unknown["nic"];
    for (const auto& [kind, count] : unknown)
      add(Severity::note, where_ + kind, fmt::format("the rate of {} links is not known", count),
          "a rate for each link; figures that follow from these are guesses",
          "give them in a cluster.json, or a dump that has them");
    if (host_.nvlink == Presence::unknown && !host_.gpus.empty())
      add(Severity::note, where_ + "nvlink", "the description says nothing of NVLink",
          "a dump of the running machine (NCCL_TOPO_DUMP_FILE)", "bounds inside this host are of PCIe");
  }

  const HostTemplate& host_;
  const std::string& where_;
  std::vector<Finding>& findings_;
  std::vector<bool> above_gpus_;  // by device
  mutable double now_GBps_ = -1;  // all_to_all_GBps of the host as it is; -1: not asked for
};

}  // namespace

double all_to_all_GBps(const HostTemplate& host) {
  const auto gpus = static_cast<int>(host.gpus.size());
  if (gpus < 2) return 0;
  const Topology alone{.templates = {host}, .groups = {{0, 1}}};
  LinkLoads loads{Router(alone)};
  for (int src = 0; src < gpus; ++src)
    for (int dst = 0; dst < gpus; ++dst) {
      if (src == dst) continue;
      if (loads.router().route(src, dst).path_class == PathClass::DIS) return 0;
      loads.add(src, dst, 1e9);
    }
  return (gpus - 1) / loads.bottleneck().seconds;
}

void diagnose_host(const HostTemplate& host, const std::string& where, std::vector<Finding>& findings) {
  HostDoctor(host, where, findings).run();
}

}  // namespace topomoe
