// How long the links of a drawing take beside the slowest of all: of equal hosts that are drawn once the most of any,
// of both directions the longer.
#pragma once

#include <string>
#include <vector>

#include "topomoe/pattern_load.hpp"

namespace topomoe {

struct DrawnLoad {
  // load: nullptr where none is drawn; all shares are then -1.
  DrawnLoad(const Router& router, const PatternLoad* load);

  double share(int directed_link) const;
  // By template, then by HostTemplate::links, nics; of a torus, by template: the rings through its hosts.
  std::vector<std::vector<double>> link, port;
  std::vector<double> ring;

 private:
  const Router& router_;
  const PatternLoad* load_;
};

// "; 45% of the slowest link's time" for a tip; nothing where no load is drawn.
std::string share_words(double share);

}  // namespace topomoe
