#include "topology/graph.hpp"

#include <algorithm>
#include <array>
#include <boost/graph/adjacency_list.hpp>
#include <boost/graph/dijkstra_shortest_paths.hpp>
#include <boost/graph/filtered_graph.hpp>
#include <limits>
#include <tuple>

#include "topology/detours.hpp"

namespace topomoe {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

// Fewest links first, then the widest: both only get worse along a path, so Dijkstra is exact in them. Between equals,
// the path with fewer PCIe links (C2C to the CPU rather than PCIe), as far as Dijkstra happens to see both.
struct Cost {
  int links = 0;
  double width = kInfinite;
  int pcie_links = 0;
  bool operator<(const Cost& other) const {
    if (links != other.links) return links < other.links;
    return width != other.width ? width > other.width : pcie_links < other.pcie_links;
  }
};

constexpr Cost kUnreached{std::numeric_limits<int>::max(), 0, 0};

struct EdgeData {
  int directed = 0;
  Cost cost;
};
using Graph = boost::adjacency_list<boost::vecS, boost::vecS, boost::directedS, boost::no_property, EdgeData>;
using Edge = boost::graph_traits<Graph>::edge_descriptor;

// Only the origin may send if it is a GPU or a NIC: the rest of them are ends, not ways.
struct LeavesNoEndpoint {
  const Graph* graph = nullptr;
  const HostTemplate* host = nullptr;
  std::size_t origin = 0;
  bool operator()(const Edge& edge) const {
    const std::size_t from = boost::source(edge, *graph);
    const DeviceKind kind = host->devices[from].kind;
    return from == origin || (kind != DeviceKind::gpu && kind != DeviceKind::nic);
  }
};

bool is_gpu_link(LinkKind kind) { return kind == LinkKind::nvlink || kind == LinkKind::xgmi; }

PathClass classify(const HostTemplate& host, const std::vector<DirectedLink>& directed, const std::vector<int>& path) {
  bool over_gpu = false, over_cpu = false, c2c = false, pcie = false;
  int switches = 0;
  for (std::size_t i = 0; i < path.size(); ++i) {
    const DirectedLink& link = directed[static_cast<std::size_t>(path[i])];
    if (link.kind == LinkKind::cpu_interconnect) return PathClass::SYS;
    c2c = c2c || link.kind == LinkKind::c2c;
    pcie = pcie || link.kind == LinkKind::pcie;
    if (i == 0) continue;
    const DeviceKind via = host.devices[static_cast<std::size_t>(link.src)].kind;
    over_gpu = over_gpu || via == DeviceKind::gpu;
    over_cpu = over_cpu || via == DeviceKind::numa;
    switches += via == DeviceKind::pci_switch ? 1 : 0;
  }
  if (c2c) return pcie ? PathClass::P2C : PathClass::C2C;
  if (over_cpu) return PathClass::PHB;
  if (!pcie) return over_gpu ? PathClass::NVB : PathClass::NVL;
  return switches > 1 ? PathClass::PXB : PathClass::PIX;
}

class Finder {
 public:
  explicit Finder(const HostTemplate& host) : host_(host), graph_(host.devices.size()) {
    for (std::size_t i = 0; i < host.links.size(); ++i) {
      const Link& link = host.links[i];
      add(static_cast<int>(i), link, link.src, link.dst);
      if (link.both_ways) add(static_cast<int>(i), link, link.dst, link.src);
    }
  }

  HostPaths run() {
    result_.gpus = static_cast<int>(host_.gpus.size());
    result_.nics = static_cast<int>(host_.nics.size());
    for (std::size_t src = 0; src < host_.gpus.size(); ++src) {
      search(host_.gpus[src]);
      for (std::size_t dst = 0; dst < host_.gpus.size(); ++dst) result_.gpu_gpu.push_back(gpu_path(src, dst));
      for (const Nic& nic : host_.nics) result_.gpu_nic.push_back(keep(trace(nic.device)));
    }
    for (const Nic& nic : host_.nics) {
      search(nic.device);
      for (const int gpu : host_.gpus) result_.nic_gpu.push_back(keep(trace(gpu)));
    }
    share_out_detours();
    share_out_nics();
    find_nvswitch_links();
    return std::move(result_);
  }

