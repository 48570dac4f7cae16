// The first half of composing: from files to hosts with names, each in its scale-up domain. Internal to topology/.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "topomoe/compose.hpp"

namespace topomoe {

// One host, out of whichever file.
struct ComposedHost {
  std::string name, label;  // label: of its file; empty: none, the network alone has it
  HostTemplate own;
  std::string domain;                 // hosts of one word share a scale-up domain; empty: nothing is said
  std::vector<std::string> warnings;  // of its file, but for those that its values tell
};

// In the order of their names; a name that is described twice and alike is there once, with a line in `warnings`.
std::vector<ComposedHost> hosts_of(std::span<const DescribedHosts> files, std::vector<std::string>& warnings);

// Equal hosts as one template, runs of them as one group, and a line in the warnings for each kind that is not as most
// are. Templates are called after their first host where that is all that tells them apart.
void fold_hosts(const std::vector<ComposedHost>& in_order, Topology& topology);

}  // namespace topomoe
