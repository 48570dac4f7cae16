// The readers that only the table of formats (formats.cpp) calls: text -> Topology, or InvalidInput with where, what
// and a way out.
#pragma once

#include <string>
#include <string_view>

#include "topomoe/topology.hpp"

namespace topomoe {}  // namespace topomoe
