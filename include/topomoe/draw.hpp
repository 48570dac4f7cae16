// A cluster as a picture: one host of each template, the leaves above it, what joins those; equal hosts, leaves and
// pods are drawn once with their count, those that are not as the others apart. A line's width says its rate, its
// colour how long its bytes take beside the slowest link's, under some traffic.
//
// Of equal things that are drawn once, the colour is that of the most loaded.
#pragma once

#include <optional>
#include <string>

#include "topomoe/pattern_load.hpp"

namespace topomoe {

struct DrawnTraffic {
  std::optional<PatternLoad> load;
  std::string without;  // why there is none
};
// All-to-all of 64 MiB a GPU; none, and why, where there are no GPUs or hosts are not joined.
DrawnTraffic usual_traffic(const Router&);

// An SVG file. Light or dark as the reader's screen.
std::string draw_svg(const Router&, const DrawnTraffic&);
// A page of its own: the picture, the loads by class, the matrices of each host, what is assumed. Loads nothing.
std::string draw_page(const Router&, const DrawnTraffic&);

}  // namespace topomoe
