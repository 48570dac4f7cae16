#include "cli/run_size.hpp"

#include <unistd.h>

#include <algorithm>

#include "runtime/host_exchange.hpp"

namespace topomoe::cli {

double free_bytes_here() {
  const long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? static_cast<double>(pages) * static_cast<double>(page) : 4.0 * (1 << 30);
}

double least_free_bytes(Communicator& communicator, std::chrono::seconds deadline) {
  double least = free_bytes_here();
  for (const auto& one : HostExchange(communicator, deadline).gather_on_all("agree on memory", {least}))
    least = std::min(least, one[0]);
  return least;
}

Budget budget_for(double free_bytes) {
  Budget budget;
  budget.memory_bytes = std::min(budget.memory_bytes, 0.25 * free_bytes);
  budget.memory_limit_bytes = 0.8 * free_bytes;
  return budget;
}

}  // namespace topomoe::cli
