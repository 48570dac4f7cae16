// A RoutingProfile: how often each expert is chosen. The router's choices are data; before a run all we
// have is an assumption (uniform, Zipf) or a measured histogram of expert counts.
//
// Tokens are independent and choose k distinct experts, drawn one after another in proportion to
// popularity. Ignored: correlation among a token's experts or among neighbouring tokens, drift.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace topomoe {

struct RoutingProfile {
  enum class Kind : std::uint8_t { uniform, zipf, histogram };
  Kind kind = Kind::uniform;
  double zipf_s = 0;              // zipf: expert i is chosen in proportion to 1/(i+1)^s
  std::vector<double> histogram;  // histogram: counts, one an expert
  std::string name = "uniform";   // for people

  bool operator==(const RoutingProfile&) const = default;
};

constexpr double kMostZipf = 10;
RoutingProfile zipf_routing(double s);  // named "zipf:S"

std::string_view to_string(RoutingProfile::Kind);

// Throws InvalidInput("<where>: <field>", ...): zipf_s in [0, 10]; counts finite, not negative, not all 0.
void check(const RoutingProfile&, std::string_view where = "routing");

// Relative popularity of each expert, summing to 1. Zipf puts the hottest experts first, so under blocked
// placement they share rank 0: the bad case. Throws InvalidInput when a histogram's size is not `experts`.
std::vector<double> expert_popularity(const RoutingProfile&, int experts);

// Expert ids [tokens][k], row-major, distinct within a row, in order of choice. Deterministic: same
// arguments, same ids, on every platform with the same pow(). With groups > 1, topk_groups groups of
// consecutive experts are drawn first, and experts inside them only (DeepSeek's group-limited routing).
// Experts of popularity 0 are chosen only once all others are taken, and then uniformly.
std::vector<std::int32_t> draw_routing(const RoutingProfile&, int experts, int k, int tokens, std::uint64_t seed,
                                       int groups = 1, int topk_groups = 1);

// Expected number of distinct groups that a token's k uniformly drawn experts of `experts` lie in:
// d(G) = G (1 - C(E-E/G, k) / C(E, k)), DESIGN 5. `experts` is a multiple of `groups`.
double expected_distinct_groups(int experts, int groups, int k);

// Counts from text: a JSON array; or CSV, one expert a line (the last column counts, and a header line is
// allowed), or all on a single line. Throws InvalidInput("<where>: line 3", ...).
RoutingProfile read_histogram(std::string_view text, std::string_view where);

}  // namespace topomoe
