#include "tests/support/simgrid_routes.hpp"

#include <algorithm>
#include <limits>
#include <simgrid/s4u.hpp>
#include <stdexcept>

#include "tests/support/simgrid_child.hpp"

namespace topomoe::test {

std::vector<SimgridWay> simgrid_ways(const std::string& platform_file,
                                     const std::vector<std::pair<std::string, std::string>>& pairs) {
  namespace sg = simgrid::s4u;
  const std::vector<double> numbers = in_simgrid_child(2 * pairs.size(), [&] {
    std::vector<std::string> words{"test", "--log=root.thres:error"};
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    int argc = static_cast<int>(argv.size());
    sg::Engine engine(&argc, argv.data());
    engine.load_platform(platform_file);
    engine.seal_platform();
    std::vector<double> out;
    for (const auto& [src, dst] : pairs) {
      const sg::Host *a = sg::Host::by_name_or_null(src), *b = sg::Host::by_name_or_null(dst);
      if (a == nullptr || b == nullptr) throw std::runtime_error("no host " + src + " or " + dst);
      std::vector<sg::Link*> links;
      double latency_s = 0, least = std::numeric_limits<double>::infinity();
      a->route_to(b, links, &latency_s);
      for (const sg::Link* link : links) least = std::min(least, link->get_bandwidth());
      out.push_back(least / 1e9);
      out.push_back(latency_s * 1e6);
    }
    return out;
  });
  std::vector<SimgridWay> ways(pairs.size());
  for (std::size_t i = 0; i < ways.size(); ++i) ways[i] = {numbers[2 * i], numbers[2 * i + 1]};
  return ways;
}

}  // namespace topomoe::test
