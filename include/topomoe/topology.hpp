// What a cluster is: GPUs, NICs and switches, the links between them, and what each link can carry.
//
// Model: hosts are templates times a count (10,000 GPUs stay a few kilobytes); a scale-up domain is a
// number of consecutive hosts that share one NVLink plane; above the NICs stands a fabric: a fat tree of
// one to three tiers, rail-optimised or not, a dragonfly+, or a torus of hosts. Devices and links form a
// directed multigraph; every rate is raw signalling, per direction, in GB/s (1e9 bytes/s), and carries the
// source of its figure.
// Ignored: routing tables of real switches (ECMP is taken as perfect: the uplinks of one leaf count as
// one link, and one of n that is dead takes 1/n of its rate), and congestion control.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace topomoe {

// ---------------------------------------------------------------- words

// Nearest first, as NCCL names them. PIX: one PCIe bridge on the path, PXB: several, PHB: through a CPU,
// SYS: between CPUs, NVB: over another GPU's NVLink, P2C: C2C to the CPU, then PCIe, PXN: NVLink to the
// GPU beside the wanted NIC, NET: over the fabric, DIS: no path.
enum class PathClass { LOC, NVL, NVB, C2C, PIX, PXB, P2C, PXN, PHB, SYS, NET, DIS };
enum class Source { measured, datasheet, assumed, unknown };
enum class DeviceKind { gpu, nic, numa, pci_switch, nvswitch, host, leaf, spine, core };
enum class LinkKind {
  nvlink,
  xgmi,
  c2c,
  pcie,
  cpu_interconnect,
  cpu_root,
  nic,
  leaf_spine,
  pod_core,
  group_group,
  ring
};
enum class FabricKind { fat_tree, dragonfly_plus, torus };
// "Unknown" is not "absent": a template file without NVLink elements says nothing about NVLink.
enum class Presence { present, absent, unknown };

const char* name(PathClass);   // "NVL"
const char* name(Source);      // "datasheet"
const char* name(DeviceKind);  // "gpu"
const char* name(LinkKind);    // "nvlink"
const char* name(Presence);    // "present"
const char* name(FabricKind);  // "fat_tree"

// ---------------------------------------------------------------- values

// Figures of one GPU, dense (no sparsity); 0: not known.
struct GpuSpec {
  std::string name;
  double memory_GiB = 0;
  double hbm_GBps = 0;
  double bf16_TFLOPps = 0;
  double fp8_TFLOPps = 0;
  double fp32_TFLOPps = 0;
  int sms = 0;
  Source source = Source::unknown;
  std::string source_note;
  bool operator==(const GpuSpec&) const = default;
};

// What a description says beyond what routes need, in its own words and order: "sm" "90", "link_speed" "32.0 GT/s
// PCIe". Of a kind, not of one machine (no serial numbers, no ranks), so that equal hosts stay equal.
struct Attribute {
  std::string name, value;
  bool operator==(const Attribute&) const = default;
};
// Value of the first of that name; empty: there is none.
std::string_view attribute(const std::vector<Attribute>& of, std::string_view name);

// A device of one host. (topomoe::Device is where tensors live: include/topomoe/device.hpp.)
struct HostDevice {
  DeviceKind kind = DeviceKind::gpu;
  std::string name;    // unique in its host: "gpu3", "nic0", "numa1", "pci_switch2", "nvswitch"
  std::string bus_id;  // "0000:1b:00.0"; empty where there is none
  int numa = -1;       // index of the NUMA node, -1: not known
  std::vector<Attribute> attributes;
  bool operator==(const HostDevice&) const = default;
};

// A rate with its origin.
struct Rate {
  double GBps_per_direction = 0;
  double latency_us = 0;
  Source source = Source::unknown;
  std::string source_note;
  bool operator==(const Rate&) const = default;
};