 private:
  void add(int index, const Link& link, int src, int dst) {
    const int id = static_cast<int>(result_.directed.size());
    result_.directed.push_back({index, src, dst, link.GBps_per_direction, link.latency_us, link.kind});
    boost::add_edge(static_cast<std::size_t>(src), static_cast<std::size_t>(dst),
                    EdgeData{id, Cost{1, link.GBps_per_direction, link.kind == LinkKind::pcie ? 1 : 0}}, graph_);
  }

  void search(int origin) {
    const std::size_t devices = host_.devices.size();
    origin_ = origin;
    came_by_.assign(devices, Edge{});
    cost_.assign(devices, kUnreached);
    const boost::filtered_graph usable(graph_, LeavesNoEndpoint{&graph_, &host_, static_cast<std::size_t>(origin)});
    const auto vertices = boost::get(boost::vertex_index, graph_);
    boost::dijkstra_shortest_paths(
        usable, static_cast<std::size_t>(origin),
        boost::weight_map(boost::get(&EdgeData::cost, graph_))
            .distance_map(boost::make_iterator_property_map(cost_.begin(), vertices))
            .distance_inf(kUnreached)
            .distance_zero(Cost{0, kInfinite})
            .distance_compare([](const Cost& a, const Cost& b) { return a < b; })
            .distance_combine([](const Cost& a, const Cost& b) {
              return a.links == std::numeric_limits<int>::max()
                         ? a
                         : Cost{a.links + b.links, std::min(a.width, b.width), a.pcie_links + b.pcie_links};
            })
            .visitor(boost::make_dijkstra_visitor(boost::record_edge_predecessors(
                boost::make_iterator_property_map(came_by_.begin(), vertices), boost::on_edge_relaxed()))));
  }

  bool reached(int device) const {
    return cost_[static_cast<std::size_t>(device)].links != std::numeric_limits<int>::max();
  }

  // The directed links from the origin of the last search; empty: none, or the origin itself.
  std::vector<int> trace(int device) const {
    std::vector<int> path;
    if (!reached(device)) return path;
    for (int at = device; at != origin_;) {
      const int id = graph_[came_by_[static_cast<std::size_t>(at)]].directed;
      path.push_back(id);
      at = result_.directed[static_cast<std::size_t>(id)].src;
    }
    std::reverse(path.begin(), path.end());
    return path;
  }

  HostPath keep(const std::vector<int>& path) {
    HostPath kept;
    if (path.empty()) return kept;
    kept.path_class = classify(host_, result_.directed, path);
    kept.first = static_cast<int>(result_.pool.size());
    kept.count = static_cast<int>(path.size());
    kept.bottleneck_GBps = kInfinite;
    for (const int id : path) {
      const DirectedLink& link = result_.directed[static_cast<std::size_t>(id)];
      kept.bottleneck_GBps = std::min(kept.bottleneck_GBps, link.GBps_per_direction);
      kept.latency_us += link.latency_us;
      result_.pool.push_back(id);
    }
    return kept;
  }

  HostPath gpu_path(std::size_t src, std::size_t dst) {
    if (src == dst) {
      HostPath own;
      own.path_class = PathClass::LOC;
      own.bottleneck_GBps = kInfinite;
      return own;
    }
    const int to = host_.gpus[dst];
    const std::vector<int> path = trace(to);
    const Cost direct = path.empty() ? kUnreached : cost_[static_cast<std::size_t>(to)];
    const auto [cost, ways] = two_gpu_links(host_.gpus[src], to);
    if (!(cost < direct)) return keep(path);
    detours_.push_back({ways, 0});
    detoured_.push_back(result_.gpu_gpu.size());
    return {};
  }

  // The widest ways over one other GPU, by NVLink or XGMI on both sides: those that are equally wide.
  std::pair<Cost, std::vector<std::array<int, 2>>> two_gpu_links(int from, int to) const {
    std::pair<Cost, std::vector<std::array<int, 2>>> best{kUnreached, {}};
    for (const auto first : boost::make_iterator_range(boost::out_edges(static_cast<std::size_t>(from), graph_))) {
      const std::size_t middle = boost::target(first, graph_);
      const int a = graph_[first].directed;
      if (!is_gpu_link(kind_of(a)) || host_.devices[middle].kind != DeviceKind::gpu) continue;
      for (const auto second : boost::make_iterator_range(boost::out_edges(middle, graph_))) {
        const int b = graph_[second].directed;
        if (!is_gpu_link(kind_of(b)) || boost::target(second, graph_) != static_cast<std::size_t>(to)) continue;
        const Cost cost{2, std::min(graph_[first].cost.width, graph_[second].cost.width), 0};
        if (best.first < cost) continue;
        if (cost < best.first) best = {cost, {}};
        best.second.push_back({a, b});
      }
    }
    return best;
  }

