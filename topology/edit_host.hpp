// Changes to one host template, and to some hosts of a topology: those leave their group with a template of their own.
#pragma once

#include <functional>
#include <string>

#include "topomoe/topology.hpp"

namespace topomoe {

// Without the device and all links to it.
void remove_device(HostTemplate&, int device);
// A place where a host was: it keeps its number and nothing else.
HostTemplate removed_host(const HostTemplate&);
// The rates of all links and ports, or of those that touch a device (a NIC's ports among them).
void scale_host(HostTemplate&, double factor);
void scale_device(HostTemplate&, int device, double factor);
// The links between two devices, whichever way they are written; false where there is none.
bool scale_link(HostTemplate&, int a, int b, double factor);
void remove_link(HostTemplate&, int a, int b);

using HostChange = std::function<void(HostTemplate&)>;
// Changes hosts first .. end-1. Groups are split around them and joined again where neighbours are equal; hosts that
// are equal after the change share a template, named after the old one and `what`.
void change_hosts(Topology&, int first, int end, const std::string& what, const HostChange& change);

}  // namespace topomoe
