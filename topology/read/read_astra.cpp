// ASTRA-sim's dimensions -> hosts and a fabric.
//
// The innermost dimension is what joins the GPUs of a host; each GPU has a port of its own into each outer one, so an
// outer Switch is a leaf for each GPU of a host (rail-only: rails meet nowhere), a further one above it the spine of
// that rail. Outer Rings are a torus of hosts, the rings of a host's GPUs taken together.
#include <fmt/format.h>

#include <algorithm>

#include "topology/fabric.hpp"
#include "topology/names.hpp"
#include "topology/read/astra_network.hpp"
#include "topology/read/readers.hpp"
#include "topology/read/simulated_host.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Kind = AstraDimension::Kind;
constexpr const char* kNote = "ASTRA-sim network file";
constexpr int kMostInHost = 512;    // what a host may have: check.cpp
constexpr int kMostInMesh = 256;    // 32,640 links
constexpr int kMostInHostRing = 5;  // a GPU is passed through once: two links reach everyone in a ring of five
constexpr int kMostRails = 64;      // planes of a fabric
constexpr std::int64_t kMostNpus = 10'000'000;

class AstraReader {
 public:
  AstraReader(AstraNetwork network, const std::string& where)
      : dimensions_(std::move(network.dimensions)), where_(where) {
    topology_.name = stem_of_file(where);
    topology_.source = where;
    topology_.warnings = std::move(network.warnings);
  }

  Topology run() {
    std::int64_t npus = 1;
    for (const AstraDimension& own : dimensions_) {
      npus *= own.npus;
      if (npus > kMostNpus)
        throw InvalidInput(where_ + ": npus_count", fmt::format("{} NPUs and more", npus), "at most 10,000,000");
    }
    host_.name = "npus";
    host_.source_note = "ASTRA-sim names no kind of NPU";
    place_host();
    const int hosts = static_cast<int>(npus / host_.gpus);
    if (outer_ < dimensions_.size()) {
      if (count_outer(Kind::ring) == dimensions_.size() - outer_)
        add_torus();
      else
        add_tree();
    }
    topology_.templates = {build_simulated_host(host_)};
    topology_.groups = {{0, hosts}};
    update_oversubscription(topology_);
    warn("rates are read as GB/s of 10^9 bytes, as the file's comments have it; ASTRA-sim counts 2^30, 7.4% more");
    require_valid(topology_, where_);
    for (const std::string& line : warnings_from_sources(topology_)) warn(line);
    return std::move(topology_);
  }

 private:
  void warn(const std::string& line) { add_warning(topology_, line); }
  [[noreturn]] void fail(std::size_t dimension, const std::string& found, const std::string& hint) const {
    throw InvalidInput(fmt::format("{}: topology[{}]", where_, dimension), found, hint);
  }
  static Rate rate(double GBps, double latency_ns) { return {GBps, latency_ns / 1000, Source::assumed, kNote}; }
  static Rate rate(const AstraDimension& own) { return rate(own.GBps, own.latency_ns); }
  std::size_t count_outer(Kind kind) const {
    return static_cast<std::size_t>(std::count_if(dimensions_.begin() + static_cast<long>(outer_), dimensions_.end(),
                                                  [&](const AstraDimension& own) { return own.kind == kind; }));
  }
  bool alike(std::size_t from) const {
    return std::all_of(dimensions_.begin() + static_cast<long>(from), dimensions_.end(),
                       [&](const AstraDimension& own) {
                         return own.GBps == dimensions_[from].GBps && own.latency_ns == dimensions_[from].latency_ns;
                       });
  }

  // What a host is: the innermost dimension, or one NPU where all dimensions are alike Rings (a torus of NPUs).
  void place_host() {
    const AstraDimension& inner = dimensions_[0];
    host_.gpus = inner.npus;
    outer_ = 1;
    switch (inner.kind) {
      case Kind::ring:
        if (count_outer(Kind::ring) == dimensions_.size() - 1 && alike(0)) {
          host_.gpus = 1;
          outer_ = 0;
        } else if (inner.npus <= kMostInHostRing) {
          host_.inside = SimulatedHost::Inside::ring;
          host_.link = rate(inner);
        } else {
          fail(
              0, fmt::format("a Ring of {} inside dimensions of other kinds or rates", inner.npus),
              fmt::format("inside a host rings of up to {} are modelled, and a torus where all dimensions are Rings of "
                          "one rate and latency",
                          kMostInHostRing));
        }
        break;
      case Kind::switched:
        host_.inside = SimulatedHost::Inside::plane;
        host_.link = rate(inner);
        split_domain(inner.npus);
        break;
      case Kind::fully_connected:
        if (inner.npus > kMostInMesh)
          fail(0, fmt::format("FullyConnected of {}", inner.npus), fmt::format("at most {}", kMostInMesh));
        host_.inside = SimulatedHost::Inside::mesh;
        host_.link = rate(inner);
        break;
    }
  }

