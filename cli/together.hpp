// Inputs that every rank reads for itself. Where some rank cannot, all leave together: none waits for it, and of those
// that cannot only the first says why.
#pragma once

#include <algorithm>
#include <chrono>
#include <exception>
#include <optional>

#include "cli/commands.hpp"
#include "runtime/host_exchange.hpp"
#include "topomoe/communicator.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {

// Collective. `read` is not.
template <class Read>
auto read_together(Communicator& c, std::chrono::seconds deadline, Context& context, const Read& read) {
  HostExchange host(c, deadline);
  std::optional<decltype(read())> mine;
  std::exception_ptr failure;
  try {
    mine = read();
  } catch (...) {
    failure = std::current_exception();
  }
  const auto failed = host.gather_on_all("read the plan", {failure ? 1.0 : 0.0});
  const auto first = std::find_if(failed.begin(), failed.end(), [](const auto& f) { return f[0] != 0; });
  if (first == failed.end()) return std::move(*mine);
  context.silent = first - failed.begin() != c.rank();
  if (failure) std::rethrow_exception(failure);
  throw InvalidInput("plan", "unreadable on another rank", "give all ranks the same files");
}

}  // namespace topomoe::cli
