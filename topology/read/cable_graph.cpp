// Which cables meet where: the ends of each cable from the ways that lead over it, shortest ways first.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <set>
#include <unordered_map>

#include "topology/read/cable_graph.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

class Placement {
 public:
  Placement(const CableNet& net, const std::string& where) : net_(net), where_(where) {
    graph_.is_medium.resize(net.cables.size());
    order_.resize(net.walks.size());
    std::iota(order_.begin(), order_.end(), 0);
    std::stable_sort(order_.begin(), order_.end(), [&](std::size_t a, std::size_t b) {
      return net.walks[a].cables.size() < net.walks[b].cables.size();
    });
  }

  CableGraph run() {
    // Each turn finds media that the turn before took for cables.
    for (int turn = 0; !place_all(); ++turn)
      if (turn == kMostMedia) contradiction();
    for (const CableNet::Medium& own : net_.media) graph_.media.push_back({find(own.node), own.cable, -1});
    for (const auto& [cable, node] : hub_) graph_.media.push_back({find(node), net_.cables[sized(cable)], cable});
    for (const CableNet::Port& port : net_.ports)
      add_edge(port.host, port.node, port.up_GBps, port.down_GBps, port.latency_us, -1);
    add_cables();
    say_how_they_share();
    return std::move(graph_);
  }

 private:
  static constexpr int kMostMedia = 8, kMostTurns = 32;  // turns over all walks, so that no input takes for ever
  [[noreturn]] void contradiction() const {
    throw InvalidInput(where_, "routes that contradict each other", "ways over links of two ends, or of one medium");
  }
  struct Ends {
    int node[2] = {-1, -1};
    bool used[2] = {false, false};  // from end 0, from end 1
  };
  static std::size_t sized(int index) { return static_cast<std::size_t>(index); }

  int find(int node) {
    while (parent_[sized(node)] != node) node = parent_[sized(node)] = parent_[sized(parent_[sized(node)])];
    return node;
  }
  bool named(int node) const { return node < static_cast<int>(net_.nodes.size()); }
  bool is_switch(int node) const { return !graph_.nodes[sized(node)].is_host; }
  int new_node() {
    graph_.nodes.push_back({});
    parent_.push_back(static_cast<int>(parent_.size()));
    return parent_.back();
  }
  // False where both are things of their own.
  bool unite(int a, int b) {
    a = find(a), b = find(b);
    if (a == b) return true;
    if (named(a) && named(b)) return false;
    if (named(b)) std::swap(a, b);
    parent_[sized(b)] = a;
    return true;
  }

  bool place_all() {
    graph_.nodes = net_.nodes;
    parent_.resize(net_.nodes.size());
    std::iota(parent_.begin(), parent_.end(), 0);
    ends_.assign(net_.cables.size(), {});
    hub_.clear();
    attached_.clear();
    bool settled = true;
    std::vector<std::size_t> left = order_;
    for (int turn = 0; !left.empty(); ++turn) {
      if (turn == kMostTurns) contradiction();
      std::vector<std::size_t> later;
      for (const std::size_t i : left) {
        int medium = -1;
        const Placed placed = place(net_.walks[i], false, medium);
        if (placed == Placed::later) later.push_back(i);
        if (medium >= 0) graph_.is_medium[sized(medium)] = true, settled = false;
      }
      if (later.size() == left.size()) {  // none of them tells more than it did: the first one decides
        int medium = -1;
        place(net_.walks[later.front()], true, medium);
        if (medium >= 0) graph_.is_medium[sized(medium)] = true, settled = false;
        later.erase(later.begin());
      }
      left = std::move(later);
    }
    return settled;
  }

  enum class Placed { yes, later };

  bool is_end(int cable, int end, int node) {
    const int own = ends_[sized(cable)].node[end];
    return own >= 0 && find(own) == find(node);
  }
  // The cable is crossed from this end.
  void cross(int cable, int end, bool both_ways) {
    Ends& ends = ends_[sized(cable)];
    ends.used[end] = true;
    ends.used[1 - end] = ends.used[1 - end] || both_ways;
  }