// A link inside a host, between devices of HostTemplate::devices. both_ways: two directed links of this
// rate. Several parallel physical links are one Link with the sum of their rates.
struct Link {
  int src = 0;
  int dst = 0;
  LinkKind kind = LinkKind::pcie;
  double GBps_per_direction = 0;
  double latency_us = 0;
  Source source = Source::unknown;
  std::string source_note;
  bool both_ways = true;
  int count = 0;  // physical links of which it is the sum; 0: not known
  bool operator==(const Link&) const = default;
};

// One network port group of a host, as NCCL counts nets.
struct Nic {
  int device = 0;    // in HostTemplate::devices; two ports may share one device
  int rail = 0;      // which rail (leaf of a pod) the port is cabled to
  std::string name;  // "mlx5_0"
  Rate port;         // the port to the leaf switch
  std::vector<Attribute> attributes;
  bool operator==(const Nic&) const = default;
};

// The short way to describe a regular host. build_host() turns it into the graph.
struct HostShape {
  std::string kind;  // "nvswitch": all GPUs on one NVLink plane; "pcie": no NVLink
  int gpus = 0;
  int numa_nodes = 1;
  int gpus_per_pci_switch = 1;  // 0: GPUs and NICs hang directly under the CPU
  int nics = 0;                 // spread evenly over the PCIe switches
  Rate nvlink;                  // per GPU, all its links together; kind "nvswitch" only
  Rate pcie;                    // per slot, GPUs and NICs, and each switch's way up to the CPU
  Rate c2c;                     // GPU to CPU (Grace); rate 0: GPUs reach the CPU by PCIe
  Rate cpu_interconnect;        // between each two NUMA nodes
  Rate nic;                     // per NIC, port to leaf
  // All that one CPU passes on between devices below it, to and from other CPUs: one link that every such flow takes.
  // Rate 0: the CPU is no limit.
  Rate cpu_root;
  bool operator==(const HostShape&) const = default;
};

// The graph inside one host.
struct HostTemplate {
  std::string name;
  GpuSpec gpu;
  std::vector<HostDevice> devices;
  std::vector<Link> links;
  std::vector<int> gpus;  // device indices, in order of GPU number
  std::vector<Nic> nics;
  Presence nvlink = Presence::unknown;
  std::optional<HostShape> shape;  // set where the graph is exactly build_host(shape); keeps JSON short
  bool operator==(const HostTemplate&) const = default;
};

struct HostGroup {
  int template_index = 0;
  int count = 0;
  bool operator==(const HostGroup&) const = default;
};

// A cable or a switch of the fabric that carries less than its kind says. Names of cables, both directions:
// "leaf3->spine" (all uplinks of the leaf), "leaf3->spine5" (one of them), "leaf3->pod0", "pod2->core", "pod2->core7",
// "group0->group3", "host3.ring->host4.ring"; of switches: "spine5", "pod0.spine5", "core7". With several planes the
// upper end begins with the plane: "leaf3->plane1.spine".
struct FabricException {
  std::string name;
  double factor = 0;  // of the rate; 0: dead
  bool operator==(const FabricException&) const = default;
};

