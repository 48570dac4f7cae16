// What a named traffic puts on each directed link of a cluster, and what that bounds: the slowest link, the time it
// takes, and the bandwidth a GPU gets, in the words of nccl-tests.
//
// Model: bytes over raw rate, link by link; nothing but the links limits. alltoall: each GPU sends bytes / n to each of
// n. rail: GPU i of each host exchanges so with GPU i of all hosts. pairs: GPU i sends its bytes to GPU (i + n/2) mod n
// (n/2 rounded down). A matrix says the bytes from each GPU to each.
// Ignored: latency, protocols, and that flows of one phase do not start together; no measurement beats these times.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "topomoe/class_loads.hpp"

namespace topomoe {

enum class TrafficPattern { alltoall, rail, pairs };
const char* name(TrafficPattern);

// Bytes from each GPU (a row) to each (a column), row by row.
struct TrafficMatrix {
  int gpus = 0;
  std::vector<double> bytes;
  std::string source;  // its file
};
// Comma-separated, `gpus` rows of so many numbers; a line of names above and a name before each row may be there.
// InvalidInput names row and column (from 1, names not counted) of what is no number, negative or not finite.
TrafficMatrix read_traffic_csv(std::string_view text, const std::string& where, int gpus);

struct LoadedClass : ClassLoad {    // the link named is the one that takes longest, the first of several
  Source source = Source::unknown;  // of its rate
  std::string source_note;
  int links_as_loaded = 0;  // links of the class that take as long
  double share = 0;         // its time over the bottleneck's
};

struct PatternLoad {
  std::string pattern;  // "alltoall", or the matrix's file
  int gpus = 0;
  double buffer_bytes = 0;  // of the GPU that sends most, what it keeps included
  double sent_bytes = 0;    // what leaves the GPU that sends most
  FoldedLoads loads;
  std::vector<LoadedClass> classes;  // with traffic
  Bottleneck bottleneck;
  double algorithm_GBps = 0;  // buffer_bytes over the bottleneck's time
  double bus_GBps = 0;        // sent_bytes over it: alltoall (n-1)/n of the former
};

// `bytes`: the buffer of each GPU, above 0. InvalidInput where there are no GPUs, no two of them exchange anything, or
// a pair has no path. alltoall, and rail where hosts have equally many GPUs, never look at all pairs.
PatternLoad pattern_load(const Router&, TrafficPattern, double bytes);
PatternLoad pattern_load(const Router&, const TrafficMatrix&);

std::string pattern_load_text(const PatternLoad&);
std::string pattern_load_json(const PatternLoad&);  // schema topomoe.load/1

}  // namespace topomoe