  void share_out_detours() {
    std::vector<double> rates;
    for (const DirectedLink& link : result_.directed) rates.push_back(link.GBps_per_direction);
    choose_detours(detours_, rates);
    for (std::size_t i = 0; i < detours_.size(); ++i) {
      const std::array<int, 2>& way = detours_[i].ways[detours_[i].chosen];
      result_.gpu_gpu[detoured_[i]] = keep({way.begin(), way.end()});
    }
  }

  LinkKind kind_of(int directed) const { return result_.directed[static_cast<std::size_t>(directed)].kind; }

  // Nearest by class; then devices on the bus before virtual ones; then the widest.
  auto nic_rank(int gpu, int nic) const {
    const HostPath& path = result_.to_nic(gpu, nic);
    const Nic& port = host_.nics[static_cast<std::size_t>(nic)];
    const bool is_virtual = host_.devices[static_cast<std::size_t>(port.device)].bus_id.empty();
    return std::tuple(path.path_class, any_bus_id_ && is_virtual,
                      -std::min(path.bottleneck_GBps, port.port.GBps_per_direction));
  }

  void share_out_nics() {
    any_bus_id_ = std::any_of(host_.nics.begin(), host_.nics.end(), [&](const Nic& nic) {
      return !host_.devices[static_cast<std::size_t>(nic.device)].bus_id.empty();
    });
    std::vector<std::vector<int>> nearest(host_.gpus.size());
    for (int gpu = 0; gpu < result_.gpus; ++gpu) {
      auto& set = nearest[static_cast<std::size_t>(gpu)];
      for (int nic = 0; nic < result_.nics; ++nic) {
        if (result_.to_nic(gpu, nic).path_class == PathClass::DIS) continue;
        if (!set.empty() && nic_rank(gpu, nic) < nic_rank(gpu, set.front())) set.clear();
        if (set.empty() || nic_rank(gpu, nic) == nic_rank(gpu, set.front())) set.push_back(nic);
      }
    }
    result_.own_nics.resize(host_.gpus.size());
    for (std::size_t gpu = 0; gpu < nearest.size(); ++gpu) {
      const auto& set = nearest[gpu];
      if (set.empty()) continue;
      const auto same = [&](const std::vector<int>& other) { return other == set; };
      const auto sharers = static_cast<std::size_t>(std::count_if(nearest.begin(), nearest.end(), same));
      const auto place =
          static_cast<std::size_t>(std::count_if(nearest.begin(), nearest.begin() + static_cast<long>(gpu), same));
      auto& own = result_.own_nics[gpu];
      for (std::size_t i = place % set.size(); i < set.size(); i += sharers) own.push_back(set[i]);
    }
  }

  void find_nvswitch_links() {
    result_.to_nvswitch.assign(host_.gpus.size(), -1);
    result_.from_nvswitch.assign(host_.gpus.size(), -1);
    for (std::size_t gpu = 0; gpu < host_.gpus.size(); ++gpu) {
      for (std::size_t id = 0; id < result_.directed.size(); ++id) {
        const DirectedLink& link = result_.directed[id];
        const auto kind = [&](int device) { return host_.devices[static_cast<std::size_t>(device)].kind; };
        if (link.src == host_.gpus[gpu] && kind(link.dst) == DeviceKind::nvswitch)
          result_.to_nvswitch[gpu] = static_cast<int>(id);
        if (link.dst == host_.gpus[gpu] && kind(link.src) == DeviceKind::nvswitch)
          result_.from_nvswitch[gpu] = static_cast<int>(id);
      }
    }
  }

  const HostTemplate& host_;
  Graph graph_;
  HostPaths result_;
  std::vector<Edge> came_by_;
  std::vector<Cost> cost_;
  std::vector<Detour> detours_;
  std::vector<std::size_t> detoured_;  // their places in gpu_gpu
  int origin_ = 0;
  bool any_bus_id_ = false;
};

}  // namespace

HostPaths find_host_paths(const HostTemplate& host) { return Finder(host).run(); }

}  // namespace topomoe
