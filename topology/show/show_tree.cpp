// A host as a tree, like lstopo: CPUs, what hangs on each, and beside each device the rates of its links.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "topology/host_tree.hpp"
#include "topology/show/host_matrix.hpp"

namespace topomoe {
namespace {

// A screenful: of larger trees, equal neighbours are one line with their count.
constexpr std::size_t kMostLines = 44;

class Tree {
 public:
  explicit Tree(const HostTemplate& host)
      : host_(host), tree_(host), links_(host.devices.size()), keys_(host.devices.size()) {
    for (const Link& link : host.links) {
      links_[at(link.src)].push_back(&link);
      if (link.both_ways) links_[at(link.dst)].push_back(&link);
    }
    for (int device = 0; device < static_cast<int>(host.devices.size()); ++device)
      if (tree_.parent[at(device)] < 0) roots_.push_back(device);
    std::stable_partition(roots_.begin(), roots_.end(), [&](int device) { return kind(device) == DeviceKind::numa; });
  }

  std::string text(bool fold) {
    lines_.clear();
    add(roots_, 0, fold);
    std::size_t width = 0;
    for (const Line& line : lines_) width = std::max(width, line.left.size());
    std::string out;
    for (const Line& line : lines_)
      out += line.right.empty() ? fmt::format("  {}\n", line.left)
                                : fmt::format("  {:{}}  {}\n", line.left, width, line.right);
    return out;
  }
  std::size_t lines() const { return host_.devices.size(); }

 private:
  struct Line {
    std::string left, right;
  };
  static std::size_t at(int index) { return static_cast<std::size_t>(index); }
  DeviceKind kind(int device) const { return host_.devices[at(device)].kind; }

  // By rate, fastest first: to whom. `by_name`: with the neighbours, else how many.
  std::string neighbours(int device, LinkKind wanted, bool by_name) const {
    std::map<double, std::vector<std::string>, std::greater<>> found;
    for (const Link* link : links_[at(device)])
      if (link->kind == wanted)
        found[link->GBps_per_direction].push_back(host_.devices[at(link->src == device ? link->dst : link->src)].name);
    std::string out;
    for (const auto& [GBps, names] : found) {
      out += fmt::format("{} {} to", out.empty() ? name(wanted) : ",", rate_text(GBps));
      if (by_name)
        for (const std::string& own : names) out += ' ' + own;
      else
        out += fmt::format(" {} others", names.size());
    }
    return out;
  }

  std::string detail(int device, bool by_name) const {
    std::vector<std::string> parts;
    if (const int up = tree_.parent_link[at(device)]; up >= 0) {
      const Link& link = host_.links[at(up)];
      parts.push_back(fmt::format("{} {}", name(link.kind), rate_text(link.GBps_per_direction)));
    }
    if (kind(device) == DeviceKind::gpu)
      for (const LinkKind wanted : {LinkKind::nvlink, LinkKind::xgmi})
        if (std::string own = neighbours(device, wanted, by_name); !own.empty()) parts.push_back(std::move(own));
    if (kind(device) == DeviceKind::numa)
      if (std::string own = neighbours(device, LinkKind::cpu_interconnect, by_name); !own.empty())
        parts.push_back(std::move(own));
    for (const Nic& nic : host_.nics)
      if (nic.device == device)
        parts.push_back(by_name ? fmt::format("port {} {}, rail {}", nic.name.empty() ? "-" : nic.name,
                                              rate_text(nic.port.GBps_per_direction), nic.rail)
                                : fmt::format("port {}", rate_text(nic.port.GBps_per_direction)));
    std::string out;
    for (const std::string& part : parts) out += (out.empty() ? "" : "; ") + part;
    return out;
  }

  // Equal for subtrees that differ in names, bus ids and rails only.
  const std::string& key(int device) {
    std::string& own = keys_[at(device)];
    if (own.empty()) {
      own = fmt::format("{}({}", name(kind(device)), detail(device, false));
      for (const int child : tree_.children[at(device)]) own += key(child);
      own += ')';
    }
    return own;
  }

  void add(const std::vector<int>& devices, std::size_t depth, bool fold) {
    for (std::size_t i = 0; i < devices.size();) {
      std::size_t end = i + 1;
      if (fold)
        while (end < devices.size() && key(devices[end]) == key(devices[i])) ++end;
      const HostDevice& own = host_.devices[at(devices[i])];
      std::string left = std::string(2 * depth, ' ') + own.name;
      if (end - i > 1)
        left += fmt::format(" to {}: {} alike", host_.devices[at(devices[end - 1])].name, end - i);
      else if (!own.bus_id.empty())
        left += ' ' + own.bus_id;
      lines_.push_back({std::move(left), detail(devices[i], end - i == 1)});
      std::vector<int> below = tree_.children[at(devices[i])];
      // What stands for the CPU itself comes first.
      std::stable_partition(below.begin(), below.end(), [&](int child) {
        return host_.links[at(tree_.parent_link[at(child)])].kind == LinkKind::cpu_root;
      });
      add(below, depth + 1, fold);
      i = end;
    }
  }

  const HostTemplate& host_;
  const HostTree tree_;
  std::vector<int> roots_;
  std::vector<std::vector<const Link*>> links_;  // out of each device
  std::vector<std::string> keys_;
  std::vector<Line> lines_;
};

}  // namespace

std::string tree_text(const HostTemplate& host) {
  Tree tree(host);
  return tree.text(tree.lines() > kMostLines);
}

}  // namespace topomoe
