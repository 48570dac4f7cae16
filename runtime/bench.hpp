// Times the exchange of schedules: rows on their way from packed to the ranks of their experts, with the ids and
// weights that a way needs underway (Part::exchange), of one drawn routing, on any communicator. Schedules are
// interleaved round by round, so that what the machine does meanwhile meets all of them alike.
//
// A repetition begins with a barrier, with one message a host each way, so that a network on which messages are dear
// does not send ranks off one after the other; its time is the slowest rank's, by that rank's own clock. Counts are
// exchanged, and memory is allocated and touched, once before. The bound is what the busiest host's NIC must carry of
// the rows that were drawn; a host has one, at one rate both ways. Ignored: routing, packing, experts, and the way
// back.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "topomoe/communicator.hpp"
#include "topomoe/layer_shape.hpp"
#include "topomoe/layout.hpp"
#include "topomoe/routing.hpp"

namespace topomoe {

struct ExchangeBench {
  Layout layout;
  int ranks_per_host = 1;
  LayerShape shape;         // hidden: what travels of a token; ffn has no say
  std::int64_t tokens = 0;  // that one TP group holds
  RoutingProfile routing;
  std::uint64_t seed = 1;
  int warmup = 1, repeat = 1;
  double nic_payload_GBps = 0;  // of a host, each way; 0: unknown, then there is no bound
};

struct ExchangeRow {
  std::string algorithm;  // "sliced flat"
  int chunks = 1, ranks = 1, hosts = 1;
  double bytes_per_rank = 0;                // T k P, before anything is sliced
  std::vector<double> times_us;             // one a repetition
  double inter_bytes = 0, intra_bytes = 0;  // payload of all ranks together, between hosts and inside: as drawn
  double nic_bytes = 0;                     // of it, through the busiest NIC in its busier direction
  std::optional<bool> bytes_agree;       // what was handed to the transport is what was drawn; nobody counts a rival's
  std::optional<double> inter_messages;  // of all ranks, ids and weights too
  std::optional<double> bound_us;
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

// Collective over `communicator`, whose size must be the layout's world. Rank 0 gets a row a schedule, then one a
// rival, the others nothing. Throws InvalidInput for a schedule that has no exchange, or fewer tokens than ranks that
// cut them.
std::optional<std::vector<ExchangeRow>> bench_exchange(std::span<const Schedule> schedules, const ExchangeBench& bench,
                                                       Communicator& communicator, Device& device,
                                                       std::span<const Rival> rivals = {});

// A JSON array, a row a line, keys in the order of the README of cli/.
std::string rows_json(const std::vector<ExchangeRow>& rows);

// Middle value; of an even number the mean of the middle two. `values` is not empty.
double median(std::vector<double> values);

}  // namespace topomoe
