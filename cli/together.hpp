// Inputs that every rank reads for itself. Where some rank cannot, all leave together and with its exit code: none
// waits for it, and of those that cannot only the first says why.
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
  double kind = 0;  // its exit code
  try {
    mine = read();
  } catch (const MissingEnvironment&) {
    failure = std::current_exception(), kind = 3;
  } catch (const Failure&) {
    failure = std::current_exception(), kind = 1;
  } catch (...) {
    failure = std::current_exception(), kind = 2;
  }
  const auto failed = host.gather_on_all("read the plan", {kind});
  const auto first = std::find_if(failed.begin(), failed.end(), [](const auto& f) { return f[0] != 0; });
  if (first == failed.end()) return std::move(*mine);
  context.silent = first - failed.begin() != c.rank();
  if (!context.silent) std::rethrow_exception(failure);
  if ((*first)[0] == 3) throw MissingEnvironment("missing on another rank");
  if ((*first)[0] == 1) throw Failure("failed on another rank");
  throw InvalidInput("plan", "unreadable on another rank", "give all ranks the same files");
}

}  // namespace topomoe::cli
