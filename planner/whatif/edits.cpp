#include "planner/whatif/edits.hpp"

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

void set_links(HostTemplate& host, LinkKind kind, double GBps, const std::string& text) {
  bool any = false;
  for (Link& link : host.links)
    if (link.kind == kind)
      link.GBps_per_direction = GBps, link.source = Source::assumed, link.source_note = text, any = true;
  if (!any) throw InvalidInput("--set", text, host.name + " has no such link");
  host.shape.reset();
}

void set_ports(HostTemplate& host, double GBps, const std::string& text) {
  if (host.nics.empty()) throw InvalidInput("--set", text, host.name + " has no NIC");
  for (Nic& nic : host.nics)
    nic.port.GBps_per_direction = GBps, nic.port.source = Source::assumed, nic.port.source_note = text;
  host.shape.reset();
}

}  // namespace

Topology edited(const Topology& topology, const std::vector<std::string>& set, const std::vector<std::string>& degrade,
                const std::vector<std::string>& remove) {
  Topology t = topology;
  for (const std::string& text : set) {
    const auto equals = text.find('=');
    const std::string key = text.substr(0, equals);
    const double value = std::stod(text.substr(equals + 1));
    if (key == "hosts") {
      t = resize_hosts(t, static_cast<int>(value) * t.gpus_per_host(), nullptr);
      continue;
    }
    for (HostTemplate& host : t.templates)
      key == "nic.GBps" ? set_ports(host, value, text) : set_links(host, LinkKind::nvlink, value, text);
  }
  if (!degrade.empty()) throw InvalidInput("--degrade", degrade.front(), "cannot be edited yet");
  if (!remove.empty()) throw InvalidInput("--remove", remove.front(), "cannot be edited yet");
  return t;
}

}  // namespace topomoe
