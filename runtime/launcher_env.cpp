#include "topomoe/launcher_env.hpp"

#include <charconv>
#include <cstdlib>
#include <initializer_list>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

// A launcher is there when its rank variable is set (and `also`, where the rank alone is no proof). Of
// `sizes` and `local_ranks` the first one set counts.
struct Launcher {
  const char* source;
  const char* rank;
  const char* also;
  std::initializer_list<const char*> sizes, local_ranks;
};

const std::initializer_list<Launcher> kLaunchers = {
    {"TOPOMOE_RANK", "TOPOMOE_RANK", nullptr, {"TOPOMOE_WORLD_SIZE"}, {"TOPOMOE_LOCAL_RANK"}},
    {"torchrun", "RANK", "WORLD_SIZE", {"WORLD_SIZE"}, {"LOCAL_RANK"}},
    {"Open MPI", "OMPI_COMM_WORLD_RANK", nullptr, {"OMPI_COMM_WORLD_SIZE"}, {"OMPI_COMM_WORLD_LOCAL_RANK"}},
    {"MVAPICH", "MV2_COMM_WORLD_RANK", nullptr, {"MV2_COMM_WORLD_SIZE"}, {"MV2_COMM_WORLD_LOCAL_RANK"}},
    {"PALS", "PALS_RANKID", "PMI_SIZE", {"PMI_SIZE"}, {"PALS_LOCAL_RANKID", "PMI_LOCAL_RANK"}},
    {"PMI (Hydra)", "PMI_RANK", nullptr, {"PMI_SIZE"}, {"MPI_LOCALRANKID", "PMI_LOCAL_RANK", "SLURM_LOCALID"}},
    // sbatch sets SLURM_PROCID=0 and SLURM_NTASKS in its script, which is one process: a step it is not.
    {"Slurm step", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", {"SLURM_STEP_NUM_TASKS"}, {"SLURM_LOCALID"}},
    {"PMIx", "PMIX_RANK", nullptr, {}, {}},  // the number of ranks is in its key-value space only
};

std::optional<std::string> get(const EnvironmentLookup& lookup, const char* name) {
  auto value = lookup(name);
  if (value && value->empty()) value.reset();
  return value;
}

// The first of `names` that is set, as a number >= least; nothing if none is.
std::optional<int> number(const EnvironmentLookup& lookup, std::initializer_list<const char*> names, int least) {
  for (const char* name : names) {
    const auto text = get(lookup, name);
    if (!text) continue;
    int value = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (error != std::errc() || end != text->data() + text->size() || value < least)
      throw InvalidInput(name, *text, "a whole number, " + std::to_string(least) + " or more");
    return value;
  }
  return std::nullopt;
}

LauncherRank read(const EnvironmentLookup& lookup, const Launcher& l) {
  const int rank = *number(lookup, {l.rank}, 0);
  const auto size = number(lookup, l.sizes, 1);
  if (!size) {
    if (l.sizes.size() == 0)
      throw InvalidInput(l.rank, std::to_string(rank),
                         std::string(l.source) + " does not say of how many: set TOPOMOE_RANK and TOPOMOE_WORLD_SIZE");
    throw InvalidInput(*l.sizes.begin(), "missing", std::string("must be set beside ") + l.rank);
  }
  if (rank >= *size)
    throw InvalidInput(l.rank, std::to_string(rank),
                       "less than " + std::string(*l.sizes.begin()) + " = " + std::to_string(*size));
  const auto local = number(lookup, l.local_ranks, 0);
  if (local && *local >= *size) {
    for (const char* name : l.local_ranks)
      if (get(lookup, name))
        throw InvalidInput(name, std::to_string(*local), "less than the " + std::to_string(*size) + " ranks there are");
  }
  return {rank, *size, local ? *local : *size == 1 ? 0 : -1, l.source};
}

}  // namespace

EnvironmentLookup process_environment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value != nullptr ? std::optional<std::string>(value) : std::nullopt;
  };
}

LauncherRank read_launcher_env(const EnvironmentLookup& lookup) {
  for (const Launcher& l : kLaunchers)
    if (get(lookup, l.rank) && (l.also == nullptr || get(lookup, l.also))) return read(lookup, l);
  return {};
}

}  // namespace topomoe
