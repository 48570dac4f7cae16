#include "topology/read/host_list.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

constexpr std::size_t kMaxName = 256;
constexpr std::size_t kMaxDigits = 18;  // of a number that fits 64 bits

class ListReader {
 public:
  ListReader(std::string_view text, const std::string& field, std::size_t most, std::vector<std::string>& names)
      : text_(text), field_(field), most_(most), names_(names) {}

  void read() {
    if (text_.empty()) fail("a list of names: \"n[1-3,7],m4\"");
    std::size_t begin = 0;
    int depth = 0;
    for (std::size_t i = 0; i <= text_.size(); ++i) {
      const char c = i < text_.size() ? text_[i] : ',';
      if (c == '[' && ++depth > 1) fail("brackets do not nest");
      if (c == ']' && --depth < 0) fail("a ']' without its '['");
      if (i == text_.size() && depth > 0) fail("a '[' without its ']'");
      if (c != ',' || depth > 0) continue;
      add(text_.substr(begin, i - begin));
      begin = i + 1;
    }
  }

 private:
  [[noreturn]] void fail(const std::string& hint) const {
    const bool is_long = text_.size() > 120;
    throw InvalidInput(field_, '"' + std::string(text_.substr(0, 120)) + (is_long ? "...\"" : "\""), hint);
  }

  void add(std::string_view item) {
    if (item.empty()) fail("an empty name between commas");
    std::vector<std::string> made{""};
    std::size_t at = 0;
    while (at < item.size()) {
      const std::size_t open = item.find('[', at);
      const std::string_view plain = item.substr(at, open == item.npos ? item.npos : open - at);
      for (std::string& name : made) name += plain;
      if (open == item.npos) break;
      const std::size_t close = item.find(']', open);
      made = times(made, item.substr(open + 1, close - open - 1));
      at = close + 1;
    }
    for (std::string& name : made) {
      if (name.size() > kMaxName) fail("names of at most 256 characters");
      names_.push_back(std::move(name));
    }
    if (names_.size() > most_) fail("at most " + std::to_string(most_) + " names in all");
  }

  std::vector<std::string> times(const std::vector<std::string>& stems, std::string_view ranges) const {
    std::vector<std::string> numbers;
    while (true) {
      const std::size_t comma = ranges.find(',');
      add_range(ranges.substr(0, comma), numbers);
      if (comma == ranges.npos) break;
      ranges.remove_prefix(comma + 1);
    }
    if (stems.size() * numbers.size() + names_.size() > most_)
      fail("at most " + std::to_string(most_) + " names in all");
    std::vector<std::string> made;
    made.reserve(stems.size() * numbers.size());
    for (const std::string& stem : stems)
      for (const std::string& number : numbers) {
        if (stem.size() > kMaxName) fail("names of at most 256 characters");
        made.push_back(stem + number);
      }
    return made;
  }

  void add_range(std::string_view range, std::vector<std::string>& numbers) const {
    const std::size_t dash = range.find('-');
    const std::string_view low = range.substr(0, dash), high = dash == range.npos ? low : range.substr(dash + 1);
    const std::uint64_t first = number(low), last = number(high);
    if (last < first) fail("a range goes up: " + std::string(range));
    if (last - first >= most_ - std::min(most_, names_.size() + numbers.size()))
      fail("at most " + std::to_string(most_) + " names in all");
    for (std::uint64_t value = first; value <= last; ++value) {
      std::string digits = std::to_string(value);
      if (digits.size() < low.size()) digits.insert(0, low.size() - digits.size(), '0');
      numbers.push_back(std::move(digits));
    }
  }

  std::uint64_t number(std::string_view digits) const {
    std::uint64_t value = 0;
    const char* last = digits.data() + digits.size();
    const auto [end, error] = std::from_chars(digits.data(), last, value);
    if (digits.empty() || digits.size() > kMaxDigits || error != std::errc{} || end != last)
      fail("brackets hold numbers and ranges: [1-3,7]");
    return value;
  }

  std::string_view text_;
  const std::string& field_;
  std::size_t most_;
  std::vector<std::string>& names_;
};

}  // namespace

void add_host_list(std::string_view text, const std::string& field, std::size_t most, std::vector<std::string>& names) {
  ListReader(text, field, most, names).read();
}

std::string host_list_of(const std::vector<std::string>& names, const std::string& field) {
  struct Parts {
    std::string_view before, digits, after;
  };
  const auto parts_of = [&](const std::string& name) {
    if (name.empty() || name.size() > kMaxName || name.find_first_of("[],= \t\r\n\"'#\\") != name.npos)
      throw InvalidInput(field, '"' + name.substr(0, kMaxName) + '"',
                         "a name of at most 256 characters without brackets, commas, quotes, spaces, '=' and '#'");
    const std::size_t end = name.find_last_of("0123456789") + 1;  // 0: there is none
    std::size_t begin = end;
    while (begin > 0 && end - begin < kMaxDigits && name[begin - 1] >= '0' && name[begin - 1] <= '9') --begin;
    const std::string_view all = name;
    return Parts{all.substr(0, begin), all.substr(begin, end - begin), all.substr(end)};
  };
  const auto number = [](std::string_view digits) {
    std::uint64_t value = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return value;
  };
  // As a range that begins with `low` writes it.
  const auto follows = [&](std::string_view low, std::string_view last, std::string_view next) {
    std::string wanted = std::to_string(number(last) + 1);
    if (wanted.size() < low.size()) wanted.insert(0, low.size() - wanted.size(), '0');
    return wanted == next;
  };
  std::string list;
  for (std::size_t i = 0; i < names.size();) {
    const Parts first = parts_of(names[i]);
    std::string ranges;
    std::size_t j = i;
    while (j < names.size()) {
      const Parts low = parts_of(names[j]);
      if (low.before != first.before || low.after != first.after || low.digits.empty()) break;
      std::string_view last = low.digits;
      std::size_t k = j + 1;
      for (; k < names.size(); ++k) {
        const Parts next = parts_of(names[k]);
        if (next.before != first.before || next.after != first.after || !follows(low.digits, last, next.digits)) break;
        last = next.digits;
      }
      ranges += ranges.empty() ? "" : ",";
      ranges += low.digits;
      if (k > j + 1) (ranges += '-') += last;
      j = k;
    }
    if (!list.empty()) list += ',';
    if (j <= i + 1)
      list += names[i];
    else
      (((list += first.before) += '[') += ranges) += ']', list += first.after;
    i = std::max(j, i + 1);
  }
  return list;
}

}  // namespace topomoe
