// Colour refinement: flows and resources begin with the colour of their figures and are told apart by the
// colours they touch, until no colour splits. Then flows of a colour have the same rate (max-min fair rates are
// unique, so that no rule could tell them apart), finish together, and what remains is again such a partition.
// Then resources that another one outweighs are dropped: of the hops of a route, a few can ever be full.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <unordered_map>

#include "planner/fluid.hpp"

namespace topomoe {
namespace {

// Chains longer than this are rare in a fabric; beyond it nothing is merged, which is only slower.
constexpr int kRounds = 32;

std::size_t at(int i) { return static_cast<std::size_t>(i); }

// SplitMix64's finaliser (Steele et al. 2014). Two different signatures collide with 2^-64.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}
std::uint64_t mix(std::uint64_t a, std::uint64_t b) { return mix(a ^ mix(b)); }
std::uint64_t mix(std::uint64_t a, double b) { return mix(a, std::bit_cast<std::uint64_t>(b)); }

// Signatures become 0, 1, 2 ... in order of appearance.
int number(const std::vector<std::uint64_t>& signature, std::vector<int>& colour) {
  std::unordered_map<std::uint64_t, int> known;
  for (std::size_t i = 0; i < signature.size(); ++i)
    colour[i] = known.emplace(signature[i], static_cast<int>(known.size())).first->second;
  return static_cast<int>(known.size());
}

// Resource a never decides anything where some b carries all flows of a and each fills no smaller part of b:
// load(a) / capacity(a) <= load(b) / capacity(b) at any rates.
void drop_outweighed(std::vector<Flow>& flows, const std::vector<double>& capacity) {
  std::vector<std::vector<int>> users(capacity.size());
  for (std::size_t f = 0; f < flows.size(); ++f)
    for (const auto& [r, weight] : flows[f].uses)
      if (users[at(r)].empty() || users[at(r)].back() != static_cast<int>(f))
        users[at(r)].push_back(static_cast<int>(f));
  const auto part = [&](int f, std::size_t r) {
    double weight = 0;
    for (const auto& [other, w] : flows[at(f)].uses)
      if (at(other) == r) weight += w;
    return weight / capacity[r];
  };
  std::vector<char> dropped(capacity.size());
  for (std::size_t a = 0; a < capacity.size(); ++a) {
    if (users[a].empty()) continue;
    for (const auto& [candidate, weight] : flows[at(users[a].front())].uses) {
      const std::size_t b = at(candidate);
      if (b == a || dropped[b] || users[b].size() < users[a].size()) continue;
      dropped[a] = std::all_of(users[a].begin(), users[a].end(), [&](int f) { return part(f, a) <= part(f, b); });
      if (dropped[a]) break;
    }
  }
  for (Flow& f : flows) std::erase_if(f.uses, [&](const auto& use) { return dropped[at(use.first)] != 0; });
}

FlowClasses each_its_own(std::span<const Flow> flows, std::span<const double> capacity) {
  FlowClasses c{{flows.begin(), flows.end()}, {capacity.begin(), capacity.end()}, {}};
  for (int f = 0; f < static_cast<int>(flows.size()); ++f) c.of_flow.push_back(f);
  drop_outweighed(c.flows, c.capacity);
  return c;
}

}  // namespace

FlowClasses flow_classes(std::span<const Flow> flows, std::span<const double> capacity) {
  std::vector<std::uint64_t> of_flow(flows.size()), of_resource(capacity.size());
  std::vector<int> flow(flows.size()), resource(capacity.size());
  for (std::size_t f = 0; f < flows.size(); ++f) {
    const bool free = flows[f].queue < 0 && flows[f].after.empty();
    of_flow[f] = free ? mix(mix(1, flows[f].work), flows[f].limit) : mix(2, std::uint64_t{f});
  }
  for (std::size_t r = 0; r < capacity.size(); ++r) of_resource[r] = mix(3, capacity[r]);
  int flow_colours = number(of_flow, flow), resource_colours = number(of_resource, resource);
  bool stable = false;
  for (int round = 0; round < kRounds && !stable && flow_colours < static_cast<int>(flows.size()); ++round) {
    for (std::size_t r = 0; r < capacity.size(); ++r) of_resource[r] = mix(static_cast<std::uint64_t>(resource[r]));
    for (std::size_t f = 0; f < flows.size(); ++f)  // sums: the order of users does not matter
      for (const auto& [r, weight] : flows[f].uses)
        of_resource[at(r)] += mix(mix(4, weight), static_cast<std::uint64_t>(flow[f]));
    const int resources_now = number(of_resource, resource);
    for (std::size_t f = 0; f < flows.size(); ++f) {
      of_flow[f] = mix(static_cast<std::uint64_t>(flow[f]));
      for (const auto& [r, weight] : flows[f].uses)
        of_flow[f] += mix(mix(5, weight), static_cast<std::uint64_t>(resource[at(r)]));
    }
    const int flows_now = number(of_flow, flow);
    stable = flows_now == flow_colours && resources_now == resource_colours;
    flow_colours = flows_now, resource_colours = resources_now;
  }
  if (!stable || flow_colours == static_cast<int>(flows.size())) return each_its_own(flows, capacity);

  FlowClasses out;
  out.of_flow = flow;
  out.flows.resize(at(flow_colours));
  out.capacity.resize(at(resource_colours));
  std::vector<int> example(at(resource_colours), -1);
  for (std::size_t r = 0; r < capacity.size(); ++r) {
    if (example[at(resource[r])] >= 0) continue;
    example[at(resource[r])] = static_cast<int>(r);
    out.capacity[at(resource[r])] = capacity[r];
  }
  for (std::size_t f = 0; f < flows.size(); ++f) {
    Flow& c = out.flows[at(flow[f])];
    c.work = flows[f].work, c.limit = flows[f].limit, c.queue = flows[f].queue;
    for (const int a : flows[f].after) c.after.push_back(flow[at(a)]);
    for (const auto& [r, weight] : flows[f].uses) {
      if (example[at(resource[at(r)])] != r) continue;
      const int mine = resource[at(r)];
      bool added = false;
      for (auto& [known, sum] : c.uses)
        if (known == mine) sum += weight, added = true;
      if (!added) c.uses.emplace_back(mine, weight);
    }
  }
  drop_outweighed(out.flows, out.capacity);
  return out;
}

}  // namespace topomoe
