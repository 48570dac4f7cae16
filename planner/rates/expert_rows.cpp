#include "planner/rates/expert_rows.hpp"

#include <algorithm>
#include <cmath>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

void check(const SpreadRequest& r) {
  const auto need = [](bool ok, const char* field, int value, const char* hint) {
    if (!ok) throw InvalidInput(field, std::to_string(value), hint);
  };
  need(r.tokens >= 1 && r.tokens <= 1 << 24, "tokens", r.tokens, "1 to 2^24");
  need(r.experts >= 1 && r.experts <= 1 << 16, "experts", r.experts, "1 to 65,536");
  need(r.top_k >= 1 && r.top_k <= r.experts, "top_k", r.top_k, "1 to the number of experts");
  need(r.ep >= 1 && r.experts % r.ep == 0, "ep", r.ep, "a divisor of the number of experts");
}

// splitmix64: the same draws on every platform, which the standard's distributions do not promise.
double uniform(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
}

// Moves the sum of rows to `target` a row at a time round the ranks, up at a rank's emptiest expert, down at its
// fullest, never above `most` nor below 0. In equal strides while much is missing.
void settle(std::vector<long>& rows, std::size_t per_rank, long target, long most) {
  long missing = target;
  for (const long r : rows) missing -= r;
  const long ranks = static_cast<long>(rows.size() / per_rank);
  while (missing != 0) {
    const long before = missing;
    const long stride = std::max(1L, std::abs(missing) / (4 * static_cast<long>(rows.size())));
    for (long rank = 0; rank < ranks && missing != 0; ++rank) {
      const auto first = rows.begin() + rank * static_cast<long>(per_rank), last = first + static_cast<long>(per_rank);
      if (missing > 0) {
        long& least = *std::min_element(first, last);
        const long add = std::min({stride, missing, most - least});
        least += add, missing -= add;
      } else {
        long& largest = *std::max_element(first, last);
        const long drop = std::min({stride, -missing, largest});
        largest -= drop, missing += drop;
      }
    }
    if (missing == before) return;  // every expert is full
  }
}

}  // namespace

std::vector<double> balanced_rows(const SpreadRequest& r) {
  check(r);
  std::vector<double> rows(static_cast<std::size_t>(r.experts / r.ep));
  const int stride = (r.experts + r.top_k - 1) / r.top_k;
  for (int token = 0; token < r.tokens; ++token)
    for (int i = 0; i < r.top_k; ++i) {
      // Few tokens step widely, so that they do not crowd the first experts.
      const int first = r.tokens >= stride ? token % r.experts : static_cast<int>(1.0 * token * stride / r.tokens);
      const auto expert = static_cast<std::size_t>((first + i * stride) % r.experts);
      if (expert < rows.size()) ++rows[expert];
    }
  return rows;
}

std::vector<double> power_law_rows(const SpreadRequest& r, double alpha, std::uint64_t seed) {
  check(r);
  if (!(alpha > 0) || alpha == 1) throw InvalidInput("alpha", std::to_string(alpha), "positive and not 1");
  const long choices = static_cast<long>(r.tokens) * r.top_k;
  const bool many = choices > r.experts;
  const double low = many ? 1 : 0.01, high = many ? std::max(1.0, 0.8 * r.tokens) : 2;
  std::uint64_t state = seed;
  std::vector<double> sizes(static_cast<std::size_t>(r.experts));
  double sum = 0;
  for (double& size : sizes) {
    const double a = std::pow(low, 1 - alpha), b = std::pow(high, 1 - alpha);
    size = std::pow(a + (b - a) * uniform(state), 1 / (1 - alpha));
    sum += size;
  }
  std::vector<long> rows;
  for (const double size : sizes)
    rows.push_back(std::min<long>(r.tokens, std::lround(size / sum * static_cast<double>(choices))));
  const auto per_rank = static_cast<std::size_t>(r.experts / r.ep);
  settle(rows, per_rank, choices, r.tokens);
  std::size_t busiest = 0;
  long most = -1;
  for (std::size_t first = 0; first < rows.size(); first += per_rank) {
    long all = 0;
    for (std::size_t e = first; e < first + per_rank; ++e) all += rows[e];
    if (all > most) most = all, busiest = first;
  }
  const auto from = rows.begin() + static_cast<long>(busiest);
  return {from, from + static_cast<long>(per_rank)};
}

}  // namespace topomoe
