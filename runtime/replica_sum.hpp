// Gradients of experts that stand at several places of an EP group, summed over these.
//
// Not a step of the schedule: a schedule is one pass, and gradients are added to over many of them (micro-batches)
// before they are reduced once, as the reduction over EDP that a caller does as well. Each rank sends its part to the
// other replicas and adds all up itself, in order of replica: the same bits everywhere, (r - 1) parts on the wire where
// a ring would take 2 (r - 1) / r. Replicas of few experts make that a small sum.
#pragma once

#include "runtime/executor.hpp"

namespace topomoe {

// Collective over the EP group, whose channel must be open; nothing where no expert of this group has replicas.
// Gradients are overwritten by the sum. Throws TransportError after failing the communicator.
void sum_over_replicas(const ExecutorContext& context, const LayerGradients& gradients);

}  // namespace topomoe
