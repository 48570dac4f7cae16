// SimGrid's platform XML (versions 3 to 4.x) as plain lists, checked for form only: what stands in zones, and the
// routes.
//
// Zones are not kept as a tree: hosts, routers and links have names of their own in the whole platform, and routes
// between zones name the gateways at their ends. <AS> is <zone>. What says nothing of the network (speeds, disks,
// actors, properties) is left out; what is of the network and is left out goes to `notes`.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace topomoe {

struct SimgridXml {
  // split: each direction has the rate; shared: both directions together; fatpipe: each flow, whatever the others do.
  enum class Policy { split, shared, fatpipe };

  struct Link {
    std::string name;
    double GBps = 0, latency_us = 0;
    Policy policy = Policy::shared;
  };
  struct Member {
    std::string host;
    double up_GBps = 0, down_GBps = 0, latency_us = 0;
    Policy policy = Policy::split;
  };
  // Hosts around one switch: <cluster> (FLAT), a zone of routing "Cluster" or "Vivaldi".
  struct Hub {
    std::string name, line;
    std::vector<std::string> routers;  // names of the switch itself, as routes call it
    std::vector<Member> members;
    bool has_backbone = false;
    Link backbone;  // all traffic of the hub goes through it
  };
  // <cluster> TORUS, FAT_TREE, DRAGONFLY.
  struct Shaped {
    std::string name, line, topology, parameters, router;
    std::vector<std::string> hosts;
    Link link;  // every one of its links
  };
  struct Route {
    std::string line, src, dst;
    std::vector<int> links;  // in `links`
    bool both_ways = true;
  };

  std::vector<std::string> hosts, routers;  // outside hubs and shaped clusters
  std::vector<Link> links;
  std::vector<Hub> hubs;
  std::vector<Shaped> shaped;
  std::vector<Route> routes;
  std::vector<std::string> notes;
};

// InvalidInput with the byte where the text is no such XML; limits: 64 MiB, 2,000,000 elements, 64 levels, 1,000,000
// hosts.
SimgridXml parse_simgrid_xml(std::string_view text, const std::string& where);

}  // namespace topomoe
