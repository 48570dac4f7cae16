#include "tests/support/simgrid_platform.hpp"

#include <simgrid/plugins/load.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <simgrid/s4u.hpp>
#include <stdexcept>
#include <string>
#include <utility>

#include "tests/support/simgrid_child.hpp"

namespace topomoe::test {
namespace {

namespace sg = simgrid::s4u;

struct Platform {
  std::map<int, sg::Host*> hosts;  // by GPU; only those with flows
  std::map<int, sg::Link*> links;  // by directed link; only those with flows
};

Platform build(const Router& router, const std::vector<SimgridFlow>& flows) {
  Platform platform;
  sg::NetZone* zone = sg::create_full_zone("cluster");
  const auto host = [&](int gpu) {
    auto& known = platform.hosts[gpu];
    if (known == nullptr) known = zone->create_host("gpu" + std::to_string(gpu), 1e9);
    return known;
  };
  std::map<std::pair<int, int>, bool> routed;
  for (const SimgridFlow& flow : flows) {
    if (!routed.emplace(std::pair(flow.src_gpu, flow.dst_gpu), true).second) continue;
    const Route route = router.route(flow.src_gpu, flow.dst_gpu);
    if (route.links.empty()) throw std::runtime_error("a flow to itself, or without a path");
    std::vector<sg::LinkInRoute> links;
    for (const int id : route.links) {
      auto& known = platform.links[id];
      if (known == nullptr) {
        // SimGrid wants unique names; ours may repeat where several ports join the same two devices.
        known = zone->create_link(std::to_string(id), router.link_GBps_per_direction(id) * 1e9);
        known->set_latency(0)->set_sharing_policy(sg::Link::SharingPolicy::SHARED)->seal();
      }
      links.emplace_back(known);
    }
    zone->add_route(host(flow.src_gpu)->get_netpoint(), host(flow.dst_gpu)->get_netpoint(), nullptr, nullptr, links,
                    false);
  }
  for (const auto& [gpu, own] : platform.hosts) own->seal();
  zone->seal();
  // Only now: sealing makes the counters anew.
  for (const auto& [id, link] : platform.links) sg_link_load_track(link);
  return platform;
}

SimgridResult run(const Router& router, const std::vector<SimgridFlow>& flows) {
  std::vector<std::string> words{"test",
                                 "--cfg=network/model:CM02",
                                 "--cfg=network/TCP-gamma:0",
                                 "--cfg=network/crosstraffic:0",
                                 "--cfg=surf/precision:1e-12",
                                 "--cfg=maxmin/precision:1e-9",
                                 "--log=root.thres:error"};
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  int argc = static_cast<int>(argv.size());
  sg::Engine engine(&argc, argv.data());
  sg_link_load_plugin_init();
  const Platform platform = build(router, flows);

  SimgridResult result;
  result.finish_s.assign(flows.size(), -1);
  std::vector<sg::CommPtr> comms;
  std::map<const sg::Activity*, std::size_t> index;
  for (const SimgridFlow& flow : flows) {
    comms.push_back(sg::Comm::sendto_init(platform.hosts.at(flow.src_gpu), platform.hosts.at(flow.dst_gpu)));
    comms.back()->set_payload_size(static_cast<std::uint64_t>(std::llround(flow.bytes)));
    index.emplace(comms.back().get(), comms.size() - 1);
  }
  sg::Activity::on_completion_cb([&](const sg::Activity& activity) {
    const auto found = index.find(&activity);
    if (found != index.end()) result.finish_s[found->second] = sg::Engine::get_clock();
  });
  std::vector<std::size_t> first;  // those that wait for a time, not for a flow
  for (std::size_t i = 0; i < flows.size(); ++i) {
    for (const int before : flows[i].after) comms.at(static_cast<std::size_t>(before))->add_successor(comms[i]);
    if (flows[i].after.empty()) first.push_back(i);
  }
  std::stable_sort(first.begin(), first.end(),
                   [&](std::size_t a, std::size_t b) { return flows[a].start_s < flows[b].start_s; });
  sg::Actor::create("starter", platform.hosts.begin()->second, [&] {
    for (const std::size_t i : first) {
      if (flows[i].start_s > sg::Engine::get_clock()) sg::this_actor::sleep_until(flows[i].start_s);
      comms[i]->vetoable_start();
    }
  });
  // SimGrid's counters take the rate of the moment for the time since they were last read, and are read of themselves
  // only where a flow begins or ends on the link; a rate may change for what happens elsewhere. So: read at each event.
  sg::Engine::on_time_advance_cb([&](double) {
    for (const auto& [id, link] : platform.links) sg_link_get_cum_load(link);
  });
  engine.run();
  result.bytes_on_link.assign(static_cast<std::size_t>(router.link_count()), 0);
  for (const auto& [id, link] : platform.links)
    result.bytes_on_link[static_cast<std::size_t>(id)] = sg_link_get_cum_load(link);
  return result;
}

}  // namespace

SimgridResult simulate(const Router& router, const std::vector<SimgridFlow>& flows) {
  SimgridResult result;
  result.bytes_on_link.resize(static_cast<std::size_t>(router.link_count()));
  if (flows.empty()) return result;
  const std::size_t flow_count = flows.size();
  const std::vector<double> numbers = in_simgrid_child(flow_count + result.bytes_on_link.size(), [&] {
    SimgridResult own = run(router, flows);
    own.finish_s.insert(own.finish_s.end(), own.bytes_on_link.begin(), own.bytes_on_link.end());
    return own.finish_s;
  });
  const auto middle = numbers.begin() + static_cast<std::ptrdiff_t>(flow_count);
  result.finish_s.assign(numbers.begin(), middle);
  result.bytes_on_link.assign(middle, numbers.end());
  for (const double finish_s : result.finish_s)
    if (finish_s < 0) throw std::runtime_error("SimGrid left a flow unfinished");
  return result;
}

}  // namespace topomoe::test