  // From both ends of the way inwards, over what is known. What is not known yet begins where the way has come to.
  // `medium` becomes the cable that would have more than two ends.
  Placed place(const CableNet::Walk& walk, bool decide, int& medium) {
    if (walk.cables.empty()) {
      const int a = find(walk.from), b = find(walk.to);
      if (!is_switch(a) || !is_switch(b)) throw InvalidInput(walk.line, "no link", "a route between hosts has links");
      if (a != b) parent_[sized(b)] = a;  // two routers in one place
      return Placed::yes;
    }
    int at = walk.from, to = walk.to;
    std::size_t i = 0, j = walk.cables.size();  // i..j: what is left
    const auto forward = [&](int end) {
      cross(walk.cables[i], end, walk.both_ways);
      at = ends_[sized(walk.cables[i++])].node[1 - end];
    };
    const auto backward = [&](int end) {
      cross(walk.cables[j - 1], 1 - end, walk.both_ways);
      to = ends_[sized(walk.cables[--j])].node[1 - end];
    };
    while (i < j) {
      const int first = walk.cables[i], last = walk.cables[j - 1];
      if (graph_.is_medium[sized(first)]) {
        at = attach(at, first);
        ++i;
      } else if (graph_.is_medium[sized(last)]) {
        to = attach(to, last);
        --j;
      } else if (is_end(first, 0, at) || is_end(first, 1, at)) {
        forward(is_end(first, 0, at) ? 0 : 1);
      } else if (is_end(last, 0, to) || is_end(last, 1, to)) {
        backward(is_end(last, 0, to) ? 0 : 1);
      } else if (ends_[sized(first)].node[0] < 0) {
        ends_[sized(first)].node[0] = at;
        ends_[sized(first)].node[1] = i + 1 == j ? to : new_node();
        forward(0);
      } else if (ends_[sized(last)].node[0] < 0) {
        ends_[sized(last)].node[0] = to;
        ends_[sized(last)].node[1] = new_node();
        backward(0);
      } else {
        const int end = entry(walk, i, j);
        if (end < 0 && !decide) return Placed::later;
        if (end < 0 || !unite(ends_[sized(first)].node[end], at)) {
          medium = first;
          return Placed::yes;
        }
      }
    }
    if (find(at) == find(to)) return Placed::yes;
    const bool at_medium = i > 0 && graph_.is_medium[sized(walk.cables[i - 1])];
    const bool to_medium = j < walk.cables.size() && graph_.is_medium[sized(walk.cables[j])];
    if (at_medium && named(find(to)))
      attach(to, walk.cables[i - 1]);
    else if (to_medium && named(find(at)))
      attach(at, walk.cables[j]);
    else if (!unite(at, to))
      medium = walk.cables[i > 0 ? i - 1 : j];
    return Placed::yes;
  }

  // The end at which the way enters its cable i, by the end that this shares with the next; -1: that does not tell.
  int entry(const CableNet::Walk& walk, std::size_t i, std::size_t j) {
    if (i + 1 == j) return -1;
    const Ends &own = ends_[sized(walk.cables[i])], &next = ends_[sized(walk.cables[i + 1])];
    int exit = -1;
    for (const int end : {0, 1})
      for (const int node : next.node)
        if (node >= 0 && find(node) == find(own.node[end])) exit = exit < 0 || exit == end ? end : 2;
    return exit == 0 || exit == 1 ? 1 - exit : -1;
  }

  // Leads onto the medium from a node; the node that the medium is.
  int attach(int node, int cable) {
    const auto found = hub_.find(cable);
    const int hub = found != hub_.end() ? found->second : hub_.emplace(cable, new_node()).first->second;
    if (named(find(node)))
      attached_.insert({find(node), cable});
    else
      unite(node, hub);
    return find(hub);
  }

