// The words that plans use. What each means exactly: include/topomoe/layout.hpp, schedule.hpp and schedules/.

#include "topomoe/planner.hpp"

namespace topomoe {

std::string glossary_text() {
  return R"(layout: how ranks (GPUs) form groups. TP x CP x DP x PP and ETP x EP x EDP x PP are both all ranks.
  TP    tensor parallel: attention and dense weights of a layer cut over TP ranks, which hold the same tokens
  SP    sequence parallel: outside attention and experts, tokens of a TP group are cut over its ranks
  CP    context parallel: a sequence cut over CP ranks
  DP    data parallel: replicas that hold other sequences; EDP: replicas of an expert
  PP    pipeline parallel: layers cut into PP stages; VPP: virtual stages, parts of the model a stage holds
  EP    expert parallel: whole experts dealt out over EP ranks, tokens travel to them
  ETP   expert tensor parallel: each expert cut over ETP ranks (ETP > 1, EP1: every rank has a slice of every expert)
  ZeRO  what DP ranks share out in training: 0 nothing, 1 the optimizer (unless said), 2 gradients too, 3 weights too
  MoE kind   MoE layers of one shape; each kind has its own algorithm
  EDP inner: ranks of an EP group lie as far apart as they can, not side by side
  node  GPUs joined by a scale-up network: a host, or a rack of NVL72; between nodes there are NICs
algorithm: how the tokens of a MoE layer travel. Token split, transport, n chunks.
  sliced      under TP each rank sends its share of its group's tokens
  replicated  under TP each rank sends all of them
  flat        one exchange among all EP ranks
  two_level   an exchange inside the node, then one between nodes: fewer, larger messages
  node_dedup  a token crosses to a node once, however many of its experts are there
  gather      all ranks get all tokens, and each computes what it holds
  n           chunks of tokens; dispatch of one runs beside the experts of another
  r           pieces in which the experts compute, where it is not n
time
  lane        a queue of steps: compute, copy, intra_node, inter_node; lanes run beside each other and share links
  alone us    a step by itself; shared us: beside what else runs then
  bound       no execution can be faster: bytes or flops over the raw rate of what is used most
  micro-batch  sequences that go through a stage at once; recompute: what backward computes again instead of keeping it
  hidden      gradients summed in spans in which the inter-node lane is idle; exposed: those summed after backward
  bubble      stages that wait for the pipeline to fill and drain
  skew        how unequally experts are chosen: with zipf:s expert i gets a share in proportion to 1 / i^s
  MFU         model FLOPs utilization: FLOPs of the model, recomputation not counted, over the GPU's dense peak
  undecided   the difference is smaller than the errors of the rates that it rests on
)";
}

}  // namespace topomoe
