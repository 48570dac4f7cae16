#include "topology/read/switch_tree.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

class TreeBuilder {
 public:
  TreeBuilder(const SwitchTree& tree, const std::string& where) : tree_(tree), where_(where) {}

  Topology run() {
    topology_.name = std::filesystem::path(where_).stem().string();
    topology_.source = where_;
    if (!tree_.switches.empty()) {
      find_parents();
      find_levels();
      place_hosts();
    } else {
      for (const SwitchTree::Block& block : tree_.blocks)
        for (const std::string& host : block.hosts) place_host(host, block.line);
      warn("blocks alone: the network above them is not described, hosts of different blocks are not joined");
    }
    if (topology_.host_names.empty()) fail(where_, "no host", "leaves have \"Nodes=\"");
    try {
      add_blocks();
    } catch (const InvalidInput& error) {
      if (!tree_.blocks_may_differ) throw;
      topology_.hosts_per_domain = 1;
      warn(fmt::format("scale-up domains are not kept: {}: {}", error.value, error.hint));
    }
    HostTemplate host;
    host.name = "unknown";
    // What joins the hosts of a block; a scale-up domain asks each of its hosts for it.
    if (topology_.hosts_per_domain > 1)
      host.devices = {{DeviceKind::nvswitch, "nvswitch", "", -1, {}}};
    else
      host.devices = {{DeviceKind::numa, "numa0", "", -1, {}}};
    topology_.templates = {host};
    topology_.groups = {{0, static_cast<int>(topology_.host_names.size())}};
    warn(std::string(kOfHosts) + "the file says nothing of what is in them: no GPU, no NIC is known");
    require_valid(topology_, where_);
    for (const std::string& line : warnings_from_sources(topology_)) warn(line);
    return std::move(topology_);
  }

 private:
  using Switch = SwitchTree::Switch;
  [[noreturn]] static void fail(const std::string& field, const std::string& value, const std::string& hint) {
    throw InvalidInput(field, value, hint);
  }
  void warn(const std::string& line) { add_warning(topology_, line); }
  const Switch& at(int index) const { return tree_.switches[static_cast<std::size_t>(index)]; }
  static std::size_t sized(int index) { return static_cast<std::size_t>(index); }

  void find_parents() {
    std::map<std::string_view, int> known;
    const int count = static_cast<int>(tree_.switches.size());
    for (int i = 0; i < count; ++i) {
      const Switch& own = at(i);
      if (!known.emplace(own.name, i).second)
        fail(own.line, '"' + own.name + '"', "a switch of this name is there already");
      if (own.switches.empty() == own.hosts.empty())
        fail(own.line, '"' + own.name + '"',
             own.hosts.empty() ? "a switch has switches or hosts below it: Switches= or Nodes="
                               : "a switch with both switches and hosts below it is not modelled; part it in two");
    }
    children_.resize(sized(count));
    parent_.assign(sized(count), -1);
    for (int i = 0; i < count; ++i)
      for (const std::string& name : at(i).switches) {
        const auto found = known.find(name);
        if (found == known.end())
          fail(at(i).line, '"' + name + '"', fmt::format("is below \"{}\" and has no line of its own", at(i).name));
        int& parent = parent_[sized(found->second)];
        if (parent >= 0)
          fail(at(i).line, '"' + name + '"',
               fmt::format("is below both \"{}\" and \"{}\": no tree", at(parent).name, at(i).name));
        parent = i;
        children_[sized(i)].push_back(found->second);
      }
    for (int i = 0; i < count; ++i)
      if (parent_[sized(i)] < 0) roots_.push_back(i);
  }

  // Of each switch, how many switches stand below it on the longest way down; and all of them, parents first.
  void find_levels() {
    order_ = roots_;
    for (std::size_t i = 0; i < order_.size(); ++i)
      order_.insert(order_.end(), children_[sized(order_[i])].begin(), children_[sized(order_[i])].end());
    if (order_.size() < tree_.switches.size()) {
      std::set<int> reached(order_.begin(), order_.end());
      int lost = 0;
      while (reached.count(lost) > 0) ++lost;
      fail(at(lost).line, '"' + at(lost).name + '"', "is above itself: no tree");
    }
    level_.assign(order_.size(), 0);
    for (std::size_t i = order_.size(); i-- > 0;)
      if (const int parent = parent_[sized(order_[i])]; parent >= 0)
        level_[sized(parent)] = std::max(level_[sized(parent)], level_[sized(order_[i])] + 1);
    for (const int root : roots_) top_ = std::max(top_, level_[sized(root)]);
    if (top_ >= 2 && roots_.size() > 1)
      fail(where_, fmt::format("{} trees without a common root, of up to {} tiers", roots_.size(), top_ + 1),
           "several trees are modelled where each has at most two tiers of switches; give them a root, or read one "
           "alone");
  }

  void place_host(const std::string& host, const std::string& line) {
    if (!number_.emplace(host, static_cast<int>(topology_.host_names.size())).second)
      fail(line, '"' + host + '"',
           "is below two leaves (or twice below one): hosts on several leaves are not modelled");
    topology_.host_names.push_back(host);
  }

  // What the leaf counts to: with three tiers the switch above it, where it is a switch of leaves alone.
  int pod_of(int leaf) const {
    const int parent = parent_[sized(leaf)];
    if (top_ < 2) return parent < 0 ? leaf : parent;
    return parent < 0 || level_[sized(parent)] > 1 ? leaf : parent;
  }

