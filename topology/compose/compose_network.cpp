#include "topology/compose/compose_network.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "topology/names.hpp"
#include "topology/short_host_name.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// The place of a host in the network, by its whole name, or by what is before the first dot of either.
class Places {
 public:
  explicit Places(const Topology& network) {
    for (std::size_t i = 0; i < network.host_names.size(); ++i) {
      const std::string& name = network.host_names[i];
      if (name.empty()) continue;
      whole_.emplace(name, i);
      const auto [known, fresh] = short_.emplace(short_host_name(name), i);
      if (!fresh) known->second = kSeveral;
    }
  }
  std::optional<std::size_t> find(const std::string& name) const {
    if (const auto found = whole_.find(name); found != whole_.end()) return found->second;
    const auto found = short_.find(short_host_name(name));
    if (found == short_.end() || found->second == kSeveral) return std::nullopt;
    return found->second;
  }

 private:
  static constexpr std::size_t kSeveral = static_cast<std::size_t>(-1);
  std::map<std::string, std::size_t> whole_, short_;
};

class Placement {
 public:
  Placement(std::vector<ComposedHost> hosts, const Topology& network, ComposeOptions::Prefer prefer,
            std::vector<std::string>& warnings)
      : hosts_(std::move(hosts)), network_(network), prefer_(prefer), warnings_(warnings) {}

  std::vector<ComposedHost> run() {
    const auto count = static_cast<std::size_t>(network_.host_count());
    if (network_.gpu_count() > 0)
      throw InvalidInput(called(network_), fmt::format("{} GPUs", network_.gpu_count()),
                         "a description of the network alone: topology.conf, ibnetdiscover, or fat-tree:...");
    if (!network_.fabric && network_.hosts_per_domain == 1)
      throw InvalidInput(called(network_), "no network", "it describes hosts alone");
    if (network_.host_names.empty())
      throw InvalidInput(called(network_), "hosts without names", "which host is which cannot be told");
    const Places places(network_);
    std::vector<std::optional<ComposedHost>> by_place(count);
    std::vector<std::string> strangers;
    for (ComposedHost& host : hosts_) {
      const std::optional<std::size_t> place = places.find(host.name);
      if (!place) {
        strangers.push_back(host.name);
        continue;
      }
      if (by_place[*place])
        throw InvalidInput(
            host.name,
            fmt::format("is \"{}\" of the network, as is {}", network_.host_names[*place], by_place[*place]->name),
            "one description for each host");
      take_ports(host, network_.host_template(static_cast<int>(*place)));
      by_place[*place] = std::move(host);
    }
    if (!strangers.empty())
      throw InvalidInput(strangers[0],
                         strangers.size() == 1 ? "not in the network"
                                               : fmt::format("not in the network, and {} more", strangers.size() - 1),
                         fmt::format("{} names {} hosts, \"{}\" first; names must agree, up to the first dot",
                                     called(network_), count, network_.host_name(0)));
    fill_places(by_place);
    return std::move(hosts_);
  }

 private:
  void warn(std::string line) { warnings_.push_back(std::move(line)); }

  // Who has a place and no description stays there, as the network knows it.
  void fill_places(std::vector<std::optional<ComposedHost>>& by_place) {
    hosts_.clear();
    std::size_t absent = 0, first = 0;
    for (std::size_t i = 0; i < by_place.size(); ++i) {
      if (by_place[i]) {
        hosts_.push_back(std::move(*by_place[i]));
        continue;
      }
      if (absent++ == 0) first = i;
      const std::string& name = network_.host_names[i];
      hosts_.push_back({name, "", network_.host_template(static_cast<int>(i)), "", {}});
    }
    if (absent > 0)
      warn(
          fmt::format("{} of {} hosts of the network are not described (\"{}\" first): they keep their place and count "
                      "as hosts without GPUs",
                      absent, by_place.size(), network_.host_name(static_cast<int>(first))));
  }

