#include "topomoe/rank_check.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <map>
#include <numeric>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// Hosts in the order in which ranks first name them, and the ranks of each.
struct Hosts {
  std::vector<std::string> names;
  std::vector<std::vector<int>> ranks;
  std::vector<int> of_rank;
  void add(const std::string& host) {
    const auto at = static_cast<std::size_t>(std::find(names.begin(), names.end(), host) - names.begin());
    if (at == names.size()) names.push_back(host), ranks.emplace_back();
    ranks[at].push_back(static_cast<int>(of_rank.size()));
    of_rank.push_back(static_cast<int>(at));
  }
};

// Planned host -> actual host; each actual one once, -1 where there are too few.
std::vector<int> match(const Hosts& planned, const Hosts& actual) {
  std::vector<int> to(planned.names.size(), -1);
  std::vector<bool> taken(actual.names.size());
  const auto take = [&](std::size_t p, std::size_t a) { to[p] = static_cast<int>(a), taken[a] = true; };
  for (std::size_t p = 0; p < to.size(); ++p)
    for (std::size_t a = 0; a < taken.size(); ++a)
      if (!taken[a] && planned.names[p] == actual.names[a]) take(p, a);
  // Most ranks in place first, the first of equals.
  struct Vote {
    std::size_t planned, actual;
    int ranks;
  };
  std::vector<Vote> votes;
  for (std::size_t p = 0; p < to.size(); ++p)
    for (std::size_t a = 0; a < taken.size(); ++a) {
      int ranks = 0;
      for (const int r : planned.ranks[p]) ranks += actual.of_rank[static_cast<std::size_t>(r)] == static_cast<int>(a);
      votes.push_back({p, a, ranks});
    }
  std::stable_sort(votes.begin(), votes.end(), [](const Vote& x, const Vote& y) { return x.ranks > y.ranks; });
  for (const Vote& v : votes)
    if (to[v.planned] < 0 && !taken[v.actual]) take(v.planned, v.actual);
  return to;
}

// Ranks of one host in the places that the plan has there: by bus id where both know it, the others as they come.
bool place(const Plan& plan, const std::vector<int>& planned, const std::vector<RankPlace>& actual,
           std::vector<int> left, std::vector<int>& order) {
  if (planned.size() != left.size()) return false;
  const auto try_each = [&](auto fits) {
    for (const int p : planned) {
      int& rank = order[static_cast<std::size_t>(p)];
      if (rank >= 0) continue;
      const auto at = std::find_if(left.begin(), left.end(), [&](int a) { return fits(p, a); });
      if (at != left.end()) rank = *at, left.erase(at);
    }
  };
  const auto known = [&](int p, int a) {
    const std::string& id = plan.ranks[static_cast<std::size_t>(p)].bus_id;
    return !id.empty() && id == actual[static_cast<std::size_t>(a)].bus_id;
  };
  try_each([&](int p, int a) { return p == a && known(p, a); });
  try_each(known);
  try_each([](int p, int a) { return p == a; });
  try_each([](int, int) { return true; });
  return true;
}

std::string list(const std::vector<std::vector<int>>& ranks) {
  std::string text;
  for (const auto& r : ranks) text += (text.empty() ? "" : ", ") + std::to_string(r.size());
  return text;
}

}  // namespace

int RankCheck::planned_rank(int rank) const {
  const auto at = std::find(order.begin(), order.end(), rank);
  return at == order.end() ? -1 : static_cast<int>(at - order.begin());
}

RankCheck compare_ranks(const Plan& plan, std::vector<RankPlace> actual_places) {
  if (actual_places.size() != plan.ranks.size())
    throw InvalidInput("ranks", std::to_string(actual_places.size()),
                       "the plan has " + std::to_string(plan.ranks.size()));
  RankCheck check;
  check.ranks = std::move(actual_places);
  Hosts planned, actual;
  for (const PlannedRank& r : plan.ranks) planned.add(r.host);
  for (const RankPlace& r : check.ranks) actual.add(r.host);
  const std::vector<int> to = match(planned, actual);

  const auto says = [&](std::size_t rank, const std::string& what) {
    check.mismatches.push_back("rank " + std::to_string(rank) + what);
  };
  for (std::size_t r = 0; r < check.ranks.size(); ++r) {
    const RankPlace& is = check.ranks[r];
    const PlannedRank& planned_rank = plan.ranks[r];
    const int host = to[static_cast<std::size_t>(planned.of_rank[r])];
    if (is.plan != check.ranks[0].plan) {
      check.plans_differ = true;
      says(r, " has plan " + is.plan + ", rank 0 " + check.ranks[0].plan);
    }
    if (host != actual.of_rank[r])
      says(r, " is on " + is.host + ", planned on " + planned_rank.host +
                  (host < 0 || actual.names[static_cast<std::size_t>(host)] == planned_rank.host
                       ? ""
                       : ", which is " + actual.names[static_cast<std::size_t>(host)]));
    else if (!is.bus_id.empty() && !planned_rank.bus_id.empty() && is.bus_id != planned_rank.bus_id)
      says(r, " has device " + is.bus_id + ", planned " + planned_rank.bus_id);
  }

  check.order.assign(check.ranks.size(), -1);
  bool fits = planned.names.size() == actual.names.size();
  for (std::size_t p = 0; fits && p < to.size(); ++p)
    fits = place(plan, planned.ranks[p], check.ranks, actual.ranks[static_cast<std::size_t>(to[p])], check.order);
  if (!fits) {
    check.order.clear();
    check.mismatches.push_back("no order of the ranks fits: hosts hold " + list(actual.ranks) + " of them, planned " +
                               list(planned.ranks));
  }
  return check;
}

RankCheck check_ranks(const Plan& plan, Communicator& communicator, const std::string& bus_id, std::string host) {
  struct Told {  // what travels
    std::array<char, 256> host{};
    std::array<char, 64> bus_id{}, plan{};
  };
  Told mine;
  const auto write = [](const std::string& text, auto& to) {
    std::copy_n(text.begin(), std::min(text.size(), to.size() - 1), to.begin());
  };
  if (host.empty()) {
    std::array<char, 256> name{};
    (void)gethostname(name.data(), name.size() - 1);
    host = name.data();
  }
  write(host, mine.host), write(bus_id, mine.bus_id), write(plan_hash(plan), mine.plan);

  const auto size = static_cast<std::size_t>(communicator.size());
  std::vector<int> everyone(size);
  std::iota(everyone.begin(), everyone.end(), 0);
  std::vector<Told> told(size);
  std::vector<Outgoing> sends;
  std::vector<Incoming> receives;
  for (const int peer : everyone) {
    sends.push_back({peer, &mine, sizeof mine});
    receives.push_back({peer, &told[static_cast<std::size_t>(peer)], sizeof mine});
  }
  try {
    const ChannelId channel = communicator.open_channel(everyone);
    const EventPtr event =
        communicator.exchange(channel, sends, receives, {.step = "compare places with the plan's", .metadata = true});
    if (event) event->wait(std::chrono::steady_clock::now() + std::chrono::seconds(30));
  } catch (const std::exception& e) {
    communicator.fail(failure_of(e, communicator.rank()));  // before what others may still write to is gone
    throw;
  }
  std::vector<RankPlace> actual;
  for (const Told& t : told) actual.push_back({t.host.data(), t.bus_id.data(), t.plan.data()});
  return compare_ranks(plan, std::move(actual));
}

}  // namespace topomoe
