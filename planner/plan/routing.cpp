#include "topomoe/routing.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "fmt/format.h"
#include "planner/plan/json.hpp"
#include "planner/plan/names.hpp"

namespace topomoe {

namespace {

constexpr NameTable<RoutingProfile::Kind, 3> kKinds = {{{RoutingProfile::Kind::uniform, "uniform"},
                                                        {RoutingProfile::Kind::zipf, "zipf"},
                                                        {RoutingProfile::Kind::histogram, "histogram"}}};

// splitmix64 (Steele, Lea, Flood, OOPSLA 2014). Our own, as the distributions of the standard library
// give different numbers in different libraries.
struct Random {
  std::uint64_t state;
  std::uint64_t next() {
    std::uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // [0, 1)
  // Exactly uniform in [0, n): values of the last, incomplete round are drawn again.
  int below(int n) {
    const auto range = static_cast<std::uint64_t>(n);
    const std::uint64_t reject = (0 - range) % range;
    std::uint64_t value = next();
    while (value < reject) value = next();
    return static_cast<int>(value % range);
  }
};

// Draws indices without replacement: each in proportion to weight among those not taken yet; once only
// zero weights are left, uniformly among these.
class Urn {
 public:
  explicit Urn(std::vector<double> weights) : weights_(std::move(weights)), taken_(weights_.size(), false) {
    cumulative_.resize(weights_.size());
    std::partial_sum(weights_.begin(), weights_.end(), cumulative_.begin());
  }
  int take(Random& random) {
    int index = -1;
    // Drawing from all and throwing taken ones away is the same distribution as drawing from the rest,
    // and cheap until one expert dominates; then we draw from the rest.
    for (int attempt = 0; attempt < 8 && index < 0 && cumulative_.back() > 0; ++attempt) {
      const double at = random.unit() * cumulative_.back();
      const auto found = std::upper_bound(cumulative_.begin(), cumulative_.end(), at) - cumulative_.begin();
      if (usable(static_cast<std::size_t>(found))) index = static_cast<int>(found);
    }
    if (index < 0) index = take_from_rest(random);
    taken_[static_cast<std::size_t>(index)] = true;
    order_.push_back(index);
    return index;
  }
  void put_all_back() {
    for (const int index : order_) taken_[static_cast<std::size_t>(index)] = false;
    order_.clear();
  }

 private:
  bool usable(std::size_t i) const { return i < weights_.size() && !taken_[i] && weights_[i] > 0; }
  int take_from_rest(Random& random) {
    double rest = 0;
    for (std::size_t i = 0; i < weights_.size(); ++i) rest += usable(i) ? weights_[i] : 0;
    double at = random.unit() * rest;
    int last = -1;
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      if (!usable(i)) continue;
      last = static_cast<int>(i);
      if ((at -= weights_[i]) < 0) break;
    }
    if (last >= 0) return last;
    int skip = random.below(static_cast<int>(weights_.size() - order_.size()));
    for (std::size_t i = 0;; ++i)
      if (!taken_[i] && skip-- == 0) return static_cast<int>(i);
  }