  // Rails and rates of the NICs as they are cabled.
  void take_ports(ComposedHost& host, const HostTemplate& cabled) {
    if (cabled.nics.empty()) return;
    const auto port_of = [&](const std::string& name) {
      return std::find_if(cabled.nics.begin(), cabled.nics.end(), [&](const Nic& own) { return own.name == name; });
    };
    std::vector<Nic> kept, apart;
    for (const Nic& nic : host.own.nics) (port_of(nic.name) == cabled.nics.end() ? apart : kept).push_back(nic);
    const bool by_order = kept.empty() && apart.size() == cabled.nics.size();
    if (by_order) {
      // On one leaf it is all the same which is which.
      if (network_.fabric && network_.fabric->rail_optimised && prefer_ == ComposeOptions::Prefer::nobody)
        throw InvalidInput(host.name, fmt::format("NICs called {}", names_of(host.own.nics)),
                           fmt::format("the network calls them {}, and each is cabled to a rail of its own: name them "
                                       "alike, or --prefer network to match them by their order",
                                       names_of(cabled.nics)));
      std::swap(kept, apart);
      warn(fmt::format("{}: NICs of other names ({} first, {} on the network): matched by their order", host.name,
                       kept[0].name, cabled.nics[0].name));
    }
    if (kept.size() != cabled.nics.size())
      throw InvalidInput(host.name, fmt::format("{} NICs ({})", host.own.nics.size(), names_of(host.own.nics)),
                         fmt::format("the network has {} of it ({}); describe both at the same time",
                                     cabled.nics.size(), names_of(cabled.nics)));
    for (std::size_t i = 0; i < kept.size(); ++i)
      match(host.name, kept[i], by_order ? cabled.nics[i] : *port_of(kept[i].name));
    if (!apart.empty())
      warn(fmt::format("{}: NICs that this network does not have are left out of it: {}", host.name, names_of(apart)));
    host.own.nics = std::move(kept);
    host.own.shape.reset();  // rails and rates are no longer those of the shape
  }

  static std::string names_of(const std::vector<Nic>& nics) {
    std::string text;
    for (const Nic& nic : nics) text += (text.empty() ? "" : ", ") + nic.name;
    return text.empty() ? "none" : text;
  }

  void match(const std::string& host, Nic& nic, const Nic& cabled) {
    if (nic.rail != cabled.rail && rails_said_++ == 0)
      warn(fmt::format("{} {}: on rail {} by its cable, {} by its place in the host: rails are those of the cables",
                       host, nic.name, cabled.rail, nic.rail));
    nic.rail = cabled.rail;
    const auto known = [](const Rate& rate) {
      return rate.source == Source::measured || rate.source == Source::datasheet;
    };
    const double own = nic.port.GBps_per_direction, other = cabled.port.GBps_per_direction;
    // 2 %: names of rates round (HDR100 is 100 or 103 Gb/s).
    if (std::abs(own - other) <= 0.02 * std::max(own, other)) return;
    if (known(nic.port) && known(cabled.port) && prefer_ == ComposeOptions::Prefer::nobody)
      throw InvalidInput(fmt::format("{} {}", host, nic.name),
                         fmt::format("{} GB/s, and {} on the network", short_number(own), short_number(other)),
                         "whom to believe: --prefer hosts or --prefer network; is the port at full width?");
    const bool take_cable =
        prefer_ == ComposeOptions::Prefer::network || (prefer_ == ComposeOptions::Prefer::nobody && !known(nic.port));
    warn(fmt::format("{} {}: {} GB/s ({}), and {} on the network ({}): {} is taken", host, nic.name, short_number(own),
                     source_text(nic.port.source, nic.port.source_note), short_number(other),
                     source_text(cabled.port.source, cabled.port.source_note), short_number(take_cable ? other : own)));
    if (take_cable) nic.port = cabled.port;
  }

  std::vector<ComposedHost> hosts_;
  const Topology& network_;
  const ComposeOptions::Prefer prefer_;
  std::vector<std::string>& warnings_;
  int rails_said_ = 0;
};

}  // namespace

std::vector<ComposedHost> placed_on_network(std::vector<ComposedHost> hosts, const Topology& network,
                                            ComposeOptions::Prefer prefer, std::vector<std::string>& warnings) {
  return Placement(std::move(hosts), network, prefer, warnings).run();
}

}  // namespace topomoe
