// What NCCL chose, for people and for programs.
#include <fmt/format.h>

#include <map>

#include "topology/names.hpp"
#include "topology/read/json_fields.hpp"
#include "topomoe/nccl_graph.hpp"

namespace topomoe {
namespace {

constexpr std::size_t kMaxOrders = 16;

std::string order_of(const std::vector<NcclGraph::Node>& channel, bool hosts) {
  std::string out;
  for (const NcclGraph::Node& node : channel) {
    out += out.empty() ? "" : " ";
    if (hosts) out += fmt::format("host{}.", node.host);
    out += fmt::format("{}{}", node.net ? "net" : "gpu", node.dev);
  }
  return out;
}

// Equal orders together, in the order of their first channel.
std::vector<std::pair<std::string, int>> orders_of(const NcclGraph::Search& search) {
  bool hosts = false;
  for (const auto& channel : search.channels)
    for (const NcclGraph::Node& node : channel) hosts = hosts || node.host > 0;
  std::vector<std::pair<std::string, int>> out;
  std::map<std::string, std::size_t> known;
  for (const auto& channel : search.channels) {
    const auto [at, fresh] = known.emplace(order_of(channel, hosts), out.size());
    if (fresh) out.emplace_back(at->first, 0);
    ++out[at->second].second;
  }
  return out;
}

bool has_nets(const NcclGraph::Search& search) { return !search.channels.empty() && search.channels[0][0].net; }

std::string text_of(const NcclGraph::Search& search, const NcclSearchUse& use) {
  if (search.channels.empty()) return fmt::format("  {}: no channels\n", name(search));
  const std::size_t count = search.channels.size();
  const auto rate = [&](double GBps) {
    return fmt::format("{} x {} = {} GB/s", count, short_number(GBps), short_number(static_cast<double>(count) * GBps));
  };
  std::string out =
      fmt::format("  {}: {} channel{}{}, in the node {} by {}", name(search), count, count == 1 ? "" : "s",
                  search.same_channels ? ", all alike" : "", rate(search.intra_GBps), name(search.intra));
  if (has_nets(search))
    out += fmt::format(", between nodes {} by {}{}", rate(search.inter_GBps), name(search.inter),
                       search.cross_nic != 0 ? ", crossing NICs" : "");
  out += '\n';
  const auto orders = orders_of(search);
  for (std::size_t i = 0; i < std::min(orders.size(), kMaxOrders); ++i)
    out +=
        fmt::format("    {}{}\n", orders[i].first, orders[i].second > 1 ? fmt::format("  x {}", orders[i].second) : "");
  if (orders.size() > kMaxOrders) out += fmt::format("    and {} orders more\n", orders.size() - kMaxOrders);
  const auto& most = use.bottleneck;
  if (most.channels > 0)
    out += fmt::format("    bottleneck {}: {} of the channels cross it, {} of {} GB/s\n", most.name, most.channels,
                       short_number(most.asked_GBps), short_number(most.GBps_per_direction));
  for (const std::string& line : use.notes) out += "    ! " + line + '\n';
  return out;
}

}  // namespace

std::string nccl_graph_text(const NcclGraph& graph, const Topology& topology, const std::string& where) {
  const std::vector<NcclSearchUse> uses = use_of_nccl_graph(graph, topology, where);
  std::string out = fmt::format("\nNCCL graph {}: GPUs and nets by NCCL's numbers, GB/s as NCCL counts\n", where);
  for (std::size_t i = 0; i < uses.size(); ++i) out += text_of(graph.searches[i], uses[i]);
  for (const std::string& line : graph.warnings) out += "  ! " + line + '\n';
  return out;
}

std::string with_nccl_graph_json(const std::string& shown, const NcclGraph& graph, const Topology& topology,
                                 const std::string& where) {
  using Json = nlohmann::ordered_json;
  const std::vector<NcclSearchUse> uses = use_of_nccl_graph(graph, topology, where);
  Json json = Json::parse(shown), own = Json::array();
  for (std::size_t i = 0; i < uses.size(); ++i) {
    const NcclGraph::Search& search = graph.searches[i];
    const NcclSearchUse& use = uses[i];
    Json value;
    value["id"] = search.id;
    value["pattern"] = name(search);
    value["channels"] = search.channels.size();
    value["channel_intra_GBps"] = json_number(search.intra_GBps);
    value["channel_inter_GBps"] = json_number(search.inter_GBps);
    value["intra_path_class"] = name(search.intra);
    value["inter_path_class"] = name(search.inter);
    value["cross_nic"] = search.cross_nic;
    value["same_channels"] = search.same_channels;
    value["orders"] = Json::array();
    for (const auto& [order, times] : orders_of(search))
      value["orders"].push_back({{"devices", order}, {"channels", times}});
    const auto link = [](const NcclSearchUse::LinkUse& of) {
      return Json{{"link", of.name},
                  {"channels", of.channels},
                  {"asked_GBps", json_number(of.asked_GBps)},
                  {"GBps_per_direction", json_number(of.GBps_per_direction)}};
    };
    value["bottleneck"] = use.bottleneck.channels > 0 ? link(use.bottleneck) : Json();
    value["links"] = Json::array();
    for (const NcclSearchUse::LinkUse& of : use.links) value["links"].push_back(link(of));
    value["notes"] = use.notes;
    own.push_back(std::move(value));
  }
  json["nccl_graph"] = std::move(own);
  for (const std::string& line : graph.warnings) json["warnings"].push_back("NCCL graph: " + line);
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace topomoe
