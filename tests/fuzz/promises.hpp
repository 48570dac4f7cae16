// What holds of every topology that a reader returns, whatever its text was.
#pragma once

#include "topomoe/error.hpp"
#include "topomoe/topology.hpp"

namespace topomoe::fuzz {

// Valid; its JSON reads back and is written as the same text; all that prints, counts, draws, compares and routes takes
// it (one in four, and none with more than a few hundred devices: that takes its time).
void require_promises(const Topology&);

// One line that is not empty and not endless.
void require_message(const InvalidInput&);

}  // namespace topomoe::fuzz
