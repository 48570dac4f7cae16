#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "topology/cable_graph.hpp"

namespace topomoe {
namespace {

class Simplifier {
 public:
  Simplifier(CableGraph& graph, const CableNet& net) : graph_(graph), net_(net) {}

  void run() {
    one_rate_each();
    part_hosts_that_pass_on();
    prune();
    contract();
  }

 private:
  using Edge = CableGraph::Edge;
  static std::size_t sized(int index) { return static_cast<std::size_t>(index); }
  int new_switch(const std::string& name) {
    graph_.nodes.push_back({name, false});
    return static_cast<int>(graph_.nodes.size()) - 1;
  }
  void warn(std::string line) { graph_.warnings.push_back(std::move(line)); }

  void one_rate_each() {
    int uneven = 0;
    std::string first;
    for (Edge& own : graph_.edges) {
      own.GBps = std::min(own.ab_GBps, own.ba_GBps);
      if (own.ab_GBps == own.ba_GBps) continue;
      if (uneven++ == 0) first = graph_.called(own.a, net_) + " to " + graph_.called(own.b, net_);
      if (own.GBps == 0) own.GBps = std::max(own.ab_GBps, own.ba_GBps);
    }
    if (uneven > 0)
      warn(fmt::format(
          "links ({}, {} first) that carry less in one direction than in the other, or lie on no way back: the "
          "lower rate that is known counts both ways",
          uneven, first));
  }

  void part_hosts_that_pass_on() {
    const auto at = graph_.edges_of_nodes();
    std::string names;
    int parted = 0;
    for (int node = 0; node < static_cast<int>(net_.nodes.size()); ++node) {
      if (!graph_.is_host(node) || at[sized(node)].size() < 2) continue;
      const std::string name = graph_.nodes[sized(node)].name;
      if (parted++ < 3) names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", name);
      const int beside = new_switch(name);
      for (const int own : at[sized(node)]) {
        Edge& edge = graph_.edges[sized(own)];
        (edge.a == node ? edge.a : edge.b) = beside;
      }
      graph_.edges.push_back({node, beside, kNoLimit, 0, {}, 0, 0});
    }
    if (parted > 0)
      warn(fmt::format(
          "hosts ({}: {}{}) that pass on what others send: each stands at a switch of its name, and sends at the "
          "rate of all its links together",
          parted, names, parted > 3 ? ", ..." : ""));
    // Two hosts and a cable: a switch in the middle of it.
    for (std::size_t i = 0, end = graph_.edges.size(); i < end; ++i) {
      Edge& own = graph_.edges[i];
      if (!graph_.is_host(own.a) || !graph_.is_host(own.b)) continue;
      own.latency_us /= 2;
      Edge half = own;
      half.cables.clear();
      own.b = half.a = new_switch("");
      graph_.edges.push_back(std::move(half));
    }
  }

  void prune() {
    const auto at = graph_.edges_of_nodes();
    std::vector<std::size_t> degree;
    for (const auto& own : at) degree.push_back(own.size());
    std::vector<bool> gone(graph_.edges.size());
    std::vector<int> ends;
    const auto is_end = [&](int node) { return !graph_.is_host(node) && degree[sized(node)] == 1; };
    for (int node = 0; node < static_cast<int>(graph_.nodes.size()); ++node)
      if (is_end(node)) ends.push_back(node);
    const int first = ends.empty() ? -1 : ends.back();
    int pruned = 0;
    while (!ends.empty()) {
      const int node = ends.back();
      ends.pop_back();
      for (const int own : at[sized(node)]) {
        if (gone[sized(own)]) continue;
        gone[sized(own)] = true;
        ++pruned;
        const int next = graph_.other(own, node);
        --degree[sized(next)];
        if (is_end(next)) ends.push_back(next);
      }
    }
    if (pruned == 0) return;
    warn(fmt::format("routers ({}, {} first) that lead to no further host: left out", pruned,
                     graph_.called(first, net_)));
    remove(gone);
  }

  void remove(const std::vector<bool>& gone) {
    std::vector<Edge> kept;
    for (std::size_t i = 0; i < gone.size(); ++i)
      if (!gone[i]) kept.push_back(std::move(graph_.edges[i]));
    graph_.edges = std::move(kept);
  }

  void contract() {
    std::set<int> kept;
    for (const CableGraph::Medium& own : graph_.media) kept.insert(own.node);
    const auto at = graph_.edges_of_nodes();
    std::vector<bool> gone(graph_.edges.size());
    std::vector<int> now(graph_.edges.size());  // the edge that took over
    for (std::size_t i = 0; i < now.size(); ++i) now[i] = static_cast<int>(i);
    const auto live = [&](int own) {
      while (now[sized(own)] != own) own = now[sized(own)] = now[sized(now[sized(own)])];
      return own;
    };
    for (int node = 0; node < static_cast<int>(graph_.nodes.size()); ++node) {
      if (graph_.is_host(node) || at[sized(node)].size() != 2 || kept.count(node) > 0) continue;
      int near = live(at[sized(node)][0]), far = live(at[sized(node)][1]);
      if (near == far) continue;
      const int a = graph_.other(near, node), b = graph_.other(far, node);
      if ((graph_.is_host(a) && graph_.is_host(b)) || a == b) continue;
      Edge &own = graph_.edges[sized(near)], &rest = graph_.edges[sized(far)];
      if (own.cables.size() < rest.cables.size()) own.cables.swap(rest.cables);
      own.cables.insert(own.cables.end(), rest.cables.begin(), rest.cables.end());
      own.GBps = std::min(own.GBps, rest.GBps);
      own.latency_us += rest.latency_us;
      (own.a == node ? own.a : own.b) = b;
      gone[sized(far)] = true;
      now[sized(far)] = near;
    }
    remove(gone);
  }

  CableGraph& graph_;
  const CableNet& net_;
};

}  // namespace

void simplify(CableGraph& graph, const CableNet& net) { Simplifier(graph, net).run(); }

}  // namespace topomoe
