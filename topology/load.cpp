// Bytes on links. The bound of a phase is max over links of bytes / rate; the link that attains it is the bottleneck.
#include <array>
#include <cmath>

#include "topology/router_state.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr std::array kClasses{"nvlink",  "xgmi",   "c2c",     "pcie",     "cpu_interconnect",
                              "nic_out", "nic_in", "leaf_up", "leaf_down"};

// Index in kClasses. The first five are LinkKind's first five, in the same order.
std::size_t class_of(const Router::State& state, int id) {
  if (id >= state.first_leaf_link) return (id - state.first_leaf_link) % 2 == 0 ? 7 : 8;
  const HostRun& run = state.run_of_link(id);
  const int local = (id - run.first_link) % run.links_per_host;
  const int directed = state.directed_links(run);
  if (local >= directed) return (local - directed) % 2 == 0 ? 5 : 6;
  const auto& links = state.paths[static_cast<std::size_t>(run.template_index)].directed;
  return static_cast<std::size_t>(links[static_cast<std::size_t>(local)].kind);
}

}  // namespace

LinkLoads::LinkLoads(const Router& router)
    : router_(router), bytes_(static_cast<std::size_t>(router.link_count()), 0.0) {}

void LinkLoads::add(int src_gpu, int dst_gpu, double bytes) {
  const Router::State& state = router_.state();
  state.require_gpu(src_gpu);
  state.require_gpu(dst_gpu);
  if (!(bytes >= 0) || !std::isfinite(bytes))
    throw InvalidInput("bytes", std::to_string(bytes), "a finite number of bytes, 0 or more");
  const PathClass path = state.walk(src_gpu, dst_gpu, [&](int id) { bytes_[static_cast<std::size_t>(id)] += bytes; });
  if (path == PathClass::DIS && bytes > 0)
    throw InvalidInput("flow " + state.topology.gpu_name(src_gpu) + " -> " + state.topology.gpu_name(dst_gpu),
                       "no path",
                       "give the cluster a fabric that joins these hosts (rails, spine_count), and each host a NIC");
}

void LinkLoads::merge(const LinkLoads& other) {
  TOPOMOE_ASSERT(bytes_.size() == other.bytes_.size());
  for (std::size_t i = 0; i < bytes_.size(); ++i) bytes_[i] += other.bytes_[i];
}

void LinkLoads::clear() { std::fill(bytes_.begin(), bytes_.end(), 0.0); }

double LinkLoads::bytes_on(int link) const {
  if (link < 0 || link >= router_.link_count())
    throw InvalidInput("link", std::to_string(link), "allowed: 0 to " + std::to_string(router_.link_count() - 1));
  return bytes_[static_cast<std::size_t>(link)];
}

Bottleneck LinkLoads::bottleneck() const {
  Bottleneck worst;
  for (int id = 0; id < router_.link_count(); ++id) {
    const double bytes = bytes_[static_cast<std::size_t>(id)];
    if (bytes <= 0) continue;
    const double seconds = bytes / (router_.link_GBps_per_direction(id) * 1e9);
    if (worst.link >= 0 && seconds <= worst.seconds) continue;
    worst.link = id;
    worst.seconds = seconds;
  }
  if (worst.link < 0) return worst;
  const LinkInfo info = router_.link(worst.link);
  worst.name = info.name;
  worst.klass = info.klass;
  return worst;
}

std::vector<ClassLoad> LinkLoads::by_class() const {
  std::array<ClassLoad, kClasses.size()> classes;
  for (int id = 0; id < router_.link_count(); ++id) {
    const double bytes = bytes_[static_cast<std::size_t>(id)];
    if (bytes <= 0) continue;
    ClassLoad& load = classes[class_of(router_.state(), id)];
    load.total_bytes += bytes;
    const double rate = router_.link_GBps_per_direction(id);
    const double seconds = bytes / (rate * 1e9);
    if (load.link >= 0 && seconds <= load.seconds) continue;
    load.link = id;
    load.max_bytes = bytes;
    load.GBps_per_direction = rate;
    load.seconds = seconds;
  }
  std::vector<ClassLoad> result;
  for (std::size_t i = 0; i < classes.size(); ++i) {
    if (classes[i].link < 0) continue;
    classes[i].klass = kClasses[i];
    classes[i].name = router_.link(classes[i].link).name;
    result.push_back(classes[i]);
  }
  return result;
}

}  // namespace topomoe