// What joins the hosts. Each hosts_per_leaf hosts form a unit. rail_optimised: the unit has one leaf for each rail;
// otherwise all its NICs hang on one leaf (one for each plane).
// planes: parallel fabrics that are never joined to each other; a NIC of rail r is on plane r % planes. planes == rails
// is rail-only: each rail has its own spine, none above them all.
// fat_tree: spine_count 0: leaves are not joined; hosts_per_pod 0: all leaves of a plane meet in one layer of spines;
// else the leaves of a pod meet in the pod's spines, and the pods in the cores. dragonfly_plus: a group is such a pod,
// and each two groups are joined directly. torus: each host has a router in rings of `dims`, dimension 0 first;
// rails, leaves and spines play no part.
// core_count 0: pods are not joined. An uplink of rate 0 and unknown source: nobody said; only where no host has a GPU,
// so that nothing is computed from it.
struct Fabric {
  int rails = 1;
  bool rail_optimised = false;
  int hosts_per_leaf = 1;
  int spine_count = 0;          // of one plane, or of one pod and plane
  double oversubscription = 1;  // bytes/s that a leaf takes from its hosts over those it can send up
  Rate uplink;                  // all uplinks of one leaf together
  FabricKind kind = FabricKind::fat_tree;
  int planes = 1;
  int hosts_per_pod = 0;            // of a pod or group: a multiple of hosts_per_leaf
  int core_count = 0;               // of one plane; fat_tree with pods
  double pod_oversubscription = 1;  // bytes/s that a pod takes from its leaves over those it can send out
  Rate pod_uplink;                  // all uplinks of one pod and plane; dragonfly_plus: of a group to one other group
  std::vector<int> dims;            // torus: hosts along each dimension
  Rate ring;                        // torus: from a host to the next of one ring
  std::vector<FabricException> exceptions;
  // Where leaves or pods differ, else empty: hosts of each unit in order, at most hosts_per_leaf; units of each pod or
  // group, at most hosts_per_pod / hosts_per_leaf.
  std::vector<int> leaf_hosts, pod_leaves;
  // What people call the switches; empty: nothing. One for each leaf, one for each pod (of a single layer of spines,
  // one).
  std::vector<std::string> leaf_names, pod_names;
  bool operator==(const Fabric&) const = default;
};

struct HostRange {
  int first = 0, end = 0;
};

struct Topology {
  std::string name;
  std::vector<HostTemplate> templates;
  std::vector<HostGroup> groups;        // hosts in order: all of groups[0], then groups[1], ...
  int hosts_per_domain = 1;             // 1 for a DGX, 18 trays for a GB200 NVL72
  std::optional<Fabric> fabric;         // none: hosts are not joined (or there is only one)
  std::vector<std::string> warnings;    // what is unknown or assumed; not part of the fingerprint
  std::string source;                   // where it was read from
  std::vector<std::string> host_names;  // what people call the hosts; empty, or one each ("": none)
  bool operator==(const Topology&) const = default;

  int host_count() const;
  int gpu_count() const;
  int gpus_per_host(int host = 0) const;
  int host_of(int gpu) const;
  int first_gpu_of_host(int host) const;
  const HostTemplate& host_template(int host) const;
  // A node is a scale-up domain; without NVLink it is the host.
  int node_count() const;
  int node_of(int gpu) const;
  int gpus_per_node() const;  // of the first node with GPUs; see uniform()
  int gpus_in_node(int node) const;
  bool uniform() const;    // all nodes alike and full; hosts without GPUs are not counted
  int leaf_count() const;  // 0 without fabric
  // Hosts that share their leaves with this one, itself included; the host alone without fabric and on a torus.
  HostRange hosts_beside(int host) const;
  std::string host_name(int host) const;  // "n17"; "host3" where it has none
  std::string gpu_name(int gpu) const;    // "host3.gpu5", "n17.gpu5"
  std::string bus_id(int gpu) const;
  const GpuSpec& gpu_spec(int gpu) const;
};

// The graph of a regular host. InvalidInput names the field of the shape that does not fit.
HostTemplate build_host(const HostShape&, const GpuSpec&, const std::string& template_name);

// Throws InvalidInput{where + field, value, way out} unless counts, indices and rates make sense: rates finite and > 0,
// at most 10^7 GPUs, connected references. Readers and Router call it.
void require_valid(const Topology&, const std::string& where);

// ---------------------------------------------------------------- routes

struct Route {
  PathClass path_class = PathClass::DIS;
  std::vector<int> links;      // directed link ids, in order from src; empty for LOC and DIS
  double latency_us = 0;       // sum over the links
  double bottleneck_GBps = 0;  // least rate on the way; infinity for LOC, 0 for DIS
};

