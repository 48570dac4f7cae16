// NCCL's channels over the links of a topology: which exist, what they cross, what NCCL said of them.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "topology/names.hpp"
#include "topology/router_state.hpp"
#include "topomoe/error.hpp"
#include "topomoe/nccl_graph.hpp"

namespace topomoe {
namespace {

using Pattern = NcclGraph::Pattern;

int number(std::string_view text, int otherwise) {
  int value = otherwise;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

class Overlay {
 public:
  Overlay(const NcclGraph& graph, const Topology& topology, const std::string& where)
      : graph_(graph), topology_(topology), where_(where), router_(topology) {}

  std::vector<NcclSearchUse> run() {
    std::vector<NcclSearchUse> out;
    for (const NcclGraph::Search& search : graph_.searches) out.push_back(use(search));
    return out;
  }

 private:
  // Whose words decide: what NCCL's dump called the device, else its place.
  int gpu_of(const NcclGraph::Node& node, const NcclGraph::Search& search) const {
    const HostTemplate& host = host_of(node, search);
    std::string known;
    for (std::size_t i = 0; i < host.gpus.size(); ++i) {
      const auto& own = host.devices[static_cast<std::size_t>(host.gpus[i])].attributes;
      const int dev = number(attribute(own, "gpu.dev"), static_cast<int>(i));
      if (dev == node.dev) return topology_.first_gpu_of_host(node.host) + static_cast<int>(i);
      known += fmt::format("{}{}", known.empty() ? "" : ", ", dev);
    }
    fail(search, "gpu", node.dev, known);
  }
  int nic_of(const NcclGraph::Node& node, const NcclGraph::Search& search) const {
    const HostTemplate& host = host_of(node, search);
    std::string known;
    for (std::size_t i = 0; i < host.nics.size(); ++i) {
      const int dev = number(attribute(host.nics[i].attributes, "dev"), static_cast<int>(i));
      if (dev == node.dev) return static_cast<int>(i);
      known += fmt::format("{}{}", known.empty() ? "" : ", ", dev);
    }
    fail(search, "net", node.dev, known);
  }
  const HostTemplate& host_of(const NcclGraph::Node& node, const NcclGraph::Search& search) const {
    if (node.host < topology_.host_count()) return topology_.host_template(node.host);
    throw InvalidInput(
        fmt::format("{}: {}", where_, name(search)), fmt::format("a device of host {}", node.host),
        fmt::format("the topology has {} hosts; give the one that this graph was made on", topology_.host_count()));
  }
  [[noreturn]] void fail(const NcclGraph::Search& search, const char* what, int dev, const std::string& known) const {
    throw InvalidInput(fmt::format("{}: {}: {} dev", where_, name(search), what), std::to_string(dev),
                       known.empty()
                           ? fmt::format("the topology has no {}; give the one that this graph was made on", what)
                           : fmt::format("the topology has {}; give the one that this graph was made on", known));
  }

  struct Load {
    int channels = 0;
    double GBps = 0;
  };

  NcclSearchUse use(const NcclGraph::Search& search) {
    NcclSearchUse out;
    std::map<int, Load> loads;  // by directed link
    for (const std::vector<NcclGraph::Node>& channel : search.channels) walk(search, channel, out, loads);
    double most = -1;
    for (const auto& [id, load] : loads) {
      const LinkInfo link = router_.link(id);
      out.links.push_back({link.name, load.channels, load.GBps, link.GBps_per_direction});
      const double share = load.GBps / link.GBps_per_direction;
      if (share > most) {
        most = share;
        out.bottleneck = out.links.back();
      }
    }
    std::stable_sort(out.links.begin(), out.links.end(),
                     [](const auto& a, const auto& b) { return a.channels > b.channels; });
    const auto note = [&](const char* attribute, PathClass said, PathClass found, const std::string& hop) {
      if (!hop.empty() && said != found)
        out.notes.push_back(
            fmt::format("{} says {}, the routes here are at worst {} ({})", attribute, name(said), name(found), hop));
    };
    note("typeintra", search.intra, out.intra, out.intra_hop);
    note("typeinter", search.inter, out.inter, out.inter_hop);
    // NCCL counts on less than a link carries: more than all of it means another machine, or rates that are assumed.
    if (most > 1 + 1e-9)
      out.notes.push_back(fmt::format("{} is asked for {} GB/s and carries {}", out.bottleneck.name,
                                      short_number(out.bottleneck.asked_GBps),
                                      short_number(out.bottleneck.GBps_per_direction)));
    return out;
  }

  void walk(const NcclGraph::Search& search, const std::vector<NcclGraph::Node>& channel, NcclSearchUse& out,
            std::map<int, Load>& loads) {
    std::vector<int> gpus;
    std::vector<std::pair<int, int>> nets;  // host, index of the NIC
    for (const NcclGraph::Node& node : channel) {
      if (node.net)
        nets.emplace_back(node.host, nic_of(node, search));
      else
        gpus.push_back(gpu_of(node, search));
    }
    if (search.pattern == Pattern::nvls || search.pattern == Pattern::collnet_direct) return;
    const bool ring = search.pattern == Pattern::ring;
    std::map<int, double> asked;  // a channel crosses a link once, however often
    const auto ask = [&](int link, double GBps) {
      double& own = asked[link];
      own = std::max(own, GBps);
    };
    const auto hop = [&](int a, int b) {
      const Route route = router_.route(a, b);
      worst(out.intra, out.intra_hop, route.path_class, topology_.gpu_name(a), topology_.gpu_name(b));
      for (const int link : route.links) ask(link, search.intra_GBps);
    };
    for (std::size_t i = 1; i < gpus.size(); ++i) {
      hop(gpus[i - 1], gpus[i]);
      if (!ring) hop(gpus[i], gpus[i - 1]);
    }
    if (ring && nets.empty() && gpus.size() > 1) hop(gpus.back(), gpus.front());
    for (std::size_t i = 0; i < nets.size(); ++i) {
      // A ring comes in to its first GPU and leaves by its last; trees go both ways at the first, or those with nets of
      // two GPUs the second at the second.
      const bool second = i > 0 && gpus.size() > 1 && search.pattern != Pattern::tree;
      const int gpu = i == 0 ? gpus.front() : ring ? gpus.back() : second ? gpus[1] : gpus.front();
      const auto [host, nic] = nets[i];
      if (topology_.host_of(gpu) != host) continue;  // over NVLink to a GPU of that host first
      const Nic& port = topology_.host_template(host).nics[static_cast<std::size_t>(nic)];
      const Route route = router_.route_to_nic(gpu, nic);
      worst(out.inter, out.inter_hop, route.path_class, topology_.gpu_name(gpu),
            port.name.empty() ? fmt::format("nic{}", nic) : port.name);
      if (!ring || i > 0)
        for (const int link : route.links) ask(link, search.inter_GBps);
      if (!ring || i == 0) {
        const Router::State::Place at = router_.state().place(gpu);
        const HostPath& in = at.paths->from_nic(nic, at.local);
        for (int step = in.first; step < in.first + in.count; ++step)
          ask(at.link_base + at.paths->pool[static_cast<std::size_t>(step)], search.inter_GBps);
      }
    }
    for (const auto& [link, GBps] : asked) {
      Load& own = loads[link];
      ++own.channels;
      own.GBps += GBps;
    }
  }

  static void worst(PathClass& so_far, std::string& hop, PathClass found, const std::string& from,
                    const std::string& to) {
    if (!hop.empty() && found <= so_far) return;
    so_far = found;
    hop = from + " to " + to;
  }

  const NcclGraph& graph_;
  const Topology& topology_;
  const std::string& where_;
  const Router router_;
};

}  // namespace

std::vector<NcclSearchUse> use_of_nccl_graph(const NcclGraph& graph, const Topology& topology,
                                             const std::string& where) {
  return Overlay(graph, topology, where).run();
}

}  // namespace topomoe
