// The pods and leaves of a graph: its middle is the spine or the core, what has hosts are leaves.
//
// A switch that has both hosts and several switches around it gets a leaf for its hosts, joined without limit.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "topology/names.hpp"
#include "topology/read/cable_graph.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

class TreeBuilder {
 public:
  TreeBuilder(const CableNet& net, const std::string& where) : net_(net), where_(where), graph_(graph_of(net, where)) {
    simplify(graph_, net);
    at_ = graph_.edges_of_nodes();
    limit_.resize(graph_.nodes.size());
    for (const CableGraph::Medium& own : graph_.media) {
      Limit& limit = limit_[sized(own.node)];
      limit.GBps = std::min(limit.GBps, own.cable.GBps);
      limit.latency_us += own.cable.latency_us;
    }
  }

  Topology run(const std::string& note) {
    find_parts();
    if (first_hosts_.empty()) fail("no host", "a network has hosts");
    has_rings_ ? read_mesh() : read_trees();
    Topology topology = topology_of(out_, note);
    topology.name = std::filesystem::path(where_).stem().string();
    topology.source = where_;
    for (const std::string& line : graph_.warnings) add_warning(topology, line);
    for (const std::string& line : warnings_) add_warning(topology, line);
    say_what_media_carry(topology);
    require_valid(topology, where_);
    for (const std::string& line : warnings_from_sources(topology)) add_warning(topology, line);
    return topology;
  }

 private:
  struct Limit {
    double GBps = kNoLimit, latency_us = 0;
  };
  static std::size_t sized(int index) { return static_cast<std::size_t>(index); }
  [[noreturn]] void fail(const std::string& value, const std::string& hint) const {
    throw InvalidInput(where_, value, hint);
  }
  const CableGraph::Edge& edge(int index) const { return graph_.edges[sized(index)]; }
  const std::string& name(int node) const { return graph_.nodes[sized(node)].name; }
  std::vector<int> edges_to(int node, bool hosts) const {
    std::vector<int> out;
    for (const int own : at_[sized(node)])
      if (graph_.is_host(graph_.other(own, node)) == hosts) out.push_back(own);
    return out;
  }
  bool has_hosts(int node) const {
    return std::any_of(at_[sized(node)].begin(), at_[sized(node)].end(),
                       [&](int own) { return graph_.is_host(graph_.other(own, node)); });
  }
  double rate_of(int own) const {
    return std::min({edge(own).GBps, limit_[sized(edge(own).a)].GBps, limit_[sized(edge(own).b)].GBps});
  }
  // A way crosses what all traffic of a leaf takes once, and that of a switch above between two of its links.
  double latency_of(int own) const {
    double latency_us = edge(own).latency_us;
    for (const int node : {edge(own).a, edge(own).b})
      latency_us += limit_[sized(node)].latency_us / (has_hosts(node) ? 1 : 2);
    return latency_us;
  }

  // What hangs together, by its first host; whether all of it are trees.
  void find_parts() {
    std::vector<bool> seen(graph_.nodes.size());
    std::vector<int> stack;
    for (int first = 0; first < static_cast<int>(net_.nodes.size()); ++first) {
      if (!graph_.is_host(first) || seen[sized(first)]) continue;
      first_hosts_.push_back(first);
      std::size_t nodes = 0, ends = 0;
      seen[sized(first)] = true;
      stack.push_back(first);
      while (!stack.empty()) {
        const int node = stack.back();
        stack.pop_back();
        ++nodes, ends += at_[sized(node)].size();
        for (const int own : at_[sized(node)]) {
          const int next = graph_.other(own, node);
          if (seen[sized(next)]) continue;
          seen[sized(next)] = true;
          stack.push_back(next);
        }
      }
      has_rings_ = has_rings_ || ends / 2 != nodes - 1;
    }
  }

  CablePods::Leaf leaf_of(int node, double up_GBps, double up_latency_us) const {
    CablePods::Leaf leaf{name(node), up_GBps, up_latency_us, {}};
    std::vector<std::pair<int, int>> hosts;
    for (const int own : edges_to(node, true)) hosts.emplace_back(graph_.other(own, node), own);
    std::sort(hosts.begin(), hosts.end());
    for (const auto& [host, own] : hosts) {
      double GBps = edge(own).GBps;
      if (GBps == kNoLimit) {  // it passes on what others send, over the other links of its switch
        GBps = 0;
        for (const int at : {node, parent_of_leaf(node)})
          for (const int way : at < 0 ? std::vector<int>{} : at_[sized(at)])
            if (edge(way).GBps != kNoLimit) GBps += edge(way).GBps;
      }
      const int above = parent_of_leaf(node);
      GBps = std::min({GBps, limit_[sized(node)].GBps, above < 0 ? kNoLimit : limit_[sized(above)].GBps});
      leaf.hosts.push_back({name(host), GBps, edge(own).latency_us});
    }
    return leaf;
  }
  int parent_of_leaf(int leaf) const {
    const auto found = leaf_for_.find(leaf);
    return found == leaf_for_.end() ? -1 : found->second;
  }

