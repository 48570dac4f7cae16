#include "topology/read/torus_shape.hpp"

#include <algorithm>
#include <cstdint>

namespace topomoe {
namespace {

constexpr std::size_t kMostDims = 4;

class TorusFinder {
 public:
  TorusFinder(int nodes, std::vector<std::pair<int, int>> joined) : nodes_(nodes), joined_(std::move(joined)) {
    std::sort(joined_.begin(), joined_.end());
  }

  std::vector<int> run() {
    if (nodes_ > 1) extend(1);
    return found_ ? dims_ : std::vector<int>{};
  }

 private:
  bool are_joined(int a, int b) const {
    return std::binary_search(joined_.begin(), joined_.end(), std::pair(std::min(a, b), std::max(a, b)));
  }

  // A further dimension of `stride`; node 0's neighbours in it tell whether it may be one.
  void extend(int stride) {
    const int left = nodes_ / stride;
    if (left == 1) {
      found_ = fits();
      return;
    }
    if (dims_.size() == kMostDims) return;
    for (int size = 2; size <= left && !found_; ++size) {
      if (left % size != 0 || !are_joined(0, stride) || !are_joined(0, (size - 1) * stride)) continue;
      dims_.push_back(size);
      extend(stride * size);
      if (!found_) dims_.pop_back();
    }
  }

  bool fits() const {
    std::int64_t links = 0;
    for (const int size : dims_) links += size == 2 ? nodes_ / 2 : nodes_;
    if (links != static_cast<std::int64_t>(joined_.size())) return false;
    for (int node = 0; node < nodes_; ++node) {
      int stride = 1;
      for (const int size : dims_) {
        const int place = node / stride % size;
        if (!are_joined(node, node + ((place + 1) % size - place) * stride)) return false;
        stride *= size;
      }
    }
    return true;
  }

  const int nodes_;
  std::vector<std::pair<int, int>> joined_;
  std::vector<int> dims_;
  bool found_ = false;
};

}  // namespace

std::vector<int> torus_dims(int nodes, std::vector<std::pair<int, int>> joined) {
  return TorusFinder(nodes, std::move(joined)).run();
}

}  // namespace topomoe
