#include "topomoe/layout.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "planner/plan/json.hpp"
#include "planner/plan/names.hpp"

namespace topomoe {

namespace {

constexpr NameTable<Role, kRoleCount> kRoles = {{{Role::ep, "ep"},
                                                 {Role::etp, "etp"},
                                                 {Role::tp, "tp"},
                                                 {Role::edp, "edp"},
                                                 {Role::node, "node"},
                                                 {Role::rail, "rail"},
                                                 {Role::dp, "dp"},
                                                 {Role::cp, "cp"},
                                                 {Role::pp, "pp"}}};
constexpr NameTable<ExpertOrder, 2> kExpertOrders = {
    {{ExpertOrder::ep_inner, "ep_inner"}, {ExpertOrder::edp_inner, "edp_inner"}}};

// Members of a group along one dimension: first, first + stride, ... `size` of them.
struct Progression {
  int first, stride, size;
  int at(int i) const { return first + i * stride; }
};

Progression along(const Layout& l, Role role, int rank) {
  const bool ep_inner = l.expert_order == ExpertOrder::ep_inner;
  int stride = 1, size = 1;
  switch (role) {
    case Role::tp: size = l.tp; break;
    case Role::cp: stride = l.tp, size = l.cp; break;
    case Role::dp: stride = l.tp * l.cp, size = l.dp; break;
    case Role::pp: stride = l.world / l.pp, size = l.pp; break;
    case Role::etp: size = l.etp; break;
    case Role::ep: stride = ep_inner ? l.etp : l.etp * l.edp, size = l.ep; break;
    case Role::edp: stride = ep_inner ? l.etp * l.ep : l.etp, size = l.edp; break;
    case Role::node:
    case Role::rail: TOPOMOE_ASSERT(false && "node and rail are parts of the EP group");
  }
  return {rank - rank / stride % size * stride, stride, size};
}

// The EP group of a rank as seen from its nodes.
struct EpOnNodes {
  Progression ep;
  int gpus_per_node;
  int node_of(int i) const { return ep.at(i) / gpus_per_node; }
  // Indices [first, last) in the EP group of the members on the node of member i; ascending ranks make them
  // consecutive.
  std::pair<int, int> node_part(int i) const {
    const int node = node_of(i);
    const int low = node * gpus_per_node;
    const auto count_below = [&](int bound) {  // members with rank < bound
      return bound <= ep.first ? 0 : std::min(ep.size, (bound - ep.first + ep.stride - 1) / ep.stride);
    };
    return {count_below(low), count_below(low + gpus_per_node)};
  }
  template <class Visit>  // visit(first, last) for each node's part
  void each_node(Visit visit) const {
    for (int i = 0; i < ep.size;) {
      const auto [first, last] = node_part(i);
      visit(first, last);
      i = last;
    }
  }
};

}  // namespace

std::string_view to_string(Role v) { return name_of(kRoles, v); }
Role role_from(std::string_view text, std::string_view field) { return value_of(kRoles, text, field); }
std::string_view to_string(ExpertOrder v) { return name_of(kExpertOrders, v); }
ExpertOrder expert_order_from(std::string_view text, std::string_view field) {
  return value_of(kExpertOrders, text, field);
}

Layout make_layout(int world, int tp, int cp, int pp, int etp, int ep, ExpertOrder order) {
  const std::pair<const char*, int> given[] = {{"world", world}, {"tp", tp},   {"cp", cp},
                                               {"pp", pp},       {"etp", etp}, {"ep", ep}};
  for (const auto& [field, value] : given)
    if (value <= 0) throw InvalidInput(std::string("layout: ") + field, std::to_string(value), "must be positive");
  const auto derive = [&](const char* field, const char* product, long long divisor) {
    if (world % divisor != 0)
      throw InvalidInput(std::string("layout: ") + field, fmt::format("{}/{}", world, divisor),
                         fmt::format("{} must divide world = {}", product, world));
    return static_cast<int>(world / divisor);
  };
  Layout l;
  l.world = world, l.tp = tp, l.cp = cp, l.pp = pp, l.etp = etp, l.ep = ep, l.expert_order = order;
  l.dp = derive("dp", "tp*cp*pp", 1LL * tp * cp * pp);
  l.edp = derive("edp", "etp*ep*pp", 1LL * etp * ep * pp);
  return l;
}

void check(const Layout& l, int experts, std::string_view where) {
  const auto fail = [&](const char* field, const std::string& value, const std::string& hint) {
    throw InvalidInput(std::string(where) + ": " + field, value, hint);
  };
  const std::pair<const char*, int> sizes[] = {{"world", l.world}, {"tp", l.tp}, {"cp", l.cp},
                                               {"dp", l.dp},       {"pp", l.pp}, {"vpp", l.vpp},
                                               {"etp", l.etp},     {"ep", l.ep}, {"edp", l.edp}};
  for (const auto& [field, value] : sizes) {
    if (value <= 0) fail(field, std::to_string(value), "must be positive");
    if (value > kMaxRanks) fail(field, std::to_string(value), "must be at most " + std::to_string(kMaxRanks));
  }
  if (l.zero < 0 || l.zero > 3) fail("zero", std::to_string(l.zero), "must be 0, 1, 2 or 3");
  if (l.zero > 1 && l.pp > 1)
    fail("zero", std::to_string(l.zero), "must be at most 1 with pp = " + std::to_string(l.pp));
  // In doubles: exact up to 2^53 and without overflow beyond.
  const double attention = 1.0 * l.tp * l.cp * l.dp * l.pp, expert = 1.0 * l.etp * l.ep * l.edp * l.pp;
  const auto mend = [&](const char* field, double product, int now) {
    const double rest = product / now;
    return l.world >= rest && l.world == rest * static_cast<int>(l.world / rest)
               ? fmt::format("must equal world = {}; {} = {} does it", l.world, field, static_cast<int>(l.world / rest))
               : fmt::format("must equal world = {}", l.world);
  };
  if (attention != l.world) fail("tp*cp*dp*pp", fmt::format("{:.0f}", attention), mend("dp", attention, l.dp));
  if (expert != l.world) fail("etp*ep*edp*pp", fmt::format("{:.0f}", expert), mend("edp", expert, l.edp));
  if (experts <= 0 || experts % l.ep != 0) {
    int below = l.ep, above = l.ep;
    while (below > 1 && experts % below != 0) --below;
    while (above < experts && experts % above != 0) ++above;
    fail("ep", std::to_string(l.ep),
         fmt::format("must divide the {} experts; nearest: {}{}", experts, below,
                     above <= experts && above != below && experts % above == 0 ? fmt::format(" or {}", above) : ""));
  }
  if (l.etp != 1 && l.etp != l.tp && l.ep != 1)
    fail("etp", std::to_string(l.etp), fmt::format("must be 1 or tp = {} (any where ep = 1)", l.tp));
  if (l.sequence_parallel && l.tp == 1) fail("sequence_parallel", "true", "has no meaning with tp = 1");
  if (l.vpp > 1 && l.pp == 1) fail("vpp", std::to_string(l.vpp), "must be 1 with pp = 1");
}

Coordinates coordinates(const Layout& l, int rank) {
  const auto place = [&](Role role) { return index_in(l, role, rank, 1); };
  return {place(Role::tp),  place(Role::cp), place(Role::dp), place(Role::pp),
          place(Role::etp), place(Role::ep), place(Role::edp)};
}

std::vector<int> members(const Layout& l, Role role, int rank, int gpus_per_node) {
  std::vector<int> group;
  if (role == Role::node || role == Role::rail) {
    const EpOnNodes ep{along(l, Role::ep, rank), gpus_per_node};
    const int mine = (rank - ep.ep.first) / ep.ep.stride;
    const auto [first, last] = ep.node_part(mine);
    if (role == Role::node) {
      for (int i = first; i < last; ++i) group.push_back(ep.ep.at(i));
    } else {
      ep.each_node([&, index = mine - first](int from, int to) {
        if (from + index < to) group.push_back(ep.ep.at(from + index));
      });
    }
    return group;
  }
  const Progression p = along(l, role, rank);
  for (int i = 0; i < p.size; ++i) group.push_back(p.at(i));
  return group;
}

int index_in(const Layout& l, Role role, int rank, int gpus_per_node) {
  if (role == Role::rail) {
    const auto rail = members(l, role, rank, gpus_per_node);
    return static_cast<int>(std::lower_bound(rail.begin(), rail.end(), rank) - rail.begin());
  }
  const Progression p = along(l, role == Role::node ? Role::ep : role, rank);
  const int index = (rank - p.first) / p.stride;
  return role == Role::node ? index - EpOnNodes{p, gpus_per_node}.node_part(index).first : index;
}

int group_size(const Layout& l, Role role, int rank, int gpus_per_node) {
  if (role == Role::rail) return static_cast<int>(members(l, role, rank, gpus_per_node).size());
  if (role != Role::node) return along(l, role, rank).size;
  const Progression p = along(l, Role::ep, rank);
  const auto [first, last] = EpOnNodes{p, gpus_per_node}.node_part((rank - p.first) / p.stride);
  return last - first;
}

bool even_nodes(const Layout& l, int gpus_per_node) {
  int size = 0;
  // How a group falls on nodes depends only on where its first member stands in its node.
  std::vector<bool> seen(static_cast<std::size_t>(gpus_per_node), false);
  for (int rank = 0; rank < l.world; ++rank) {
    const auto offset = static_cast<std::size_t>(rank % gpus_per_node);
    if (seen[offset] || index_in(l, Role::ep, rank, 1) != 0) continue;
    seen[offset] = true;
    bool even = true;
    EpOnNodes{along(l, Role::ep, rank), gpus_per_node}.each_node([&](int first, int last) {
      if (size == 0) size = last - first;
      even = even && last - first == size;
    });
    if (!even) return false;
  }
  return true;
}

int nodes_spanned(const Layout& l, int rank, int gpus_per_node) {
  int nodes = 0;
  EpOnNodes{along(l, Role::ep, rank), gpus_per_node}.each_node([&](int, int) { ++nodes; });
  return nodes;
}

std::vector<int> layers_of_stage(const Layout& l, int layers, int stage) {
  std::vector<int> mine;
  const int chunks = l.pp * l.vpp, base = layers / chunks, longer = layers % chunks;
  for (int chunk = stage; chunk < chunks; chunk += l.pp) {
    const int first = chunk * base + std::min(chunk, longer);
    for (int i = 0; i < base + (chunk < longer ? 1 : 0); ++i) mine.push_back(first + i);
  }
  return mine;
}

std::string name(const Layout& l) {
  return fmt::format("TP{} CP{} DP{} PP{}{}{} | ETP{} EP{} EDP{}{}{}", l.tp, l.cp, l.dp, l.pp,
                     l.vpp > 1 ? fmt::format(" VPP{}", l.vpp) : "", l.zero != 1 ? fmt::format(" ZeRO{}", l.zero) : "",
                     l.etp, l.ep, l.edp, l.expert_order == ExpertOrder::edp_inner ? ", EDP inner" : "",
                     l.sequence_parallel ? ", SP" : "");
}

ordered_json to_json(const Layout& l) {
  return {{"world", l.world},
          {"tp", l.tp},
          {"cp", l.cp},
          {"dp", l.dp},
          {"pp", l.pp},
          {"vpp", l.vpp},
          {"etp", l.etp},
          {"ep", l.ep},
          {"edp", l.edp},
          {"expert_order", to_string(l.expert_order)},
          {"sequence_parallel", l.sequence_parallel},
          {"zero", l.zero}};
}

Layout layout_from_json(const ordered_json& json, const std::string& where) {
  ObjectReader in(json, where);
  Layout l;
  const std::pair<const char*, int*> sizes[] = {{"world", &l.world}, {"tp", &l.tp}, {"cp", &l.cp},
                                                {"dp", &l.dp},       {"pp", &l.pp}, {"vpp", &l.vpp},
                                                {"etp", &l.etp},     {"ep", &l.ep}, {"edp", &l.edp}};
  for (const auto& [key, value] : sizes) *value = in.integer(key, 1, kMaxRanks);
  l.expert_order = expert_order_from(in.text("expert_order"), in.field("expert_order"));
  l.sequence_parallel = in.boolean("sequence_parallel");
  l.zero = in.integer("zero", 0, 3);
  in.finish();
  check(l, l.ep, where);  // products; whether EP divides the experts is checked beside the model
  return l;
}

}  // namespace topomoe
