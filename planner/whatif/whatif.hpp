// What if: the same question over many clusters and jobs, a plan for each, side by side.
//
// Axes: the clusters; with edits, "as given" and "edited"; then each setting's values. Their cross product
// is the list of points, the last setting varying fastest; nothing is interpolated, every point is a
// make_plan of its own. Settings come first, then edits, so that names are those of the cluster as set.
// A point without a plan stays, with its reason. Pure: the same question has the same points whatever the
// number of threads. Ignored: what points have in common; each is worked out from the beginning.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "topomoe/planner.hpp"

namespace topomoe {

constexpr std::size_t kMostPoints = 10'000;

// One axis: what is set, and to what, as typed.
struct Setting {
  std::string key;                  // "nic.GBps", "sequence", "tp"; setting_keys() lists them
  std::vector<std::string> values;  // {"25", "50"}
};
// "nic.GBps=25,50". Throws InvalidInput("--set", ...) for an unknown key and for values that the key cannot have.
Setting parse_setting(const std::string& text);
// All keys in words: "nic.GBps, ... (of the cluster), sequence, ... (of the job)".
std::string setting_keys();
// Whether values of this key are numbers.
bool numeric(const std::string& key);

struct WhatIf {
  struct Cluster {
    std::string name;  // unique
    Topology topology;
    std::string note;  // PlanRequest::topology_note
  };
  std::vector<Cluster> clusters;
  PlanRequest base;  // without its topology
  std::vector<Setting> settings;
  std::vector<std::string> degrade, remove;        // "leaf3=0.5", "host17.gpu3"
  std::map<std::string, RoutingProfile> routings;  // what values of the key "routing" mean
};

// One cell of the cross product.
struct WhatIfPoint {
  std::size_t cluster = 0;
  bool edited = false;
  std::vector<std::size_t> values;  // index into each setting's values
};

// How many points there are. Throws InvalidInput where the question makes no sense: no cluster, a key set twice or
// also fixed by the request, more than kMostPoints.
std::size_t point_count(const WhatIf&);
WhatIfPoint point_at(const WhatIf&, std::size_t index);
// Throws InvalidInput where the cluster cannot be what the point says.
PlanRequest request_at(const WhatIf&, const WhatIfPoint&);

struct WhatIfOutcome {
  // refused: the planner does not take such a request, as infeasible: no plan fits.
  enum class Status { not_computed, planned, infeasible, refused };
  Status status = Status::not_computed;
  std::string reason;
  // Without what grows with the world (ranks, owners) and the schedule's buffers: thousands are kept.
  std::optional<Plan> plan;
};
const char* name(WhatIfOutcome::Status);

struct WhatIfRun {
  int threads = 1;
  std::function<void(std::size_t done, std::size_t all)> progress;  // called by one thread at a time
  const std::atomic<bool>* cancel = nullptr;                        // once true, no further point begins
};

// One outcome a point, in order. Exceptions other than InvalidInput end the run and come out. Throws InvalidInput where
// every point is refused, or every edited one for its edits: then the question is wrong, not the points.
std::vector<WhatIfOutcome> run_what_if(const WhatIf&, const WhatIfRun& = {});

// Two points that are neighbours along an axis of numbers, in rising order, and whose plans differ in TP, CP, PP, ETP,
// EP, recomputation (layout) or in how tokens travel (algorithm); or of which one has no plan.
struct WhatIfChange {
  std::string key;
  std::size_t from = 0, to = 0;  // points
  bool layout = false, algorithm = false;
  std::string text;  // "sequence 32768 to 65536: TP1 CP2 ... -> TP1 CP4 ..."
};
std::vector<WhatIfChange> find_changes(const WhatIf&, const std::vector<WhatIfOutcome>&);

// The link that is busy longest in a layer; null where no link is used.
const LinkClassLoad* busiest_link(const Plan&);
double gpu_seconds_per_token(const Plan&, double step_ms);

// A table, a line a point.
std::string what_if_text(const WhatIf&, const std::vector<WhatIfOutcome>&);
// Schema topomoe.whatif/1, a line a point.
std::string what_if_json(const WhatIf&, const std::vector<WhatIfOutcome>&);
// One self-contained page over what_if_json's text: it shows that and nothing else.
std::string what_if_page(const std::string& json);

}  // namespace topomoe
