// Times schedules side by side, of one drawn routing, on any communicator. Two things are timed: the exchange alone,
// rows on their way from packed to the ranks of their experts with the ids and weights that a way needs underway
// (Part::exchange); or the whole layer, from the router to combined outputs, and backward. Passes are interleaved round
// by round, so that what the machine does meanwhile meets all of them alike.
//
// A repetition begins with a barrier, with one message a host each way, so that a network on which messages are dear
// does not send ranks off one after the other; its time is the slowest rank's, by that rank's own clock. Memory is
// allocated and touched before, and of an exchange counts are exchanged. The bound is what the busiest host's NIC must
// carry of the rows that were drawn, a host having one, at one rate both ways; of a layer also the experts' flops of
// the busiest rank. Ignored by bounds: routing, packing, the shared expert, latencies.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "topomoe/communicator.hpp"
#include "topomoe/job.hpp"
#include "topomoe/layer_shape.hpp"
#include "topomoe/layout.hpp"
#include "topomoe/routing.hpp"

namespace topomoe {

struct BenchCase {
  Layout layout;
  int ranks_per_host = 1;
  LayerShape shape;  // of an exchange hidden is what travels of a token, and ffn has no say
  DispatchDType dispatch_dtype = DispatchDType::as_job;  // of schedules that are built for it
  std::int64_t tokens = 0;                               // that one TP group holds
  RoutingProfile routing;
  std::uint64_t seed = 1;
  int warmup = 1, repeat = 1;
  bool backward = true;         // of a layer, after each forward
  double nic_payload_GBps = 0;  // of a host, each way; 0: unknown, then no bound comes of it
  double rank_TFLOPps = 0;      // of a rank, in the shape's dtype; likewise
};

struct BenchRow {
  std::string algorithm;  // "sliced flat"
  std::string pass;       // "forward", "backward"; empty: an exchange
  int chunks = 1, ranks = 1, hosts = 1;
  double bytes_per_rank = 0;                // T k P, before anything is sliced
  std::vector<double> times_us;             // one a repetition
  double inter_bytes = 0, intra_bytes = 0;  // payload of all ranks together, between hosts and inside: as drawn
  double nic_bytes = 0;                     // of it, through the busiest NIC in its busier direction
  double expert_flops = 0;                  // of the rank that has most
  std::optional<bool> bytes_agree;       // what was handed to the transport is what was drawn; nobody counts a rival's
  std::optional<double> inter_messages;  // of all ranks, ids and weights too
  std::optional<double> bound_us;        // of what is known
  // By whoever plans for this cluster: what it takes, and whether it is what the planner would take.
  std::optional<double> predicted_us;
  std::optional<bool> picked;
};

// A sequence of somebody else's, timed in the same rounds: collective, and every round the same bytes of all ranks.
struct Rival {
  std::string algorithm;
  int chunks = 1;
  double inter_bytes = 0, intra_bytes = 0, nic_bytes = 0;
  std::function<void()> exchange;
};

// Both collective over `communicator`, whose size must be the layout's world. Rank 0 gets the rows, the others nothing.

// A row a schedule, then one a rival. Throws InvalidInput for a schedule that has no exchange, or fewer tokens than
// ranks that cut them.
std::optional<std::vector<BenchRow>> bench_exchange(std::span<const Schedule> schedules, const BenchCase& bench,
                                                    Communicator& communicator, Device& device,
                                                    std::span<const Rival> rivals = {});
// A row a pass, forward first, of each schedule in turn. The router is the layer's own; tokens are such that it chooses
// what was drawn, for which hidden must be at least the experts: else InvalidInput. Every schedule keeps its arenas:
// memory is the sum over them.
std::optional<std::vector<BenchRow>> bench_layer(std::span<const Schedule> schedules, const BenchCase& bench,
                                                 Communicator& communicator, Device& device);

// A JSON array, a row a line, keys in the order of the README of cli/.
std::string rows_json(const std::vector<BenchRow>& rows);

// As nccl-tests prints, a row a line; `rows` is not empty.
std::string rows_table(const std::vector<BenchRow>& rows);

// Middle value; of an even number the mean of the middle two. `values` is not empty.
double median(std::vector<double> values);

}  // namespace topomoe