  void add_edge(int a, int b, double ab_GBps, double ba_GBps, double latency_us, int cable) {
    a = find(a), b = find(b);
    if (a > b) std::swap(a, b), std::swap(ab_GBps, ba_GBps);
    const std::uint64_t key = static_cast<std::uint64_t>(a) << 32 | static_cast<std::uint32_t>(b);
    const auto [found, fresh] = edge_.emplace(key, graph_.edges.size());
    if (fresh) graph_.edges.push_back({a, b, 0, 0, {}, 0, 0});
    CableGraph::Edge& edge = graph_.edges[found->second];
    edge.ab_GBps += ab_GBps, edge.ba_GBps += ba_GBps;
    edge.latency_us = std::max(edge.latency_us, latency_us);
    if (cable >= 0) edge.cables.push_back(cable);
  }

  void add_cables() {
    for (int i = 0; i < static_cast<int>(net_.cables.size()); ++i) {
      const CableNet::Cable& own = net_.cables[sized(i)];
      const Ends& ends = ends_[sized(i)];
      if (graph_.is_medium[sized(i)] || ends.node[0] < 0 || ends.node[1] < 0) continue;
      if (find(ends.node[0]) == find(ends.node[1])) {
        graph_.is_medium[sized(i)] = true;
        graph_.media.push_back({find(ends.node[0]), own, i});
      } else {
        add_edge(ends.node[0], ends.node[1], ends.used[0] ? own.GBps : 0, ends.used[1] ? own.GBps : 0, own.latency_us,
                 i);
      }
    }
    for (const auto& [node, cable] : attached_) {
      const CableNet::Cable& own = net_.cables[sized(cable)];
      add_edge(node, hub_.at(cable), own.GBps, own.GBps, 0, -1);
    }
  }

  void say_how_they_share() {
    int shared = 0, fatpipe = 0;
    std::string first_shared, first_fatpipe;
    const auto count = [&](CableNet::Share share, const std::string& name) {
      if (share == CableNet::Share::shared && shared++ == 0) first_shared = name;
      if (share == CableNet::Share::fatpipe && fatpipe++ == 0) first_fatpipe = name;
    };
    for (std::size_t i = 0; i < net_.cables.size(); ++i) {
      const CableNet::Cable& own = net_.cables[i];
      const bool used = graph_.is_medium[i] || ends_[i].used[0] || ends_[i].used[1];
      const bool both = graph_.is_medium[i] || (ends_[i].used[0] && ends_[i].used[1]);
      if (own.share == CableNet::Share::shared ? both : used) count(own.share, own.name);
    }
    for (const CableNet::Port& port : net_.ports) count(port.share, net_.nodes[sized(port.host)].name);
    if (shared > 0)
      graph_.warnings.push_back(fmt::format(
          "half-duplex links ({}, \"{}\" first), both directions share the rate: here each direction has it", shared,
          first_shared));
    if (fatpipe > 0)
      graph_.warnings.push_back(
          fmt::format("links ({}, \"{}\" first) that give each flow the rate, whatever the others do (FATPIPE): here "
                      "flows share it",
                      fatpipe, first_fatpipe));
  }

  const CableNet& net_;
  const std::string& where_;
  CableGraph graph_;
  std::vector<std::size_t> order_;
  std::vector<int> parent_;
  std::vector<Ends> ends_;
  std::map<int, int> hub_;                  // of media
  std::set<std::pair<int, int>> attached_;  // node, medium
  std::unordered_map<std::uint64_t, std::size_t> edge_;
};

}  // namespace

std::vector<std::vector<int>> CableGraph::edges_of_nodes() const {
  std::vector<std::vector<int>> at(nodes.size());
  for (std::size_t i = 0; i < edges.size(); ++i)
    for (const int node : {edges[i].a, edges[i].b}) at[static_cast<std::size_t>(node)].push_back(static_cast<int>(i));
  return at;
}

std::string CableGraph::called(int node, const CableNet& net) const {
  if (const std::string& name = nodes[static_cast<std::size_t>(node)].name; !name.empty()) return '"' + name + '"';
  for (const Edge& own : edges)
    if ((own.a == node || own.b == node) && !own.cables.empty())
      return fmt::format("the end of link \"{}\"", net.cables[static_cast<std::size_t>(own.cables[0])].name);
  return "a switch without a name";
}

CableGraph graph_of(const CableNet& net, const std::string& where) { return Placement(net, where).run(); }

}  // namespace topomoe
