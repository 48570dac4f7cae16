// Bytes on links. The bound of a phase is max over links of bytes / rate; the link that attains it is the bottleneck.
#include <cmath>

#include "topology/load_table.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
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
    throw InvalidInput(
        "flow " + state.topology.gpu_name(src_gpu) + " -> " + state.topology.gpu_name(dst_gpu), "no path",
        state.topology.fabric ? "each way has a link that is dead or removed, or leaves of these hosts are not joined "
                                "(spine_count), or a host has no NIC"
                              : "nothing joins the hosts: topo compose --fabric, or \"fabric\" in the description");
}

void LinkLoads::add_to_link(int link, double bytes) {
  const double before = bytes_on(link);
  if (!(bytes >= 0) || !std::isfinite(bytes))
    throw InvalidInput("bytes", std::to_string(bytes), "a finite number of bytes, 0 or more");
  bytes_[static_cast<std::size_t>(link)] = before + bytes;
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
  LoadTable table(router_);
  for (int id = 0; id < router_.link_count(); ++id) table.add(id, bytes_[static_cast<std::size_t>(id)], 1);
  return table.bottleneck();
}

std::vector<ClassLoad> LinkLoads::by_class() const {
  LoadTable table(router_);
  for (int id = 0; id < router_.link_count(); ++id) table.add(id, bytes_[static_cast<std::size_t>(id)], 1);
  return table.by_class();
}

}  // namespace topomoe
