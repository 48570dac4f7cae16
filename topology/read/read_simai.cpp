// SimAI's and ns-3's nodes and links -> hosts and a fabric.
//
// GPUs that share NVSwitches are a host (or, where the first line has fewer to a server, a scale-up domain of such
// hosts); a GPU's links to switches are its ports; switches are sorted into leaves, spines and cores as those of an
// InfiniBand subnet are. Of ns-3 the ends are hosts of which nothing more is known. Ends that are joined to each other
// and to nothing else are a torus, or refused.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "topology/fabric.hpp"
#include "topology/names.hpp"
#include "topology/read/ib_graph.hpp"
#include "topology/read/readers.hpp"
#include "topology/read/simai_network.hpp"
#include "topology/read/simai_switches.hpp"
#include "topology/read/simulated_host.hpp"
#include "topology/read/torus_shape.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr std::size_t kMostEnds = 512, kMostPorts = 4096;  // what a host may have: check.cpp

std::size_t sized(int index) { return static_cast<std::size_t>(index); }

class SimaiReader {
 public:
  SimaiReader(SimaiNetwork network, const std::string& where)
      : network_(std::move(network)),
        where_(where),
        note_(network_.has_gpus ? "SimAI topology file" : "ns-3 topology file") {}

  Topology run() {
    if (!network_.has_gpus) take_islands_as_nvswitches(network_);
    sort_links();
    find_hosts();
    const bool any_port = std::any_of(hosts_.begin(), hosts_.end(), [](const Host& own) { return !own.ports.empty(); });
    if (!direct_.empty())
      build_torus();
    else if (any_port)
      build_tree();
    else
      build_alone();
    topology_.name = stem_of_file(where_);
    topology_.source = where_;
    if (domain_ > 1) {
      if (!topology_.host_names.empty())
        fail("scale-up domains whose hosts are not below neighbouring leaves", "hosts of a domain follow each other");
      topology_.hosts_per_domain = domain_;
    }
    update_oversubscription(topology_);
    require_valid(topology_, where_);
    for (const std::string& line : network_.warnings) warn(line);
    if (const int said = gpus_in_name(topology_.name); network_.has_gpus && said > 0 && said != topology_.gpu_count())
      warn(fmt::format("the file's name says {} GPUs, there are {}", said, topology_.gpu_count()));
    if (!network_.has_gpus)
      warn("hosts: GPUs are not in such a file (ASTRA-sim takes each host as one NPU)");
    else
      warn("PCIe and NUMA nodes are not in such a file");
    for (const std::string& line : warnings_from_sources(topology_)) warn(line);
    return std::move(topology_);
  }

 private:
  using Kind = SimaiNetwork::Kind;
  struct Port {
    int end, network_switch;
    Rate rate;
  };
  struct Host {
    std::vector<int> ends;    // GPUs, or the host itself
    std::vector<Port> ports;  // in the order of ends
    std::vector<int> leaves;  // in the order of ports, each once
  };
  struct NvLink {
    Rate rate;  // all together
    int count = 0;
    std::set<int> nvswitches;
  };

  [[noreturn]] void fail(const std::string& found, const std::string& hint) const {
    throw InvalidInput(where_, found, hint);
  }
  [[noreturn]] void fail(const SimaiNetwork::Link& at, const std::string& found, const std::string& hint) const {
    throw InvalidInput(fmt::format("{}: line {}", where_, at.line), found, hint);
  }
  void warn(const std::string& line) { add_warning(topology_, line); }
  Rate rate(double GBps, double us) const { return {GBps, us, Source::assumed, note_}; }
  Kind kind(int node) const { return network_.nodes[sized(node)]; }
  const char* end_word() const { return network_.has_gpus ? "GPU" : "host"; }
  static std::string switch_key(int node) { return fmt::format("switch {}", node); }

