// Hosts and a fabric -> nodes and links: GPUs first, then NVSwitches, leaves, spines by plane and pod, and cores by
// plane.
#include <fmt/format.h>

#include <iterator>

#include "topology/names.hpp"
#include "topology/read/simai_network.hpp"
#include "topology/router_state.hpp"
#include "topomoe/error.hpp"
#include "topomoe/export.hpp"

namespace topomoe {
namespace {

[[noreturn]] void fail(const std::string& field, const std::string& value, const std::string& hint) {
  throw InvalidInput("SimAI: " + field, value, hint);
}

std::size_t sized(int index) { return static_cast<std::size_t>(index); }

// ns-3 reads no exponents.
std::string fixed(double value) {
  std::string text = fmt::format("{:.12f}", value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

class SimaiWriter {
 public:
  explicit SimaiWriter(const Topology& topology)
      : topology_(topology), router_(topology), state_(router_.state()), has_gpus_(topology.gpu_count() > 0) {}

  std::string run() {
    if (has_gpus_) check_gpus();
    ends_ = has_gpus_ ? topology_.gpu_count() : topology_.host_count();
    next_ = ends_;
    if (has_gpus_ && topology_.gpus_per_node() > 1) add_nvlinks();
    if (topology_.fabric && topology_.fabric->kind == FabricKind::torus)
      add_torus(*topology_.fabric);
    else if (topology_.fabric)
      add_tree(*topology_.fabric);
    return text();
  }

 private:
  void link(int a, int b, double GBps, double us) {
    if (!(GBps > 0)) return;  // dead
    if (++links_ > SimaiNetwork::kMostLinks)
      fail("links", fmt::format("more than {}", SimaiNetwork::kMostLinks), "take fewer hosts");
    fmt::format_to(std::back_inserter(lines_), "{} {} {}Gbps {}ms 0\n", a, b, fixed(GBps * 8), fixed(us / 1000));
  }

  // Hosts of one number of GPUs; each GPU with ports of its own.
  void check_gpus() const {
    const int gpus = topology_.gpus_per_host(0);
    for (const HostGroup& group : topology_.groups) {
      const auto index = sized(group.template_index);
      const HostTemplate& host = topology_.templates[index];
      if (static_cast<int>(host.gpus.size()) != gpus)
        fail(host.name, fmt::format("{} GPUs, and others have {}", host.gpus.size(), gpus),
             "the first line has one number of GPUs for all servers");
      std::vector<int> owner(host.nics.size(), -1);
      for (int gpu = 0; gpu < gpus; ++gpu)
        for (const int nic : state_.paths[index].own_nics[sized(gpu)]) {
          if (owner[sized(nic)] >= 0 && topology_.fabric)
            fail(host.name,
                 fmt::format("{} is shared by gpu{} and gpu{}", host.nics[sized(nic)].name, owner[sized(nic)], gpu),
                 "in SimAI each GPU has ports of its own");
          owner[sized(nic)] = gpu;
        }
    }
  }

  // What GPU `gpu` of a host sends to the host's NVSwitches, all together.
  static Rate plane_rate(const HostTemplate& host, std::size_t gpu) {
    Rate rate;
    const auto add = [&](int src, int dst, const Link& own) {
      if (src != host.gpus[gpu]) return;
      const DeviceKind other = host.devices[sized(dst)].kind;
      if (other == DeviceKind::gpu) fail(host.name, "NVLinks from GPU to GPU", "SimAI knows NVSwitches only");
      if (other != DeviceKind::nvswitch) return;
      rate.GBps_per_direction += own.GBps_per_direction;
      rate.latency_us = std::max(rate.latency_us, own.latency_us);
    };
    for (const Link& own : host.links) {
      if (own.kind != LinkKind::nvlink && own.kind != LinkKind::xgmi) continue;
      add(own.src, own.dst, own);
      if (own.both_ways) add(own.dst, own.src, own);
    }
    if (!(rate.GBps_per_direction > 0))
      fail(host.name, fmt::format("gpu{} on no NVSwitch, NVLink {}", gpu, name(host.nvlink)),
           "in SimAI the GPUs of a server meet in an NVSwitch; paths over PCIe have no place in it");
    return rate;
  }

  void add_nvlinks() {
    nvswitches_ = (topology_.host_count() + topology_.hosts_per_domain - 1) / topology_.hosts_per_domain;
    std::vector<std::vector<Rate>> rates(topology_.templates.size());
    int gpu = 0;
    for (int host = 0; host < topology_.host_count(); ++host) {
      const HostTemplate& own = topology_.host_template(host);
      auto& known = rates[sized(static_cast<int>(&own - topology_.templates.data()))];
      for (std::size_t i = known.size(); i < own.gpus.size(); ++i) known.push_back(plane_rate(own, i));
      for (const Rate& rate : known)
        link(gpu++, next_ + host / topology_.hosts_per_domain, rate.GBps_per_direction, rate.latency_us);
    }
    next_ += nvswitches_;
  }

  void add_tree(const Fabric& fabric) {
    const FabricMap& map = state_.fabric;
    if (map.top == FabricMap::Top::mesh)
      fail("fabric", "dragonfly_plus", "a fat tree (rail-optimised or not) or a torus; others are not written");
    const int leaves = topology_.leaf_count();
    std::vector<int> leaf_node(sized(leaves), -1);  // leaves without a port are not written
    for (int host = 0; host < topology_.host_count(); ++host)
      for (const Nic& nic : topology_.host_template(host).nics) leaf_node[sized(map.leaf_of(host, nic.rail))] = 0;
    for (int& node : leaf_node)
      if (node == 0) node = next_++;
    add_ports(map, leaf_node);
    if (map.top == FabricMap::Top::none) return;
    const int spines = fabric.spine_count, cores = map.top == FabricMap::Top::core ? fabric.core_count : 0;
    const int first_spine = next_;
    const auto spine = [&](int pod, int plane, int i) { return first_spine + (pod * map.planes + plane) * spines + i; };
    next_ += map.pods * map.planes * spines;
    for (int leaf = 0; leaf < leaves; ++leaf) {
      if (leaf_node[sized(leaf)] < 0) continue;
      const LinkInfo up = router_.link(map.leaf_up(leaf));
      const int pod = map.pod_of_unit(leaf / map.ranks), plane = leaf % map.ranks % map.planes;
      for (int i = 0; i < spines; ++i)
        link(leaf_node[sized(leaf)], spine(pod, plane, i), up.GBps_per_direction / spines, up.latency_us);
    }
    if (cores == 0) return;
    for (int pod = 0; pod < map.pods; ++pod)
      for (int plane = 0; plane < map.planes; ++plane) {
        const LinkInfo up = router_.link(map.pod_up(pod, plane));
        for (int i = 0; i < spines; ++i)
          for (int core = 0; core < cores; ++core)
            link(spine(pod, plane, i), next_ + plane * cores + core, up.GBps_per_direction / spines / cores,
                 up.latency_us);
      }
    next_ += map.planes * cores;
  }

  void add_ports(const FabricMap& map, const std::vector<int>& leaf_node) {
    int gpu = 0;
    for (int host = 0; host < topology_.host_count(); ++host) {
      const HostTemplate& own = topology_.host_template(host);
      const auto port = [&](int end, const Nic& nic) {
        link(end, leaf_node[sized(map.leaf_of(host, nic.rail))], nic.port.GBps_per_direction, nic.port.latency_us);
      };
      if (!has_gpus_)
        for (const Nic& nic : own.nics) port(host, nic);
      const HostPaths& paths = state_.paths[sized(static_cast<int>(&own - topology_.templates.data()))];
      for (const auto& nics : paths.own_nics) {
        for (const int nic : nics) port(gpu, own.nics[sized(nic)]);
        ++gpu;
      }
    }
  }

  void add_torus(const Fabric& fabric) {
    if (has_gpus_ && topology_.gpus_per_host(0) > 1)
      fail("fabric", "a torus of hosts with several GPUs", "in SimAI rings join GPUs: hosts of one");
    const FabricMap& map = state_.fabric;
    for (int host = 0, stride = 1; host < topology_.host_count(); ++host, stride = 1)
      for (int dim = 0; dim < static_cast<int>(fabric.dims.size()); ++dim) {
        const int size = fabric.dims[sized(dim)], place = host / stride % size;
        if (size > 2 || place == 0)
          link(host, host + ((place + 1) % size - place) * stride,
               router_.link(map.ring(host, dim, 0)).GBps_per_direction, fabric.ring.latency_us);
        stride *= size;
      }
  }

  // One word, as SimAI names them: "NVIDIA H100 80GB HBM3" is "H100".
  std::string gpu_type() const {
    const std::string& full = topology_.gpu_spec(0).name;
    std::string word;
    for (std::size_t at = 0; at <= full.size(); ++at) {
      const char c = at < full.size() ? full[at] : ' ';
      if (c > ' ' && c < 0x7f) {
        word += c;
        continue;
      }
      if (at == full.size() && word.size() == full.size() && !word.empty()) return word;
      if (word.size() >= 2 && word.size() <= 5 && std::string_view("ABHLVP").find(word[0]) != std::string_view::npos &&
          std::string_view("0123456789").find(word[1]) != std::string_view::npos)
        return word;
      word.clear();
    }
    return "unknown";
  }

  std::string text() const {
    const int switches = next_ - ends_ - nvswitches_;
    std::string out = has_gpus_ ? fmt::format("{} {} {} {} {} {}\n", next_, topology_.gpus_per_host(0), nvswitches_,
                                              switches, links_, gpu_type())
                                : fmt::format("{} {} {}\n", next_, switches, links_);
    for (int node = ends_; node < next_; ++node) fmt::format_to(std::back_inserter(out), "{} ", node);
    if (out.back() == ' ') out.back() = '\n';
    return out + lines_;
  }

  const Topology& topology_;
  const Router router_;
  const Router::State& state_;
  const bool has_gpus_;
  int ends_ = 0, next_ = 0, nvswitches_ = 0, links_ = 0;
  std::string lines_;
};

}  // namespace

std::string write_simai(const Topology& topology) { return SimaiWriter(topology).run(); }

}  // namespace topomoe
