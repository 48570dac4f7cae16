#include "planner/emit/hosts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <numeric>
#include <unordered_map>

namespace topomoe {
namespace {

constexpr int kMostHosts = 1'000'000;  // of a hostlist; more is a mistake such as n[1-99999999]

bool digit(char c) { return c >= '0' && c <= '9'; }
bool plain(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.'; }

[[noreturn]] void refuse(const std::string& field, std::string_view text) {
  throw InvalidInput(field, std::string(text), "host names and ranges with commas between, as n[01-04,07],login");
}

// "host17", the plan's own word for a place, is no machine's name.
bool is_place(const std::string& name) {
  return name.size() > 4 && name.starts_with("host") && std::all_of(name.begin() + 4, name.end(), digit);
}

// "07" of a range, without sign.
int number(std::string_view text, const std::string& field, std::string_view all) {
  if (text.empty() || text.size() > 8 || !std::all_of(text.begin(), text.end(), digit)) refuse(field, all);
  return std::stoi(std::string(text));
}

// One element: "name", or "head[ranges]tail".
void expand_one(std::string_view text, const std::string& field, std::string_view all, std::vector<std::string>& out) {
  const auto open = text.find('[');
  if (open == std::string_view::npos) {
    if (text.empty() || text.front() == '-' || !std::all_of(text.begin(), text.end(), plain)) refuse(field, all);
    out.emplace_back(text);
    return;
  }
  const auto close = text.find(']', open);
  if (close == std::string_view::npos) refuse(field, all);
  std::string_view ranges = text.substr(open + 1, close - open - 1);
  while (true) {
    const auto comma = ranges.find(',');
    const std::string_view range = ranges.substr(0, comma);
    const auto dash = range.find('-');
    const std::string_view low = range.substr(0, dash), high = dash == range.npos ? low : range.substr(dash + 1);
    const int first = number(low, field, all), last = number(high, field, all);
    if (last < first || last - first >= kMostHosts) refuse(field, all);
    for (int i = first; i <= last; ++i)
      expand_one(fmt::format("{}{:0{}}{}", text.substr(0, open), i, low.size(), text.substr(close + 1)), field, all,
                 out);
    if (out.size() > kMostHosts) refuse(field, all);
    if (comma == ranges.npos) return;
    ranges.remove_prefix(comma + 1);
  }
}

struct Numbered {
  std::string head, digits;
};
Numbered split_number(const std::string& name) {
  std::size_t at = name.size();
  while (at > 0 && digit(name[at - 1]) && name.size() - at < 8) --at;
  return {name.substr(0, at), name.substr(at)};
}

}  // namespace

std::vector<std::string> expand_hostlist(std::string_view text, const std::string& field) {
  std::vector<std::string> out;
  int depth = 0;
  std::size_t begin = 0;
  for (std::size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && text[i] == '[') ++depth;
    if (i < text.size() && text[i] == ']') --depth;
    if (i < text.size() && (text[i] != ',' || depth > 0)) continue;
    expand_one(text.substr(begin, i - begin), field, text, out);
    begin = i + 1;
  }
  return out;
}

std::string fold_hostlist(const std::vector<std::string>& names) {
  std::string out;
  for (std::size_t i = 0; i < names.size();) {
    const Numbered first = split_number(names[i]);
    std::string ranges;
    std::size_t next = i, members = 0;
    while (next < names.size() && !first.digits.empty()) {  // runs of one head, as "01-04,07"
      const Numbered from = split_number(names[next]);
      if (from.head != first.head || from.digits.empty()) break;
      std::size_t end = next + 1;
      for (; end < names.size(); ++end) {
        const Numbered to = split_number(names[end]);
        const std::string wanted =
            fmt::format("{:0{}}", std::stol(from.digits) + static_cast<long>(end - next), from.digits.size());
        if (to.head != first.head || to.digits != wanted) break;
      }
      ranges += (ranges.empty() ? "" : ",") + from.digits;
      if (end > next + 1) ranges += "-" + split_number(names[end - 1]).digits;
      members += end - next;
      next = end;
    }
    out += out.empty() ? "" : ",";
    if (members > 1) {
      out += first.head + "[" + ranges + "]";
      i = next;
    } else {
      out += names[i++];
    }
  }
  return out;
}

PlannedHosts hosts_of(const Plan& plan, const EmitOptions& options) {
  PlannedHosts hosts;
  std::unordered_map<std::string_view, int> known;
  for (const PlannedRank& rank : plan.ranks) {
    const auto [it, first] = known.emplace(rank.host, static_cast<int>(known.size()));
    if (first) hosts.names.push_back(rank.host);
    hosts.of_rank.push_back(it->second);
  }
  const auto ranks = plan.ranks.size(), count = hosts.names.size();
  const std::size_t each = count > 0 && ranks % count == 0 ? ranks / count : 0;
  bool regular = each > 0;
  for (std::size_t r = 0; regular && r < ranks; ++r) regular = hosts.of_rank[r] == static_cast<int>(r / each);
  if (regular) hosts.ranks_per_host = static_cast<int>(each);

  hosts.devices_known = regular;
  for (std::size_t host = 0; hosts.devices_known && host < count; ++host) {
    std::vector<std::size_t> by_bus(each);
    std::iota(by_bus.begin(), by_bus.end(), 0);
    const auto bus = [&](std::size_t local) -> const std::string& { return plan.ranks[host * each + local].bus_id; };
    std::sort(by_bus.begin(), by_bus.end(), [&](std::size_t a, std::size_t b) { return bus(a) < bus(b); });
    std::vector<int> order(each);
    for (std::size_t place = 0; place < each; ++place) {
      order[by_bus[place]] = static_cast<int>(place);
      const bool twin = place > 0 && bus(by_bus[place]) == bus(by_bus[place - 1]);
      if (bus(by_bus[place]).empty() || twin) hosts.devices_known = false;
    }
    if (host > 0 && order != hosts.device_order) hosts.devices_known = false;
    hosts.device_order = order;
  }
  if (!hosts.devices_known || std::is_sorted(hosts.device_order.begin(), hosts.device_order.end()))
    hosts.device_order.clear();

  if (!options.hosts.empty()) {
    if (options.hosts.size() != count)
      throw InvalidInput("--hosts", fmt::format("{} names", options.hosts.size()),
                         fmt::format("the plan has {} hosts; one name for each, in its order", count));
    hosts.names = options.hosts;
    hosts.named = true;
  } else if (!std::all_of(hosts.names.begin(), hosts.names.end(), is_place)) {
    for (const std::string& own : hosts.names)
      if (own.empty() || own.front() == '-' || !std::all_of(own.begin(), own.end(), plain))
        throw InvalidInput("--hosts", "not given, and the plan calls a host \"" + one_line(own) + '"',
                           "name the plan's hosts as the machine does, in its order");
    hosts.named = true;
  }
  return hosts;
}

std::string one_line(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < ' ' || c == 127) c = ' ';
  return text;
}

std::string out_of_order(const Plan& p) {
  for (std::size_t e = 0; e < p.expert_owners.size(); ++e)
    if (p.expert_owners[e] != std::vector{static_cast<int>(e) * p.layout.ep / p.model.experts})
      return fmt::format("expert {} is on EP rank {}", e, fmt::join(p.expert_owners[e], " and "));
  return {};
}

std::string comment_header(const Plan& plan, const std::vector<std::string>& notes) {
  std::string text = one_line(fmt::format("# topomoe plan {}: {} on {} ({} GPUs)", plan_hash(plan), plan.model.name,
                                          plan.topology.name, plan.layout.world)) +
                     "\n" + one_line(fmt::format("# {} | {}", name(plan.layout), plan.schedule.name)) + "\n";
  for (const std::string& note : notes) text += "# not expressed: " + one_line(note) + "\n";
  return text;
}

}  // namespace topomoe
