// What can be counted, by bus id, and the closest NIC of each GPU by where both hang: comparable with any other reader.
//
// The class of a path is NCCL's: bridges between GPU and NIC, PIX for one, PXB for several; PHB through one CPU, SYS
// between CPUs. Bridges are those of the description, before NCCL flattens some of them.
#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "topology/host_tree.hpp"
#include "topology/known_rates.hpp"
#include "topology/names.hpp"
#include "topology/read/json_fields.hpp"
#include "topomoe/topology.hpp"

namespace topomoe {
namespace {

using Json = nlohmann::ordered_json;

int number(std::string_view text) {
  int value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// An object of JSON in the order in which its keys come. Json's own looks at all keys before it adds one.
class Entries {
 public:
  Json& operator[](const std::string& key) {
    const auto [at, is_new] = index_.emplace(key, entries_.size());
    if (is_new) entries_.push_back({key, Json()});
    return (entries_.begin() + static_cast<std::ptrdiff_t>(at->second))->second;
  }
  Json take() { return std::move(entries_); }

 private:
  Json::object_t entries_;
  std::unordered_map<std::string, std::size_t> index_;
};
using Facts = std::map<std::string, Entries>;  // by key of the result, each by bus id

class HostFacts {
 public:
  HostFacts(const HostTemplate& host, std::string prefix) : host_(host), tree_(host), prefix_(std::move(prefix)) {
    for (std::size_t i = 0; i < host.devices.size(); ++i)
      if (host.devices[i].kind == DeviceKind::nic && host.devices[i].bus_id.empty()) ++unplaced_[host.devices[i].numa];
  }

  void add(Facts& facts) const {
    count_links(facts);
    for (const int gpu : host_.gpus) facts["closest_nic"][id(gpu)] = closest(gpu);
  }

  // Whether what the links are made of is known.
  bool counted() const {
    return std::all_of(host_.links.begin(), host_.links.end(),
                       [](const Link& link) { return !joins_gpus(link) || link.count > 0; });
  }
  // NVLink's rates are of NVIDIA's GPUs.
  bool other_makers() const {
    return std::any_of(host_.gpus.begin(), host_.gpus.end(), [&](int gpu) {
      const std::vector<Attribute>& own = device(gpu).attributes;
      return !attribute(own, "gpu.gcn").empty() || attribute(own, "vendor") == "0x1002";
    });
  }
  int nets() const {
    return static_cast<int>(std::count_if(host_.nics.begin(), host_.nics.end(),
                                          [](const Nic& nic) { return !nic.name.empty() || !nic.attributes.empty(); }));
  }

 private:
  static std::size_t at(int index) { return static_cast<std::size_t>(index); }
  const HostDevice& device(int index) const { return host_.devices[at(index)]; }
  std::string id(int index) const {
    return prefix_ + (device(index).bus_id.empty() ? device(index).name : device(index).bus_id);
  }

  void count_links(Facts& facts) const {
    std::map<int, std::int64_t> all, to_switch;
    const auto add_way = [&](const Link& link, int src, int dst) {
      if (device(src).kind != DeviceKind::gpu) return;
      all[src] += link.count;
      if (device(dst).kind == DeviceKind::nvswitch) to_switch[src] += link.count;
      if (device(dst).kind != DeviceKind::gpu) return;
      Json& pair = facts["gpu_pair_links"][id(src) + "->" + id(dst)];
      pair = link.count + (pair.is_null() ? 0 : pair.get<std::int64_t>());
    };
    for (const Link& link : host_.links) {
      if (!joins_gpus(link)) continue;
      add_way(link, link.src, link.dst);
      if (link.both_ways) add_way(link, link.dst, link.src);
    }
    for (const int gpu : host_.gpus) {
      const std::vector<Attribute>& own = device(gpu).attributes;
      const std::int64_t count = all[gpu] + number(attribute(own, kLinksLeftOut));
      if (count == 0) continue;
      facts["links_per_gpu"][id(gpu)] = count;
      if (to_switch[gpu] > 0) facts["links_to_switch"][id(gpu)] = to_switch[gpu];
      const double each = nccl_nvlink_GBps(number(attribute(own, "gpu.sm")));
      if (each > 0) facts["nccl_nvlink_GBps"][id(gpu)] = json_number(static_cast<double>(count) * each);
    }
  }

  PathClass path(int gpu, int nic) const {
    const std::vector<int> a = tree_.way_up(gpu), b = tree_.way_up(nic);
    for (std::size_t i = 0; i < a.size(); ++i) {
      const auto met = std::find(b.begin(), b.end(), a[i]);
      if (met == b.end()) continue;
      const int link = tree_.parent_link[at(a[i])];
      const bool is_cpu =
          device(a[i]).kind == DeviceKind::numa || (link >= 0 && host_.links[at(link)].kind == LinkKind::cpu_root);
      if (is_cpu) return PathClass::PHB;
      return i + static_cast<std::size_t>(met - b.begin()) == 0 ? PathClass::PIX : PathClass::PXB;
    }
    return PathClass::SYS;
  }
  // A NIC whose PCI place is not known is that of its CPU, where it is the only one.
  std::string name_of_nic(int index) const {
    const HostDevice& own = device(index);
    const bool of_cpu = own.bus_id.empty() && own.numa >= 0 && unplaced_.at(own.numa) == 1;
    return of_cpu ? prefix_ + "cpu" + std::to_string(own.numa) : id(index);
  }
  Json closest(int gpu) const {
    std::optional<PathClass> best;
    std::vector<std::string> names;
    for (std::size_t nic = 0; nic < host_.devices.size(); ++nic) {
      if (host_.devices[nic].kind != DeviceKind::nic) continue;
      const auto index = static_cast<int>(nic);
      const PathClass own = path(gpu, index);
      if (best && own > *best) continue;
      if (!best || own < *best) names.clear();
      best = own;
      names.push_back(name_of_nic(index));
    }
    if (!best) return nullptr;
    Json out;
    out["type"] = name(*best);
    out["nics"] = names;
    return out;
  }

  const HostTemplate& host_;
  HostTree tree_;
  std::string prefix_;
  std::map<int, int> unplaced_;  // NICs without a bus id, by NUMA node
};

int devices_of(const HostTemplate& host, DeviceKind kind) {
  return static_cast<int>(std::count_if(host.devices.begin(), host.devices.end(),
                                        [&](const HostDevice& device) { return device.kind == kind; }));
}

}  // namespace

std::string facts_json(const Topology& topology) {
  Facts by_id;
  int numa = 0, nets = 0;
  bool nvswitch = false, counted = true, other_makers = false;
  const int hosts = topology.host_count();
  int host = 0;
  for (const HostGroup& group : topology.groups)
    for (int i = 0; i < group.count; ++i, ++host) {
      const HostTemplate& own = topology.templates[static_cast<std::size_t>(group.template_index)];
      const HostFacts of(own, hosts == 1 ? "" : "host" + std::to_string(host) + "/");
      numa += devices_of(own, DeviceKind::numa);
      nets += of.nets();
      nvswitch = nvswitch || devices_of(own, DeviceKind::nvswitch) > 0;
      counted = counted && of.counted();
      other_makers = other_makers || of.other_makers();
      of.add(by_id);
    }
  std::vector<std::string> warnings = topology.warnings;
  if (!counted) warnings.push_back("the source gives rates of NVLink and not how many links they are: counts are null");

  Json facts;
  facts["n_hosts"] = hosts;
  facts["n_numa"] = numa;
  facts["n_gpu"] = topology.gpu_count();
  facts["n_net"] = nets;
  for (const char* key : {"links_per_gpu", "gpu_pair_links", "links_to_switch"})
    facts[key] = counted ? by_id[key].take() : Json();
  facts["nvswitch"] = nvswitch;
  facts["nccl_nvlink_GBps"] = counted && !other_makers ? by_id["nccl_nvlink_GBps"].take() : Json();
  facts["closest_nic"] = by_id["closest_nic"].take();
  facts["warnings"] = warnings;
  return facts.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace topomoe
