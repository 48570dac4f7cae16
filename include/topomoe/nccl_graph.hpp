// What NCCL chose on a machine: the rings and trees (channels) of NCCL_GRAPH_DUMP_FILE, laid over that machine.
//
// The file is no topology: it names GPUs and nets by their number and says how many GB/s NCCL counts on for a channel,
// and the worst class of path that it takes. Laid over a Topology, each channel is a walk over links: a ring from GPU
// to GPU and round, a tree in a node a chain in both directions, with nets at its first (and second) GPU. Ignored: NVLS
// and CollNet direct, whose channels name heads only and meet in the switch: they load no link here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "topomoe/topology.hpp"

namespace topomoe {

struct NcclGraph {
  // NCCL's own numbers (NCCL_TOPO_PATTERN_*).
  enum class Pattern { balanced_tree = 1, split_tree, tree, ring, nvls, collnet_direct };
  struct Node {
    bool net = false;
    int host = 0;  // of a domain of several; 0 otherwise
    int dev = 0;   // NCCL's number of the GPU or net
  };
  struct Search {
    int id = 0;  // 0 ring, 1 tree, 2 CollNet chain, 3 NVLS, 4 CollNet direct
    Pattern pattern = Pattern::ring;
    double intra_GBps = 0, inter_GBps = 0;  // of one channel, as NCCL counts
    PathClass intra = PathClass::LOC, inter = PathClass::LOC;
    int cross_nic = 0;
    bool same_channels = false;
    std::vector<std::vector<Node>> channels;  // nets first and last, where there are any
  };
  std::vector<Search> searches;
  std::vector<std::string> warnings;
};
std::string name(const NcclGraph::Search&);  // "ring", "CollNet chain"

// InvalidInput for what NCCL would not write.
NcclGraph read_nccl_graph(std::string_view text, const std::string& where);

// A search over the links of a topology.
struct NcclSearchUse {
  struct LinkUse {
    std::string name;
    int channels = 0;
    double asked_GBps = 0;  // of these channels together, as NCCL counts
    double GBps_per_direction = 0;
  };
  PathClass intra = PathClass::LOC, inter = PathClass::LOC;  // the worst that a channel takes; LOC: none
  std::string intra_hop, inter_hop;                          // where: "host0.gpu0 to host0.gpu3"
  LinkUse bottleneck;              // what is asked is most of what it carries; no channels: none
  std::vector<LinkUse> links;      // all that a channel crosses, by their number
  std::vector<std::string> notes;  // what does not fit together
};
// One for each search. InvalidInput names a GPU or net that the topology has not.
std::vector<NcclSearchUse> use_of_nccl_graph(const NcclGraph&, const Topology&, const std::string& where);

// A section for show_text, and show_json's text with a key "nccl_graph".
std::string nccl_graph_text(const NcclGraph&, const Topology&, const std::string& where);
std::string with_nccl_graph_json(const std::string& shown, const NcclGraph&, const Topology&, const std::string& where);

}  // namespace topomoe