  void sort_links() {
    ports_.resize(network_.nodes.size());
    for (const SimaiNetwork::Link& link : network_.links) {
      int a = link.src, b = link.dst;
      if (kind(a) > kind(b)) std::swap(a, b);
      const Kind ka = kind(a), kb = kind(b);
      if (ka == Kind::end && kb == Kind::end) {
        direct_.push_back(&link);
      } else if (ka == Kind::end && kb == Kind::nvswitch) {
        NvLink& own = nvlinks_[a];
        own.rate = rate(own.rate.GBps_per_direction + link.GBps, std::max(own.rate.latency_us, link.latency_us));
        ++own.count;
        own.nvswitches.insert(b);
      } else if (ka == Kind::end) {
        ports_[sized(a)].push_back({a, b, rate(link.GBps, link.latency_us)});
        leaves_.insert(b);
      } else if (ka == Kind::nvswitch) {
        fail(link, fmt::format("NVSwitch {} and {} {}", a, kb == ka ? "NVSwitch" : "switch", b),
             "NVSwitches join GPUs here, and nothing else");
      } else {
        cables_.push_back(&link);
      }
    }
    for (const SimaiNetwork::Link* link : direct_)
      if (!network_.switches.empty() || !nvlinks_.empty())
        fail(*link, fmt::format("{}s {} and {} joined directly", end_word(), link->src, link->dst),
             "beside switches, direct links are not modelled");
  }

  // Ends below the same NVSwitches, by their least number.
  std::vector<std::vector<int>> groups() const {
    std::map<int, int> first_of;  // NVSwitch -> its least end
    std::vector<int> above(network_.nodes.size());
    std::iota(above.begin(), above.end(), 0);
    const auto root = [&](int node) {
      while (above[sized(node)] != node) node = above[sized(node)] = above[sized(above[sized(node)])];
      return node;
    };
    for (const auto& [gpu, own] : nvlinks_)
      for (const int nvswitch : own.nvswitches) {
        const int a = root(first_of.emplace(nvswitch, gpu).first->second), b = root(gpu);
        above[sized(std::max(a, b))] = std::min(a, b);
      }
    std::map<int, std::vector<int>> by_root;
    for (int node = 0; sized(node) < network_.nodes.size(); ++node)
      if (kind(node) == Kind::end) by_root[root(node)].push_back(node);
    std::vector<std::vector<int>> out;
    for (auto& [first, ends] : by_root) out.push_back(std::move(ends));
    return out;
  }

  void find_hosts() {
    const std::vector<std::vector<int>> all = groups();
    const std::size_t said = sized(network_.gpus_per_server);
    bool domains = said > 0 && network_.has_gpus && all[0].size() > said;
    for (std::size_t i = 0; i < all.size(); ++i)  // the last may be smaller
      domains = domains && all[i].size() % said == 0 &&
                (all[i].size() == all[0].size() || (i + 1 == all.size() && all[i].size() < all[0].size()));
    if (domains) domain_ = static_cast<int>(all[0].size() / said);
    bool in_order = true;
    int next = -1;
    for (const std::vector<int>& own : all) {
      check_plane(own);
      if (said > 0 && !domains && own.size() != said && !warned_) {
        warned_ = true;
        warn(
            fmt::format("the first line says {} GPUs to a server, NVSwitches join {} (GPU {} first): what they join is "
                        "a host",
                        said, own.size(), own[0]));
      }
      const std::size_t size = domains ? said : own.size();
      for (std::size_t at = 0; at < own.size(); at += size)
        add_host({own.begin() + static_cast<long>(at), own.begin() + static_cast<long>(at + size)});
      for (const int end : own) {
        in_order = in_order && end > next;
        next = end;
      }
    }
    if (!in_order) warn("GPUs below an NVSwitch do not follow each other: GPUs are numbered host by host here");
  }

  // One plane: each GPU on all NVSwitches of the host, with as much as the others.
  void check_plane(const std::vector<int>& ends) const {
    if (ends.size() < 2) return;
    const NvLink& first = nvlinks_.at(ends[0]);
    for (const int end : ends)
      if (const NvLink& own = nvlinks_.at(end); own.nvswitches != first.nvswitches ||
                                                own.rate.GBps_per_direction != first.rate.GBps_per_direction ||
                                                own.rate.latency_us != first.rate.latency_us)
        fail(fmt::format("GPUs {} and {} are on different NVSwitches, or with different links", ends[0], end),
             "in a host all GPUs have equal links to all its NVSwitches");
  }

  void add_host(std::vector<int> ends) {
    Host host;
    host.ends = std::move(ends);
    if (host.ends.size() > kMostEnds)
      fail(fmt::format("{} GPUs on the NVSwitches of GPU {}", host.ends.size(), host.ends[0]),
           fmt::format("a host has at most {}; of more, the first line says how many are to a server", kMostEnds));
    for (const int end : host.ends)
      for (const Port& port : ports_[sized(end)]) {
        host.ports.push_back(port);
        if (host.ports.size() > kMostPorts)
          fail(fmt::format("node {} with more than {} ports in its host", end, kMostPorts), "fewer links to switches");
        if (std::find(host.leaves.begin(), host.leaves.end(), port.network_switch) == host.leaves.end())
          host.leaves.push_back(port.network_switch);
      }
    hosts_.push_back(std::move(host));
  }

