// Gradient reduction in the slack: which bytes of the gradients go into which idle span of the inter-node lane
// (FSMoE's adaptive partition), and what is left to show after backward.
//
// Model: gradients become ready in pieces during backward and may be cut anywhere; one operation sends what it
// takes in time_s(bytes), monotone; nothing runs outside of a window, nothing is sent before it is ready, first
// ready is first sent. First each window sends what is ready as soon as it can; then operations of a window are
// moved together where waiting for more saves more per-operation cost than the wait costs. The fewest bytes are
// left after each window, and so after the last. The rest is one exposed operation.
// Ignored: windows that could grow by moving other steps, gradients of different groups.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "planner/timeline.hpp"

namespace topomoe {

struct GradientPiece {
  double bytes = 0, ready_s = 0;
};

struct SlackOperation {
  int window = 0;
  double begin_s = 0, end_s = 0, bytes = 0;
  std::vector<std::pair<int, double>> parts;  // gradient piece, bytes of it
};

struct SlackPlan {
  std::vector<SlackOperation> operations;  // in time order
  double hidden_bytes = 0, exposed_bytes = 0;
  double exposed_s = 0;         // time_s(exposed_bytes), after the last window
  double greedy_exposed_s = 0;  // what it was before operations were moved together
};

// windows: apart, in time order. time_s(0) must be 0. Throws InvalidInput by name.
SlackPlan place_gradients(std::span<const Interval> windows, std::span<const GradientPiece> pieces,
                          const std::function<double(double bytes)>& time_s);

// The most bytes, to the byte, that fit into so many seconds.
double bytes_in(double seconds, double most_bytes, const std::function<double(double bytes)>& time_s);

// Idle spans of one lane from `begin_s` to `end_s`. busy: of that lane, in order of time.
std::vector<Interval> idle_windows(std::span<const Interval> busy, double begin_s, double end_s);

}  // namespace topomoe
