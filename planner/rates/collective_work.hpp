// Names of the collectives, and how much each moves: what lets a curve measured at one number of GPUs speak for
// another.
//
// Buffers are counted as nccl-tests counts them: S is what a rank sends in an all-to-all, the gathered whole in
// an all-gather, the whole input in a reduce-scatter and an all-reduce.
#pragma once

#include <string_view>

namespace topomoe {

enum class Collective { alltoall, all_gather, reduce_scatter, all_reduce, send_recv };

std::string_view to_string(Collective);  // "alltoall"
// Throws InvalidInput that lists the names.
Collective collective_from(std::string_view name, std::string_view field);

// Of S = 1, in units of the time that one whole buffer takes over a GPU's link: what leaves a GPU, and the share that
// stays, which is copied or added locally at about `kLocalShare` of the link's cost. All-reduce: the cheaper of a ring
// and a reduction in the switch.
double work_of(Collective, int gpus, bool reduces_in_switch);

// Fitted on 2, 4 and 8 GPUs of A100 and H100: 0.3 for all-to-all, 0.37-0.48 for the rings. With it one bus bandwidth
// serves 2 to 8 GPUs; without it 2 GPUs seem 16% slower than they are.
inline constexpr double kLocalShare = 0.4;
// Rate of a reduction in the switch over a ring's, for the S (1 + 1/n) bytes that it moves: H100 x8, 445 GB/s bus
// bandwidth against 372 on the wire in rings. At 4 GPUs the two tie, and NCCL is seen to stay with the ring.
inline constexpr double kInSwitchRate = 0.77;

// Dependent hops of a small operation, in the units that its latency grows with: rings pass from GPU to GPU; an
// all-to-all addresses all peers at once.
double latency_steps(Collective, int gpus);

// S for one rank's send buffer, and back.
double whole_buffer_bytes(Collective, double send_bytes, int gpus);

}  // namespace topomoe