  void leave_out_empty_leaves() {
    left_out_ = leaves_without_hosts(network_);
    if (left_out_.empty()) return;
    warn(fmt::format("{} leaves without hosts (switch {} first): left out", left_out_.size(), *left_out_.begin()));
    std::erase_if(cables_, [&](const SimaiNetwork::Link* link) {
      return left_out_.count(link->src) + left_out_.count(link->dst) > 0;
    });
  }

  void build_tree() {
    leave_out_empty_leaves();
    IbGraph graph;
    graph.hosts_note.clear();
    for (const int own : network_.switches) {
      if (left_out_.count(own) > 0) continue;
      graph.switches[switch_key(own)] = "";
      graph.order.push_back(switch_key(own));
    }
    const double any_GBps = first_port().rate.GBps_per_direction;  // hosts get what is theirs below
    for (std::size_t i = 0; i < hosts_.size(); ++i) {
      if (hosts_[i].ports.empty())
        fail(fmt::format("{} {} without a link to a switch", end_word(), hosts_[i].ends[0]),
             "all are on the network, or none");
      for (std::size_t leaf = 0; leaf < hosts_[i].leaves.size(); ++leaf)
        graph.ports.push_back(
            {fmt::format("host {}", i), std::to_string(leaf), switch_key(hosts_[i].leaves[leaf]), any_GBps});
    }
    for (const SimaiNetwork::Link* link : cables_) {
      std::pair<std::string, std::string> ends(switch_key(link->src), switch_key(link->dst));
      if (ends.second < ends.first) std::swap(ends.first, ends.second);
      IbGraph::Cables& own = graph.cables[ends];
      ++own.count;
      own.GBps += link->GBps;
    }
    std::vector<std::string> before = std::move(topology_.warnings);
    topology_ = topology_of(graph, where_);
    before.insert(before.end(), topology_.warnings.begin(), topology_.warnings.end());
    topology_.warnings = std::move(before);
    put_hosts_in();
    set_figures();
  }

  const Port& first_port() const {
    return std::find_if(hosts_.begin(), hosts_.end(), [](const Host& own) { return !own.ports.empty(); })->ports[0];
  }

  // In place of the network's hosts, in its order.
  void put_hosts_in() {
    std::vector<int> order;
    for (const std::string& name : topology_.host_names) order.push_back(std::stoi(name.substr(5)));
    Fabric& fabric = *topology_.fabric;
    if (!fabric.rail_optimised)
      for (const Host& own : hosts_) fabric.rails = std::max(fabric.rails, static_cast<int>(own.ports.size()));
    topology_.templates.clear();
    topology_.groups.clear();
    for (const int host : order) add_template(hosts_[sized(host)]);
    topology_.host_names.clear();
    if (!std::is_sorted(order.begin(), order.end())) {
      for (const int host : order) topology_.host_names.push_back(host_name(hosts_[sized(host)]));
      warn(fmt::format("hosts are in the order of their leaves, not of the file's numbers: names keep those ({} first)",
                       topology_.host_names[0]));
    }
    std::vector<std::string>& names = fabric.leaf_names;
    if (std::all_of(names.begin(), names.end(), [](const std::string& own) { return own.empty(); })) names.clear();
  }

  std::string host_name(const Host& own) const {
    return own.ends.size() == 1 ? fmt::format("node {}", own.ends[0])
                                : fmt::format("nodes {} to {}", own.ends.front(), own.ends.back());
  }