  // More NPUs on one switch than a host may have: hosts of the largest equal size that share it.
  void split_domain(int npus) {
    if (npus <= kMostInHost) return;
    int size = kMostInHost;
    while (npus % size != 0) --size;
    host_.gpus = size;
    topology_.hosts_per_domain = npus / size;
    warn(fmt::format("a Switch of {} NPUs is held as a scale-up domain of {} hosts of {}", npus, npus / size, size));
  }

  void add_ports(const Rate& port) {
    for (int gpu = 0; gpu < host_.gpus; ++gpu) host_.ports.push_back({gpu, gpu, port});
  }

  void add_torus() {
    if (!alike(outer_))
      fail(outer_, "Rings of different bandwidth or latency",
           "a torus has one rate and latency for all its dimensions here");
    if (topology_.hosts_per_domain > 1)
      fail(0, fmt::format("a Switch of {} inside a torus", dimensions_[0].npus),
           fmt::format("at most {}", kMostInHost));
    if (dimensions_.size() - outer_ > 8) fail(outer_, "more than eight Rings", "a torus has up to eight dimensions");
    const AstraDimension& own = dimensions_[outer_];
    Fabric fabric;
    fabric.kind = FabricKind::torus;
    fabric.ring = rate(own.GBps * host_.gpus, own.latency_ns);
    int links = 0;
    for (std::size_t i = outer_; i < dimensions_.size(); ++i) {
      fabric.dims.push_back(dimensions_[i].npus);
      links += dimensions_[i].npus == 2 ? 1 : 2;
    }
    // The NPU's links are its port: nothing but the rings themselves limits it.
    add_ports({own.GBps * links, 0, Source::assumed, "all ring links of the NPU together"});
    if (host_.gpus > 1)
      warn(
          fmt::format("the {} rings of the NPUs of a host count as one of their sum: a single NPU's flow may take all "
                      "of it",
                      host_.gpus));
    topology_.fabric = std::move(fabric);
  }

  void add_tree() {
    const std::size_t tiers = dimensions_.size() - outer_;
    for (std::size_t i = outer_; i < dimensions_.size(); ++i)  // in a Ring of three everyone is a neighbour
      if (dimensions_[i].kind == Kind::ring && dimensions_[i].npus <= 3) dimensions_[i].kind = Kind::fully_connected;
    if (count_outer(Kind::ring) > 0)
      fail(outer_, "Rings and other kinds outside the host", "outer dimensions are all Rings, or none is");
    if (tiers > 3) fail(outer_, fmt::format("{} tiers", tiers), "at most three dimensions outside the host");
    if (topology_.hosts_per_domain > 1)
      fail(0, fmt::format("a Switch of {} below other dimensions", dimensions_[0].npus),
           fmt::format("at most {}", kMostInHost));
    if (tiers > 1 && host_.gpus > kMostRails)
      fail(outer_ + 1, fmt::format("switches above the leaves of {} NPUs a host", host_.gpus),
           fmt::format("at most {} rails with spines of their own", kMostRails));
    std::vector<double> GBps;  // of one NPU into each tier
    for (std::size_t i = outer_; i < dimensions_.size(); ++i) {
      const AstraDimension& own = dimensions_[i];
      GBps.push_back(own.kind == Kind::switched ? own.GBps : own.GBps * (own.npus - 1));
      if (own.kind == Kind::fully_connected && own.npus > 2)
        warn(
            fmt::format("dimension {}: FullyConnected is held as a switch with all {} links of an NPU in one port: a "
                        "single pair may take all of it",
                        i, own.npus - 1));
    }
    const auto at = [&](std::size_t tier) -> const AstraDimension& { return dimensions_[outer_ + tier]; };
    // A FullyConnected is one link away, a switch two.
    const auto latency = [&](std::size_t tier) {
      return at(tier).kind == Kind::switched ? at(tier).latency_ns : at(tier).latency_ns / 2;
    };
    // What a tier adds to the one below, as far as it does: in ASTRA-sim a dimension is passed alone.
    const auto added = [&](std::size_t tier) { return std::max(0.0, latency(tier) - latency(tier - 1)); };
    Fabric fabric;
    fabric.rails = host_.gpus;
    fabric.rail_optimised = true;
    fabric.hosts_per_leaf = at(0).npus;
    if (tiers > 1) {
      fabric.planes = host_.gpus;
      fabric.spine_count = 1;
      fabric.uplink = rate(at(0).npus * GBps[1], added(1));
      warn(
          "an NPU's ports into the outer dimensions are held as one of the fastest of them: traffic of several shares "
          "it");
    }
    if (tiers > 2) {
      fabric.hosts_per_pod = at(0).npus * at(1).npus;
      fabric.core_count = 1;
      fabric.pod_uplink = rate(fabric.hosts_per_pod * GBps[2], added(2));
    }
    add_ports(rate(*std::max_element(GBps.begin(), GBps.end()), latency(0)));
    topology_.fabric = std::move(fabric);
  }

  std::vector<AstraDimension> dimensions_;
  const std::string& where_;
  Topology topology_;
  SimulatedHost host_;
  std::size_t outer_ = 0;  // the first dimension outside the host
};

}  // namespace

Topology read_astra(std::string_view text, const std::string& where) {
  return AstraReader(parse_astra_network(text, where), where).run();
}

}  // namespace topomoe
