// SimGrid's clusters of a regular shape as fabrics.
//
// TORUS "3,2,2": dimension 0 first, as SimGrid numbers hosts. FAT_TREE "levels;down;up;links": host, leaf, spine, core;
// several leaves above a host are planes. DRAGONFLY "groups,l;chassis,l;routers,l;hosts": routers are leaves.
// Ignored, with a warning: that the routers of a dragonfly's group are joined directly, in two dimensions (here they
// meet in the group's spine), and that SimGrid joins two groups at one router each.
#pragma once

#include <string>

#include "topology/read/simgrid_xml.hpp"
#include "topomoe/topology.hpp"

namespace topomoe {

Topology topology_of(const SimgridXml::Shaped&, const std::string& where, const std::string& note);

}  // namespace topomoe
