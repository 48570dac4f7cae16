#include "topomoe/placement.hpp"

#include <fmt/format.h>

#include "topomoe/error.hpp"

namespace topomoe {

ExpertOwners even_blocks(int experts, int places) {
  if (experts <= 0 || places <= 0 || experts % places != 0)
    throw InvalidInput("expert_owners", "none",
                       fmt::format("{} experts on {} ranks are no equal blocks: say who owns each", experts, places));
  ExpertOwners owners;
  for (int expert = 0; expert < experts; ++expert) owners.push_back({expert / (experts / places)});
  return owners;
}

ExpertPlacement::ExpertPlacement(int experts, int places, const ExpertOwners& given, std::string_view where) {
  const ExpertOwners owners = given.empty() ? even_blocks(experts, places) : given;
  if (owners.size() != static_cast<std::size_t>(experts))
    throw InvalidInput(std::string(where), fmt::format("{} owners", owners.size()),
                       fmt::format("must have one for each of the {} experts", experts));
  const auto refuse = [&](std::size_t expert, const std::string& value, const std::string& hint) {
    throw InvalidInput(fmt::format("{}[{}]", where, expert), value, hint);
  };
  std::vector<std::vector<int>> held(static_cast<std::size_t>(places));
  for (std::size_t expert = 0; expert < owners.size(); ++expert) {
    const std::vector<int>& its = owners[expert];
    if (its.empty()) refuse(expert, "nobody", "some rank must hold each expert");
    first_copy_.push_back(copies());
    for (const int place : its) {
      if (place < 0 || place >= places)
        refuse(expert, std::to_string(place), fmt::format("must be an integer in [0, {}]", places - 1));
      std::vector<int>& there = held[static_cast<std::size_t>(place)];
      if (!there.empty() && expert_of(there.back()) == static_cast<int>(expert))
        refuse(expert, fmt::format("{} twice", place), "replicas are on different ranks");
      index_.push_back(static_cast<int>(there.size()));
      there.push_back(copies());
      place_of_.push_back(place);
      expert_of_.push_back(static_cast<int>(expert));
    }
  }
  first_copy_.push_back(copies());
  for (const auto& copies_there : held) {
    first_held_.push_back(static_cast<int>(held_.size()));
    held_.insert(held_.end(), copies_there.begin(), copies_there.end());
  }
  first_held_.push_back(static_cast<int>(held_.size()));
}

}  // namespace topomoe