  void add_template(const Host& own) {
    SimulatedHost host;
    host.gpus = network_.has_gpus ? static_cast<int>(own.ends.size()) : 0;
    host.gpu_name = network_.gpu_type;
    host.source_note = "the file has at most a name";
    if (const auto found = nvlinks_.find(own.ends[0]); found != nvlinks_.end() && (host.gpus > 1 || domain_ > 1)) {
      host.inside = SimulatedHost::Inside::plane;
      host.link = found->second.rate;
      host.link_count = found->second.count <= 4096 ? found->second.count : 0;
    }
    std::string key =
        fmt::format("{}|{}|{}|{}", host.gpus, host.link.GBps_per_direction, host.link.latency_us, host.link_count);
    const bool rails = topology_.fabric && topology_.fabric->rail_optimised;
    for (std::size_t i = 0; i < own.ports.size(); ++i) {
      const Port& port = own.ports[i];
      const auto gpu = std::find(own.ends.begin(), own.ends.end(), port.end) - own.ends.begin();
      const auto leaf = std::find(own.leaves.begin(), own.leaves.end(), port.network_switch) - own.leaves.begin();
      host.ports.push_back({static_cast<int>(gpu), rails ? static_cast<int>(leaf) : static_cast<int>(i), port.rate});
      key += fmt::format("|{},{},{},{}", gpu, leaf, port.rate.GBps_per_direction, port.rate.latency_us);
    }
    const auto [known, fresh] = template_of_.emplace(key, static_cast<int>(topology_.templates.size()));
    if (fresh) {
      host.name = host.gpus > 0 ? fmt::format("{} GPUs", host.gpus) : "host";
      if (!topology_.templates.empty()) host.name += ", like " + host_name(own);
      topology_.templates.push_back(build_simulated_host(host));
    }
    if (topology_.groups.empty() || topology_.groups.back().template_index != known->second)
      topology_.groups.push_back({known->second, 0});
    ++topology_.groups.back().count;
  }

  // Latency and origin of what the network's own builder knew the rates of.
  void set_figures() {
    double up[2] = {}, least[2] = {1e300, 1e300};
    for (const SimaiNetwork::Link* link : cables_) {
      const int tier = leaves_.count(link->src) + leaves_.count(link->dst) > 0 ? 0 : 1;
      up[tier] = std::max(up[tier], link->latency_us);
      least[tier] = std::min(least[tier], link->latency_us);
    }
    Fabric& fabric = *topology_.fabric;
    if (fabric.spine_count > 0) fabric.uplink = rate(fabric.uplink.GBps_per_direction, up[0]);
    if (fabric.hosts_per_pod > 0 && fabric.core_count > 0)
      fabric.pod_uplink = rate(fabric.pod_uplink.GBps_per_direction, up[1]);
    for (const int tier : {0, 1})
      if (up[tier] > least[tier])
        warn(fmt::format("links {} have delays of {} to {} us: all count as the longest",
                         tier == 0 ? "between leaves and spines" : "above the spines", short_number(least[tier], 4),
                         short_number(up[tier], 4)));
  }

  void build_alone() {
    for (const Host& own : hosts_) add_template(own);
    if (hosts_.size() > static_cast<std::size_t>(domain_)) warn("no switch of a network: hosts are not joined");
  }

  void build_torus() {
    std::vector<std::pair<int, int>> pairs;
    const SimaiNetwork::Link& first = *direct_[0];
    for (const SimaiNetwork::Link* link : direct_) {
      if (link->GBps != first.GBps || link->latency_us != first.latency_us)
        fail(*link, fmt::format("a direct link that is not as that of line {}", first.line),
             "a torus has one rate and delay for all its links");
      pairs.emplace_back(std::min(link->src, link->dst), std::max(link->src, link->dst));
    }
    std::vector<int> dims = torus_dims(static_cast<int>(network_.nodes.size()), std::move(pairs));
    if (dims.empty())
      fail(fmt::format("{} {}s joined directly, and not as a ring or torus in the order of their numbers",
                       network_.nodes.size(), end_word()),
           "other networks without switches are not modelled");
    int links = 0;
    for (const int dim : dims) links += dim == 2 ? 1 : 2;
    Fabric fabric;
    fabric.kind = FabricKind::torus;
    fabric.dims = std::move(dims);
    fabric.ring = rate(first.GBps, first.latency_us);
    topology_.fabric = std::move(fabric);
    const Rate port{first.GBps * links, 0, Source::assumed, "all ring links of the node together"};
    for (Host& own : hosts_) {
      own.ports = {{own.ends[0], 0, port}};
      own.leaves = {0};
      add_template(own);
    }
  }

  SimaiNetwork network_;
  const std::string& where_;
  const std::string note_;
  Topology topology_;
  std::vector<std::vector<Port>> ports_;                    // by node
  std::map<int, NvLink> nvlinks_;                           // by GPU
  std::vector<const SimaiNetwork::Link*> direct_, cables_;  // between ends, between switches
  std::set<int> leaves_, left_out_;
  std::vector<Host> hosts_;
  std::map<std::string, int> template_of_;
  int domain_ = 1;
  bool warned_ = false;
};

}  // namespace

Topology read_simai(std::string_view text, const std::string& where) {
  return SimaiReader(parse_simai_network(text, where), where).run();
}

}  // namespace topomoe