  // Leaves that are joined each with each, and no other switch.
  void read_mesh() {
    std::vector<int> leaves;
    for (int node = 0; node < static_cast<int>(graph_.nodes.size()); ++node)
      if (!graph_.is_host(node) && !at_[sized(node)].empty()) leaves.push_back(node);
    bool is_mesh = first_hosts_.size() == 1;
    for (const int leaf : leaves) {
      std::set<int> joined;
      for (const int own : edges_to(leaf, false)) joined.insert(graph_.other(own, leaf));
      is_mesh = is_mesh && has_hosts(leaf) && joined.size() + 1 == leaves.size() &&
                joined.size() == edges_to(leaf, false).size();
    }
    if (!is_mesh) {
      int some = leaves[0];
      std::size_t most = 0;
      for (const int leaf : leaves)
        if (const std::size_t ways = edges_to(leaf, false).size(); ways > most) most = ways, some = leaf;
      fail(fmt::format("several ways between the same hosts, as at {}", graph_.called(some, net_)),
           "read are trees of hosts and switches, and clusters that are joined each with each");
    }
    std::sort(leaves.begin(), leaves.end(), [&](int a, int b) { return first_host(a) < first_host(b); });
    out_.tiers = 2;
    out_.between_GBps.assign(leaves.size(), std::vector<double>(leaves.size()));
    std::map<int, std::size_t> number;
    for (std::size_t i = 0; i < leaves.size(); ++i) number[leaves[i]] = i;
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      double up = 0;
      for (const int own : edges_to(leaves[i], false)) {
        up += out_.between_GBps[i][number.at(graph_.other(own, leaves[i]))] = rate_of(own);
        out_.between_latency_us = std::max(out_.between_latency_us, latency_of(own));
      }
      out_.pods.push_back({name(leaves[i]), 0, 0, {leaf_of(leaves[i], up, 0)}});
    }
    warnings_.push_back(
        "leaves joined each with each, without spines: here a leaf reaches its links to the others "
        "through one uplink of their sum");
  }
  int first_host(int node) const {
    int first = static_cast<int>(graph_.nodes.size());
    for (const int own : edges_to(node, true)) first = std::min(first, graph_.other(own, node));
    return first;
  }

  void read_trees() {
    std::vector<std::vector<CablePods::Pod>> parts;
    for (const int host : first_hosts_) parts.push_back(part_of(host));
    if (parts.size() > 1) {
      if (out_.tiers > 2)
        fail(fmt::format("{} networks that no route joins, of up to 3 tiers", parts.size()),
             "networks apart are read where each has at most two tiers of switches");
      warnings_.push_back(fmt::format("{} parts that no route joins", parts.size()));
    }
    for (std::vector<CablePods::Pod>& part : parts)
      for (CablePods::Pod& pod : part) {
        if (out_.tiers == 1 && !out_.pods.empty())
          std::move(pod.leaves.begin(), pod.leaves.end(), std::back_inserter(out_.pods[0].leaves));
        else
          out_.pods.push_back(std::move(pod));
      }
    check_walks(graph_, net_, first_hosts_);
  }

  std::vector<CablePods::Pod> part_of(int host) {
    if (at_[sized(host)].empty()) return {{"", 0, 0, {{"", kNoLimit, 0, {{name(host), 0, 0}}}}}};
    for (const int node : switches_from(graph_.other(at_[sized(host)][0], host)))
      if (has_hosts(node) && edges_to(node, false).size() > 1) give_leaf(node);
    // The longest way between two switches, and its middle.
    const int end = switches_from(graph_.other(at_[sized(host)][0], host)).back();
    std::map<int, int> from;  // the edge that leads to a node
    const int far = switches_from(end, &from).back();
    std::vector<int> way{far};
    while (way.back() != end) way.push_back(graph_.other(from.at(way.back()), way.back()));
    const int tiers = static_cast<int>(way.size()) / 2 + 1;
    if (tiers > 3)
      fail(fmt::format("{} tiers of switches between {} and {}", tiers, graph_.called(end, net_),
                       graph_.called(far, net_)),
           "at most three tiers are modelled");
    out_.tiers = std::max(out_.tiers, tiers);
    const int root = way.size() % 2 == 0 ? middle_of(from.at(way[way.size() / 2 - 1])) : way[way.size() / 2];
    if (tiers == 1) return {{name(root), 0, 0, {leaf_of(root, kNoLimit, 0)}}};
    if (tiers == 2) return {pod_below(root, -1)};
    std::vector<CablePods::Pod> pods;
    for (const int own : by_first_host(root, edges_to(root, false))) {
      pods.push_back(pod_below(graph_.other(own, root), own));
      pods.back().out_GBps = rate_of(own), pods.back().out_latency_us = latency_of(own);
    }
    return pods;
  }

  CablePods::Pod pod_below(int node, int up) {
    CablePods::Pod pod{name(node), 0, 0, {}};
    std::vector<int> down = edges_to(node, false);
    std::erase(down, up);
    for (const int own : by_first_host(node, down))
      pod.leaves.push_back(leaf_of(graph_.other(own, node), rate_of(own), latency_of(own)));
    if (down.empty()) pod.leaves.push_back(leaf_of(node, rate_of(up), 0));  // a leaf at the core itself
    return pod;
  }

  // In the order of the first host below each.
  std::vector<int> by_first_host(int node, const std::vector<int>& edges) const {
    std::vector<std::pair<int, int>> order;
    for (const int own : edges) {
      const int below = graph_.other(own, node);
      int first = first_host(below);
      for (const int further : edges_to(below, false))
        if (const int next = graph_.other(further, below); next != node) first = std::min(first, first_host(next));
      order.emplace_back(first, own);
    }
    std::sort(order.begin(), order.end());
    std::vector<int> out;
    for (const auto& [first, own] : order) out.push_back(own);
    return out;
  }

  int new_switch(const std::string& own_name) {
    graph_.nodes.push_back({own_name, false});
    at_.emplace_back();
    limit_.emplace_back();
    return static_cast<int>(at_.size()) - 1;
  }
  int add_edge(CableGraph::Edge own) {
    const int index = static_cast<int>(graph_.edges.size());
    at_[sized(own.a)].push_back(index), at_[sized(own.b)].push_back(index);
    graph_.edges.push_back(std::move(own));
    return index;
  }

  void give_leaf(int node) {
    if (leaf_for_.empty()) first_parted_ = graph_.called(node, net_);
    const int leaf = new_switch(name(node));
    leaf_for_[leaf] = node;
    std::vector<int> kept = edges_to(node, false);
    for (const int own : edges_to(node, true)) {
      CableGraph::Edge& port = graph_.edges[sized(own)];
      (port.a == node ? port.a : port.b) = leaf;
      at_[sized(leaf)].push_back(own);
    }
    at_[sized(node)] = std::move(kept);
    add_edge({leaf, node, kNoLimit, 0, {}, 0, 0});
  }

  int middle_of(int index) {
    CableGraph::Edge half = edge(index);
    half.latency_us = graph_.edges[sized(index)].latency_us /= 2;
    const int middle = new_switch("");
    std::erase(at_[sized(half.b)], index);
    graph_.edges[sized(index)].b = half.a = middle;
    half.cables.clear();
    at_[sized(middle)].push_back(index);
    add_edge(std::move(half));
    return middle;
  }

  // Nearest first.
  std::vector<int> switches_from(int start, std::map<int, int>* from = nullptr) const {
    std::vector<int> order{start};
    std::set<int> seen{start};
    for (std::size_t i = 0; i < order.size(); ++i)
      for (const int own : edges_to(order[i], false))
        if (const int next = graph_.other(own, order[i]); seen.insert(next).second) {
          order.push_back(next);
          if (from != nullptr) (*from)[next] = own;
        }
    return order;
  }

  void say_what_media_carry(Topology& topology) const {
    int count = 0;
    std::string first;
    for (const CableGraph::Medium& own : graph_.media)
      if (own.cable.share != CableNet::Share::fatpipe && count++ == 0)
        first = fmt::format("\"{}\" of {} GB/s", own.cable.name, short_number(own.cable.GBps, 6));
    if (count > 0)
      add_warning(
          topology,
          fmt::format("backbones ({}, {} first) that all traffic of a cluster or between clusters shares: what one "
                      "carries in all is not modelled, only that no host and no uplink through it has more",
                      count, first));
    if (!leaf_for_.empty())
      add_warning(topology,
                  fmt::format("switches ({}, {} first) with both hosts and several switches: their hosts count "
                              "as a leaf, joined without limit",
                              leaf_for_.size(), first_parted_));
  }

  const CableNet& net_;
  const std::string& where_;
  CableGraph graph_;
  CablePods out_;
  std::vector<std::string> warnings_;
  std::vector<std::vector<int>> at_;  // edges of each node
  std::vector<Limit> limit_;
  std::vector<int> first_hosts_;
  std::map<int, int> leaf_for_;  // leaf -> the switch that has it for its own hosts
  std::string first_parted_;
  bool has_rings_ = false;
};

}  // namespace

Topology topology_of(const CableNet& net, const std::string& where, const std::string& note) {
  return TreeBuilder(net, where).run(note);
}

}  // namespace topomoe
