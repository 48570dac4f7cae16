#include <fmt/format.h>

#include "topology/read/cable_graph.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

std::size_t sized(int index) { return static_cast<std::size_t>(index); }

}  // namespace

void check_walks(const CableGraph& graph, const CableNet& net, const std::vector<int>& roots) {
  const std::vector<std::vector<int>> at = graph.edges_of_nodes();
  std::vector<int> up(graph.nodes.size(), -1), depth(graph.nodes.size(), -1), order(roots);
  for (const int host : order) depth[sized(host)] = 0;
  for (std::size_t i = 0; i < order.size(); ++i)
    for (const int own : at[sized(order[i])])
      if (const int next = graph.other(own, order[i]); depth[sized(next)] < 0) {
        depth[sized(next)] = depth[sized(order[i])] + 1;
        up[sized(next)] = own;
        order.push_back(next);
      }
  // Of each cable, where it is: an edge, or beyond them the node of a medium. Of each, the walk that was there last.
  const int edges = static_cast<int>(graph.edges.size());
  std::vector<int> place(net.cables.size(), -1), crossed(graph.edges.size() + graph.nodes.size(), -1), named(crossed),
      media(graph.nodes.size());
  for (int i = 0; i < edges; ++i)
    for (const int cable : graph.edges[sized(i)].cables) place[sized(cable)] = i;
  for (const CableGraph::Medium& own : graph.media)
    if (own.index >= 0) place[sized(own.index)] = edges + own.node, ++media[sized(own.node)];
  for (int number = 0; number < static_cast<int>(net.walks.size()); ++number) {
    const CableNet::Walk& walk = net.walks[sized(number)];
    int a = walk.from, b = walk.to;
    if (depth[sized(a)] < 0 || depth[sized(b)] < 0) continue;  // to a router that leads nowhere
    for (const int cable : walk.cables)
      if (const int own = place[sized(cable)]; own >= 0) named[sized(own)] = number;
    bool fits = true;
    const auto cross = [&](int own, bool has_cables) {
      crossed[sized(own)] = number;
      fits = fits && (!has_cables || named[sized(own)] == number);
    };
    while (a != b && depth[sized(a)] + depth[sized(b)] > 0) {
      int& deeper = depth[sized(a)] >= depth[sized(b)] ? a : b;
      const int own = up[sized(deeper)];
      cross(edges + deeper, media[sized(deeper)] > 0);
      cross(own, !graph.edges[sized(own)].cables.empty());
      deeper = graph.other(own, deeper);
    }
    cross(edges + a, media[sized(a)] > 0);
    for (const int cable : walk.cables)
      fits = fits && place[sized(cable)] >= 0 && crossed[sized(place[sized(cable)])] == number;
    if (!fits || a != b)
      throw InvalidInput(walk.line,
                         fmt::format("the way from \"{}\" to \"{}\" does not fit the other routes",
                                     graph.nodes[sized(walk.from)].name, graph.nodes[sized(walk.to)].name),
                         "read are routes that together make one tree of hosts and switches");
  }
}

}  // namespace topomoe