// A directed link.
struct LinkInfo {
  int id = 0;
  std::string name;  // "host0.gpu3->nvswitch", "leaf2->spine"; hosts and leaves as people call them, where they do
  std::string src,
      dst;  // full names of its ends: "host0.gpu3", "host0.nvswitch"; consecutive links of a route share one
  // "nvlink" "xgmi" "c2c" "pcie" "cpu_interconnect" "cpu_root" "nic_out" "nic_in" "leaf_up" "leaf_down"
  // "pod_up" "pod_down" "group_group" "ring"
  std::string klass;
  LinkKind kind = LinkKind::pcie;
  double GBps_per_direction = 0;  // 0: dead, no route takes it
  double latency_us = 0;
  Source source = Source::unknown;
  std::string source_note;
};

struct RouteOptions {
  // On a rail-optimised fabric, reach another rail over NVLink first (where there is NVLink), not over the spine.
  bool pxn = true;
};

// Routes on a topology. Inside a host: the widest of the shortest paths, over other GPUs at most once and by NVLink
// only. Between hosts: GPU, its nearest NIC, leaf (spine, leaf), the NIC of the destination's rail, GPU; arithmetic
// on ids, nothing of size gpus^2. A GPU with several equally near NICs of its own spreads its peers over them.
// Around what is dead: another NIC (of a GPU beside it first, PXN), a third group, the other way round the ring.
// Torus: dimension by dimension, the shorter way round; where both are equal, even places go up and odd ones down.
// Immutable and safe to share between threads; copies share their state; keeps its own copy of the topology.
class Router {
 public:
  explicit Router(const Topology&, RouteOptions = {});
  const Topology& topology() const;
  Route route(int src_gpu, int dst_gpu) const;
  // Inside the GPU's host, to a NIC given by its index in HostTemplate::nics; without the port to the leaf.
  Route route_to_nic(int gpu, int nic) const;
  // The NIC (index in HostTemplate::nics) that the GPU uses first; -1: none within reach.
  int nearest_nic(int gpu) const;
  int link_count() const;
  LinkInfo link(int id) const;
  double link_GBps_per_direction(int id) const;

  struct State;  // of topology/, not of the public API
  const State& state() const { return *state_; }

 private:
  std::shared_ptr<const State> state_;
};

// For one question; build a Router for many.
Route route(const Topology&, int src_gpu, int dst_gpu);

// ---------------------------------------------------------------- link load

struct Bottleneck {
  int link = -1;  // -1: nothing was added
  std::string name;
  std::string klass;
  double seconds = 0;  // max over links of bytes / rate: what no estimate may beat
};

struct ClassLoad {
  std::string klass;
  double max_bytes = 0;           // on the link that takes longest
  double total_bytes = 0;         // summed over the links of the class
  double GBps_per_direction = 0;  // of that link
  double seconds = 0;
  int link = -1;
  std::string name;
};

// Bytes on each directed link, added up flow by flow. One double a link; add() allocates nothing.
// Not thread-safe; one for each thread, then merge().
class LinkLoads {
 public:
  explicit LinkLoads(const Router&);
  // Self flows load nothing. InvalidInput for negative or non-finite bytes, unknown GPUs, and where there is no path.
  void add(int src_gpu, int dst_gpu, double bytes);
  // To one directed link.
  void add_to_link(int link, double bytes);
  void merge(const LinkLoads& other);
  void clear();
  double bytes_on(int link) const;
  Bottleneck bottleneck() const;
  std::vector<ClassLoad> by_class() const;  // the classes with traffic, in the order of LinkInfo::klass above
  const Router& router() const { return router_; }

 private:
  Router router_;
  std::vector<double> bytes_;
};

// ---------------------------------------------------------------- files and machines