  void place_hosts() {
    Fabric fabric;
    std::vector<int> leaves;
    for (int i = static_cast<int>(roots_.size()); i-- > 0;) stack_.push_back(roots_[sized(i)]);
    while (!stack_.empty()) {  // depth first, as the file lists them
      const int own = stack_.back();
      stack_.pop_back();
      stack_.insert(stack_.end(), children_[sized(own)].rbegin(), children_[sized(own)].rend());
      if (level_[sized(own)] > 0) continue;
      leaves.push_back(own);
      fabric.leaf_names.push_back(at(own).name);
      fabric.leaf_hosts.push_back(static_cast<int>(at(own).hosts.size()));
      for (const std::string& host : at(own).hosts) place_host(host, at(own).line);
    }
    const Rate unknown{0, 0, Source::unknown, tree_.no_rates};
    fabric.hosts_per_leaf = *std::max_element(fabric.leaf_hosts.begin(), fabric.leaf_hosts.end());
    if (top_ > 0) {
      fabric.spine_count = 1;
      fabric.uplink = unknown;
      const bool has_pods = top_ > 1 || roots_.size() > 1;
      if (has_pods) {
        std::set<int> alone;
        int last = -1;
        for (const int leaf : leaves) {
          const int pod = pod_of(leaf);
          if (pod != last) {
            fabric.pod_leaves.push_back(0);
            fabric.pod_names.push_back(pod == leaf && top_ > 1 ? "" : at(pod).name);
          }
          if (pod == leaf && top_ > 1) alone.insert(leaf);
          last = pod;
          ++fabric.pod_leaves.back();
        }
        fabric.hosts_per_pod =
            fabric.hosts_per_leaf * *std::max_element(fabric.pod_leaves.begin(), fabric.pod_leaves.end());
        fabric.core_count = top_ > 1 ? 1 : 0;
        if (top_ > 1) fabric.pod_uplink = unknown;
        say_what_is_folded(alone);
      } else {
        fabric.pod_names = {at(roots_[0]).name};
      }
    }
    if (roots_.size() > 1)
      warn(fmt::format("{} trees of switches without a common root: hosts below different ones are not joined",
                       roots_.size()));
    compact(fabric.leaf_hosts, fabric.hosts_per_leaf);
    if (fabric.hosts_per_pod > 0) compact(fabric.pod_leaves, fabric.hosts_per_pod / fabric.hosts_per_leaf);
    topology_.fabric = std::move(fabric);
  }

  void say_what_is_folded(const std::set<int>& alone) {
    if (!alone.empty())
      warn(fmt::format("{} leaves hang directly on the core (\"{}\" first): each counts as a pod of its own",
                       alone.size(), at(*alone.begin()).name));
    std::vector<std::string> upper;
    for (const int own : order_)
      if (level_[sized(own)] >= 2 && parent_[sized(own)] >= 0) upper.push_back(at(own).name);
    if (!upper.empty())
      warn(fmt::format(
          "{} tiers of switches: those above the pods ({} below \"{}\") count as one core, and what the "
          "links between them carry is not counted",
          top_ + 1,
          upper.size() == 1 ? '"' + upper[0] + '"' : fmt::format("\"{}\" and {} more", upper[0], upper.size() - 1),
          at(roots_[0]).name));
  }

  // Sizes that are as even as if they had not been given are not given.
  static void compact(std::vector<int>& sizes, int usual) {
    if (std::all_of(sizes.begin(), sizes.end() - 1, [&](int size) { return size == usual; })) sizes.clear();
  }

  // Blocks as runs of consecutive hosts, of one size but for the last.
  void add_blocks() {
    if (tree_.blocks.empty()) return;
    const int size = static_cast<int>(tree_.blocks[0].hosts.size());
    std::set<std::string_view> seen, names;
    std::set<int> starts;
    for (std::size_t i = 0; i < tree_.blocks.size(); ++i) {
      const SwitchTree::Block& block = tree_.blocks[i];
      if (!names.insert(block.name).second)
        fail(block.line, '"' + block.name + '"', "a block of this name is there already");
      if (block.hosts.empty()) fail(block.line, '"' + block.name + '"', "a block has hosts: Nodes=");
      std::vector<int> places;
      for (const std::string& host : block.hosts) {
        const auto found = number_.find(host);
        if (found == number_.end()) fail(block.line, '"' + host + '"', "is below no switch");
        if (!seen.insert(host).second) fail(block.line, '"' + host + '"', "is in two blocks");
        places.push_back(found->second);
      }
      const auto [first, last] = std::minmax_element(places.begin(), places.end());
      const int own = static_cast<int>(places.size());
      const bool is_last = *last + 1 == static_cast<int>(number_.size());
      if (own != size && !(is_last && own < size))
        fail(block.line, fmt::format("block \"{}\" of {} hosts", block.name, own),
             fmt::format("scale-up domains of different sizes are not modelled; \"{}\" has {} hosts",
                         tree_.blocks[0].name, size));
      if (*last - *first + 1 != own || *first % size != 0)
        fail(block.line, '"' + block.name + '"', "its hosts do not follow each other below the leaves");
    }
    if (seen.size() != number_.size())
      fail(where_, fmt::format("{} hosts of {} are in blocks", seen.size(), number_.size()),
           "all hosts are in blocks, or none: domains of different sizes are not modelled");
    topology_.hosts_per_domain = size;
    if (size > 1) warn(fmt::format("{}blocks of {} hosts are taken as scale-up domains (NVLink)", kOfHosts, size));
  }

  const SwitchTree& tree_;
  const std::string& where_;
  Topology topology_;
  std::vector<std::vector<int>> children_;
  std::vector<int> parent_, roots_, level_, order_, stack_;
  std::map<std::string, int> number_;  // of hosts
  int top_ = 0;                        // level of the highest switch
};

}  // namespace

Topology topology_of(const SwitchTree& tree, const std::string& where) { return TreeBuilder(tree, where).run(); }

}  // namespace topomoe
