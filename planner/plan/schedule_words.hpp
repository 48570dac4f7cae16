// The words of a schedule's JSON, shared by its writer and its reader: names of enumerators, and the
// names by which buffers, maps and steps are referred to. In memory they are indices; in JSON a person
// must be able to read and compare them.
#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "planner/plan/json.hpp"
#include "planner/plan/names.hpp"

namespace topomoe {

inline constexpr NameTable<Intake, 3> kIntakes = {
    {{Intake::as_held, "as_held"}, {Intake::tp_slice, "tp_slice"}, {Intake::tp_gather, "tp_gather"}}};
inline constexpr NameTable<Who, 2> kWhos = {{{Who::me, "me"}, {Who::peer, "peer"}}};
inline constexpr NameTable<Order, 4> kOrders = {{{Order::by_token, "by_token"},
                                                 {Order::by_source, "by_source"},
                                                 {Order::by_dest, "by_dest"},
                                                 {Order::by_expert, "by_expert"}}};
inline constexpr NameTable<Columns, 5> kColumns = {{{Columns::hidden, "hidden"},
                                                    {Columns::ffn, "ffn"},
                                                    {Columns::top_k, "top_k"},
                                                    {Columns::experts, "experts"},
                                                    {Columns::shared_ffn, "shared_ffn"}}};
inline constexpr NameTable<Element, 4> kElements = {
    {{Element::payload, "payload"}, {Element::f32, "f32"}, {Element::i32, "i32"}, {Element::fp8, "fp8"}}};
inline constexpr NameTable<Storage, 3> kStorages = {
    {{Storage::pass, "pass"}, {Storage::saved, "saved"}, {Storage::caller, "caller"}}};

// For the enumerations whose names are in schedule_names.cpp: the same tables, made from name().
template <class T, std::size_t N>
NameTable<T, N> table_of() {
  NameTable<T, N> table;
  for (std::size_t i = 0; i < N; ++i) table[i] = {static_cast<T>(i), name(static_cast<T>(i))};
  return table;
}
inline const auto kSymbols = table_of<Symbol, 5>();
inline const auto kKinds = table_of<StepKind, 23>();
inline const auto kPhases = table_of<StepPhase, 4>();
inline const auto kLanes = table_of<Lane, kLaneCount>();

inline bool communicates(StepKind k) {
  return k == StepKind::exchange || k == StepKind::all_gather || k == StepKind::counts_exchange;
}
inline bool has_dests(Symbol s) { return s != Symbol::held && s != Symbol::tokens; }

// Names of one kind of thing, in order, each once.
class Names {
 public:
  explicit Names(std::string what) : what_(std::move(what)) {}

  bool add(const std::string& name) {
    names_.push_back(name);
    return index_.emplace(name, static_cast<int>(names_.size()) - 1).second;
  }
  const std::string& at(int index) const {
    if (index < 0 || index >= static_cast<int>(names_.size()))
      throw std::logic_error("topomoe bug: schedule has no " + what_ + " " + std::to_string(index));
    return names_[static_cast<std::size_t>(index)];
  }
  int find(const std::string& name, const std::string& field) const {
    if (const auto it = index_.find(name); it != index_.end()) return it->second;
    throw InvalidInput(field, preview(name), "no " + what_ + " of this name; known: " + like(name));
  }

 private:
  // A few known names, those first that begin as `name` does.
  std::string like(const std::string& name) const {
    const auto shared = [&](const std::string& other) {
      return std::mismatch(name.begin(),
                           name.begin() + static_cast<std::ptrdiff_t>(std::min(name.size(), other.size())),
                           other.begin())
                 .first -
             name.begin();
    };
    std::vector<std::string> near = names_;
    std::stable_sort(near.begin(), near.end(), [&](const auto& a, const auto& b) { return shared(a) > shared(b); });
    std::string list;
    for (std::size_t i = 0; i < std::min<std::size_t>(near.size(), 5); ++i) list += (i ? ", " : "") + preview(near[i]);
    return near.empty() ? "none" : list + (near.size() > 5 ? ", ... (" + std::to_string(near.size()) + " in all)" : "");
  }

  std::string what_;
  std::vector<std::string> names_;
  std::map<std::string, int> index_;
};

}  // namespace topomoe
