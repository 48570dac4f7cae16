// Whether nodes that are joined directly form a torus in the order of their numbers, and of which dimensions.
#pragma once

#include <utility>
#include <vector>

namespace topomoe {

// `joined`: pairs of nodes, the lesser first, each once. Node x + dims[0] * (y + ...). Empty: no torus of up to four
// dimensions. A ring of two has one link.
std::vector<int> torus_dims(int nodes, std::vector<std::pair<int, int>> joined);

}  // namespace topomoe
