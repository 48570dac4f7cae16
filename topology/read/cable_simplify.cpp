#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "topology/read/cable_graph.hpp"

namespace topomoe {
namespace {

class Simplifier {
 public:
  Simplifier(CableGraph& graph, const CableNet& net) : graph_(graph), net_(net) {}

  void run() {
    prune();
    for (std::size_t before = 0; before != graph_.edges.size();) {
      before = graph_.edges.size();
      contract();
      join_directions();
    }
    one_rate_each();
    part_hosts_that_pass_on();
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
      Edge &own = graph_.edges[sized(near)], &rest = graph_.edges[sized(far)];
      const double there = std::min(from(own, a), from(rest, node)), back = std::min(from(rest, b), from(own, node));
      // A switch between two hosts stays, unless it is one of their two directions.
      if (a == b || there + back == 0 || (graph_.is_host(a) && graph_.is_host(b) && there > 0 && back > 0)) continue;
      if (own.cables.size() < rest.cables.size()) own.cables.swap(rest.cables);
      own.cables.insert(own.cables.end(), rest.cables.begin(), rest.cables.end());
      own.latency_us += rest.latency_us;
      own.a = a, own.b = b, own.ab_GBps = there, own.ba_GBps = back;
      gone[sized(far)] = true;
      now[sized(far)] = near;
    }
    remove(gone);
  }

  static double from(const Edge& own, int node) { return own.a == node ? own.ab_GBps : own.ba_GBps; }

  // Two edges between the same nodes, each in one direction.
  void join_directions() {
    std::map<std::pair<int, int>, std::size_t> first;
    std::vector<bool> gone(graph_.edges.size());
    for (std::size_t i = 0; i < graph_.edges.size(); ++i) {
      Edge& own = graph_.edges[i];
      if (own.a > own.b) std::swap(own.a, own.b), std::swap(own.ab_GBps, own.ba_GBps);
      const auto [found, fresh] = first.emplace(std::pair(own.a, own.b), i);
      Edge& other = graph_.edges[found->second];
      const bool fit = (own.ab_GBps == 0 && other.ba_GBps == 0) || (own.ba_GBps == 0 && other.ab_GBps == 0);
      if (fresh || !fit) continue;
      other.ab_GBps += own.ab_GBps, other.ba_GBps += own.ba_GBps;
      other.latency_us = std::max(other.latency_us, own.latency_us);
      other.cables.insert(other.cables.end(), own.cables.begin(), own.cables.end());
      gone[i] = true;
    }
    remove(gone);
  }

  CableGraph& graph_;
  const CableNet& net_;
};

}  // namespace

void simplify(CableGraph& graph, const CableNet& net) { Simplifier(graph, net).run(); }

}  // namespace topomoe