  std::vector<double> weights_, cumulative_;
  std::vector<bool> taken_;
  std::vector<int> order_;
};

void check_draw(int experts, int k, int tokens, int groups, int topk_groups) {
  const auto fail = [](const char* field, int value, const std::string& hint) {
    throw InvalidInput(std::string("routing: ") + field, std::to_string(value), hint);
  };
  if (experts < 1) fail("experts", experts, "must be positive");
  if (tokens < 0) fail("tokens", tokens, "must not be negative");
  if (groups < 1 || experts % groups != 0) fail("groups", groups, "must divide experts = " + std::to_string(experts));
  if (topk_groups < 1 || topk_groups > groups) fail("topk_groups", topk_groups, "must be 1 to groups");
  const int reachable = experts / groups * topk_groups;
  if (k < 1 || k > reachable) fail("k", k, "must be 1 to " + std::to_string(reachable));
}

}  // namespace

RoutingProfile zipf_routing(double s) { return {RoutingProfile::Kind::zipf, s, {}, fmt::format("zipf:{}", s)}; }

std::string_view to_string(RoutingProfile::Kind kind) { return name_of(kKinds, kind); }

void check(const RoutingProfile& profile, std::string_view where) {
  const std::string prefix(where);
  if (profile.kind == RoutingProfile::Kind::zipf && !(profile.zipf_s >= 0 && profile.zipf_s <= kMostZipf))
    throw InvalidInput(prefix + ": zipf_s", std::to_string(profile.zipf_s), "must lie in [0, 10]");
  if (profile.kind != RoutingProfile::Kind::histogram) return;
  double sum = 0;
  for (std::size_t i = 0; i < profile.histogram.size(); ++i) {
    if (!(profile.histogram[i] >= 0 && profile.histogram[i] <= 1e18))
      throw InvalidInput(prefix + ": histogram[" + std::to_string(i) + "]", std::to_string(profile.histogram[i]),
                         "must be a count in [0, 1e18]");
    sum += profile.histogram[i];
  }
  if (!(sum > 0)) throw InvalidInput(prefix + ": histogram", "sums to 0", "needs a count above 0");
}

std::vector<double> expert_popularity(const RoutingProfile& profile, int experts) {
  check(profile);
  if (experts < 1) throw InvalidInput("routing: experts", std::to_string(experts), "must be positive");
  std::vector<double> weights(static_cast<std::size_t>(experts), 1.0);
  if (profile.kind == RoutingProfile::Kind::zipf)
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = std::pow(static_cast<double>(i + 1), -profile.zipf_s);
  if (profile.kind == RoutingProfile::Kind::histogram) {
    if (profile.histogram.size() != weights.size())
      throw InvalidInput("routing: histogram", std::to_string(profile.histogram.size()) + " counts",
                         "must have one count for each of the " + std::to_string(experts) + " experts");
    weights = profile.histogram;
  }
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight /= sum;
  return weights;
}

std::vector<std::int32_t> draw_routing(const RoutingProfile& profile, int experts, int k, int tokens,
                                       std::uint64_t seed, int groups, int topk_groups) {
  check_draw(experts, k, tokens, groups, topk_groups);
  const std::vector<double> popularity = expert_popularity(profile, experts);
  std::vector<std::int32_t> ids;
  ids.reserve(static_cast<std::size_t>(tokens) * static_cast<std::size_t>(k));
  Random random{seed};
  if (groups == 1 || topk_groups == groups) {
    if (profile.kind == RoutingProfile::Kind::uniform) {
      // The first k places of a shuffle; any permutation will do to start the next one from.
      std::vector<std::int32_t> deck(static_cast<std::size_t>(experts));
      std::iota(deck.begin(), deck.end(), 0);
      for (int token = 0; token < tokens; ++token)
        for (int place = 0; place < k; ++place) {
          std::swap(deck[static_cast<std::size_t>(place)],
                    deck[static_cast<std::size_t>(place + random.below(experts - place))]);
          ids.push_back(deck[static_cast<std::size_t>(place)]);
        }
      return ids;
    }
    Urn urn(popularity);
    for (int token = 0; token < tokens; ++token, urn.put_all_back())
      for (int place = 0; place < k; ++place) ids.push_back(urn.take(random));
    return ids;
  }
  const auto size = static_cast<std::size_t>(experts / groups);
  std::vector<double> group_weight(static_cast<std::size_t>(groups), 0.0);
  for (std::size_t e = 0; e < popularity.size(); ++e) group_weight[e / size] += popularity[e];
  Urn group_urn(group_weight);
  std::vector<std::size_t> chosen(static_cast<std::size_t>(topk_groups));
  std::vector<double> weights(chosen.size() * size);
  for (int token = 0; token < tokens; ++token, group_urn.put_all_back()) {
    for (auto& group : chosen) group = static_cast<std::size_t>(group_urn.take(random));
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = popularity[chosen[i / size] * size + i % size];
    Urn urn(weights);
    for (int place = 0; place < k; ++place) {
      const auto i = static_cast<std::size_t>(urn.take(random));
      ids.push_back(static_cast<std::int32_t>(chosen[i / size] * size + i % size));
    }
  }
  return ids;
}

double expected_distinct_groups(int experts, int groups, int k) {
  if (experts < 1 || groups < 1 || experts % groups != 0)
    throw InvalidInput("routing: groups", std::to_string(groups), "must divide experts = " + std::to_string(experts));
  if (k < 0 || k > experts) throw InvalidInput("routing: k", std::to_string(k), "must be 0 to experts");
  // C(E-E/G, k) / C(E, k), factor by factor: the chance that none of k draws meets one given group.
  const int outside = experts - experts / groups;
  double missed = 1;
  for (int i = 0; i < k; ++i) missed *= std::max(0.0, static_cast<double>(outside - i)) / (experts - i);
  return groups * (1 - missed);
}

namespace {

std::string_view strip(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  return first == std::string_view::npos ? "" : text.substr(first, text.find_last_not_of(" \t\r") + 1 - first);
}

// Calls visit(piece, number) for the pieces of `text` between separators, numbered from 1.
template <class Visit>
void split(std::string_view text, char separator, Visit visit) {
  for (int number = 1;; ++number) {
    const auto end = text.find(separator);
    visit(strip(text.substr(0, end)), number);
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
  }
}

bool parse_count(std::string_view cell, double& count) {
  const auto [rest, error] = std::from_chars(cell.data(), cell.data() + cell.size(), count);
  return error == std::errc() && rest == cell.data() + cell.size() && std::isfinite(count);
}

std::vector<double> counts_from_csv(std::string_view text, const std::string& where) {
  std::vector<std::pair<std::string_view, int>> rows;
  split(text, '\n', [&](std::string_view line, int number) {
    if (!line.empty() && line.front() != '#') rows.emplace_back(line, number);
  });
  std::vector<double> counts;
  const auto take = [&](std::string_view cell, int line) {
    double count = 0;
    if (!parse_count(cell, count))
      throw InvalidInput(where + ": line " + std::to_string(line), preview(std::string(cell.substr(0, 40))),
                         "must be a count");
    counts.push_back(count);
  };
  if (rows.size() == 1) {
    split(rows[0].first, ',', [&](std::string_view cell, int) { take(cell, rows[0].second); });
    return counts;
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::string_view row = rows[i].first;
    const std::string_view cell = strip(row.substr(row.rfind(',') + 1));  // npos + 1 == 0: the whole line
    double header = 0;
    if (i > 0 || parse_count(cell, header)) take(cell, rows[i].second);
  }
  return counts;
}

}  // namespace

RoutingProfile read_histogram(std::string_view text, std::string_view where) {
  const std::string label(where);
  const auto first = text.find_first_not_of(" \t\r\n");
  RoutingProfile profile;
  if (first != std::string_view::npos && (text[first] == '[' || text[first] == '{')) {
    const ordered_json json = parse_json(text, label);
    if (!json.is_array()) throw InvalidInput(label, preview(json), "must be an array of counts");
    for (const auto& count : json) {
      const std::string field = label + ": [" + std::to_string(profile.histogram.size()) + "]";
      if (!count.is_number()) throw InvalidInput(field, preview(count), "must be a count");
      profile.histogram.push_back(count.get<double>());
    }
  } else {
    profile.histogram = counts_from_csv(text, label);
  }
  profile.kind = RoutingProfile::Kind::histogram;
  profile.name = label;
  check(profile, label);
  return profile;
}

ordered_json to_json(const RoutingProfile& profile) {
  ordered_json json = {{"kind", to_string(profile.kind)}, {"name", profile.name}};
  if (profile.kind == RoutingProfile::Kind::zipf) json["zipf_s"] = profile.zipf_s;
  if (profile.kind == RoutingProfile::Kind::histogram) json["histogram"] = profile.histogram;
  return json;
}

RoutingProfile routing_from_json(const ordered_json& json, const std::string& where) {
  ObjectReader in(json, where);
  RoutingProfile profile;
  profile.kind = value_of(kKinds, in.text("kind"), in.field("kind"));
  profile.name = in.text("name");
  if (profile.kind == RoutingProfile::Kind::zipf) profile.zipf_s = in.number("zipf_s", 0, 10);
  if (profile.kind == RoutingProfile::Kind::histogram) {
    const ordered_json& counts = in.at("histogram");
    if (!counts.is_array()) throw InvalidInput(in.field("histogram"), preview(counts), "must be an array of counts");
    for (const auto& count : counts) {
      if (!count.is_number()) throw InvalidInput(in.field("histogram"), preview(count), "must hold numbers only");
      profile.histogram.push_back(count.get<double>());
    }
  }
  in.finish();
  check(profile, where);
  return profile;
}

}  // namespace topomoe