// Schema "topomoe.cluster/1". `where` is the file's name in messages; `directory` is where files that it refers to
// are looked for ("template": {"nccl_xml": ...}); such references are refused when it is empty.
Topology read_cluster_json(std::string_view text, const std::string& where, const std::string& directory = "");
// read(write(x)) writes the same text.
std::string write_cluster_json(const Topology&);
// NCCL's or RCCL's NCCL_TOPO_DUMP_FILE. The hosts in it become groups; there is no fabric in such a file.
Topology read_nccl_xml(std::string_view text, const std::string& where);
// As NCCL would have dumped it. InvalidInput where NVLinks cannot be counted (the GPU's generation is not known), and
// for hosts of several NVLink domains: in such a file they are one.
std::string write_nccl_xml(const Topology&);
// Any of the formats below, told apart by content, or as that format. InvalidInput for what is none of them lists them.
Topology read_topology(std::string_view text, const std::string& where, const std::string& as = "",
                       const std::string& directory = "");
Topology read_topology_file(const std::string& path, const std::string& as = "");
struct TopologyFormat {
  std::string name;  // as `as` takes it: "nccl-xml"
  std::string what;  // "NCCL or RCCL topology XML (NCCL_TOPO_DUMP_FILE)"
};
std::vector<TopologyFormat> topology_formats();
// This machine: hwloc, and NCCL's dump where there are GPUs and NCCL at run time. Without a GPU: warnings, no error.
Topology discover_live();

// The first `gpus` GPUs in whole hosts (rounded up), or more hosts of the last template and more fabric at the same
// oversubscription. What was done goes to *note (empty when nothing was).
Topology resize_hosts(const Topology&, int gpus, std::string* note);

// One change to a cluster, as people type it.
struct Edit {
  enum class Kind { remove, degrade, set };
  Kind kind = Kind::remove;
  // remove, degrade: "host17" "host17.gpu3" "host3.nic2" "leaf3" "rail3", any link by its name, "leaf3->spine5",
  // "spine5" "pod0.spine5" "core7"; hosts, leaves and pods also as people call them: "n17.gpu3" "leaf-a".
  // Of a GPU, its links are degraded and not its arithmetic; of a NIC, its port.
  // set: "nic.GBps" "nvlink.GBps" (of one GPU) "pcie.GBps" "cpu_root.GBps" "uplink.GBps" "pod_uplink.GBps" "ring.GBps",
  // the same with ".latency_us", "oversubscription" "pod_oversubscription" "hosts" "hosts_per_domain" "gpu.memory_GiB"
  // "gpu.hbm_GBps" "gpu.bf16_TFLOPps" "gpu.fp8_TFLOPps"
  std::string target;
  double value = 0;  // degrade: factor on the rates; set: the figure
};
// "host17.gpu3"; "leaf3=0.5"; "nic.GBps=25". InvalidInput where the form is not that.
Edit parse_remove(const std::string&);
Edit parse_degrade(const std::string&);
Edit parse_set(const std::string&);

// The edits in order. Names are those of the cluster as it is given: a host that is removed keeps its place, without
// devices, so that no other moves. A host that is touched leaves its group with a template of its own; equal ones share
// it. A degraded leaf takes the ports of its hosts with it. New NIC or uplink rates change the oversubscription, not
// each other. The warnings say what was done. InvalidInput for an unknown name lists what is there.
Topology edit(const Topology&, const std::vector<Edit>&);

// 16 hex digits over all that affects a plan: counts, bus ids, links, rates; not names, sources or warnings.
std::string fingerprint(const Topology&);

// What can be counted, of a topology from whatever source, as JSON: n_hosts n_numa n_gpu n_net links_per_gpu
// gpu_pair_links links_to_switch nvswitch nccl_nvlink_GBps closest_nic, and warnings. By bus id, of several hosts by
// "host/bus id". Of what its source says nothing: null, and a line in warnings.
std::string facts_json(const Topology&);

std::string show_text(const Topology&);
std::string show_json(const Topology&);
std::string write_dot(const Topology&);
std::string write_svg(const Topology&);

}  // namespace topomoe
