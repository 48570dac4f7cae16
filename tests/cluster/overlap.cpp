// An exchange beside a caller's own host kernel: what is gained where that calls the progress hook between pieces of
// its work. Two ranks, a host each (overlap.sh); JSON on stdout: medians of the slower rank, in ms.
//
// The kernel is counted work: a number of equal blocks, as many as take --compute-ms on this machine when alone, each
// well below a millisecond. unpolled: start, all blocks, wait. polled: the hook after each block.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <numeric>

#include "runtime/host_exchange.hpp"
#include "topomoe/communicator_mpi.hpp"

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;

// About 0.2 ms at 1 GHz: one dependent multiplication and addition a turn, 4 to 5 cycles each.
double block(double x) {
  for (int i = 0; i < 25'000; ++i) x = x * 0.999 + 0.001;
  return x;
}
volatile double sink;

void compute(int blocks, const ProgressHook& hook) {
  double x = 1;
  for (int i = 0; i < blocks; ++i) {
    x = block(x);
    hook();
  }
  sink = x;
}

double ms_of(const auto& work) {
  const auto begin = Clock::now();
  work();
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

int run(int argc, char** argv) {
  CLI::App app{"An exchange beside a host kernel"};
  double compute_ms = 200;
  std::size_t bytes = 4'280'000;
  int repeat = 5;
  app.add_option("--compute-ms", compute_ms);
  app.add_option("--bytes", bytes);
  app.add_option("--repeat", repeat);
  CLI11_PARSE(app, argc, argv);

  const MpiSession session;
  const auto c = make_mpi_communicator();
  if (c->size() != 2) throw InvalidInput("ranks", std::to_string(c->size()), "2");
  const int both[] = {0, 1};
  const ChannelId channel = c->open_channel(both);
  HostExchange host(*c, std::chrono::minutes(2));
  std::vector<std::byte> out(bytes), in(bytes);
  const Outgoing send{1 - c->rank(), out.data(), bytes};
  const Incoming receive{1 - c->rank(), in.data(), bytes};
  const auto start = [&] { return c->exchange(channel, {&send, 1}, {&receive, 1}, {.step = "overlap"}); };
  const auto end = [](const EventPtr& e) { e->wait(Clock::now() + std::chrono::minutes(2)); };

  compute(100, {});
  int blocks = std::max(1, static_cast<int>(compute_ms / (ms_of([] { compute(200, {}); }) / 200)));
  for (const auto& one : host.gather_on_all("blocks", {static_cast<double>(blocks)}))
    blocks = std::min(blocks, static_cast<int>(one[0]));

  enum { communication, alone, unpolled, polled, kinds };
  std::vector<double> times[kinds];
  const auto measure = [&](int kind, const auto& work) {
    c->barrier();
    double slower = 0;
    for (const auto& one : host.gather_on_all("time", {ms_of(work)})) slower = std::max(slower, one[0]);
    times[kind].push_back(slower);
  };
  end(start());
  for (int i = 0; i < repeat; ++i) {
    measure(communication, [&] { end(start()); });
    measure(alone, [&] { compute(blocks, {}); });
    for (const bool polls : {false, true})
      measure(polls ? polled : unpolled, [&] {
        const EventPtr event = start();
        compute(blocks, polls ? progress_hook(*c) : ProgressHook{});
        end(event);
      });
  }
  if (c->rank() == 0) {
    const auto median = [&](int kind) {
      std::sort(times[kind].begin(), times[kind].end());
      return times[kind][times[kind].size() / 2];
    };
    std::printf(
        "{\"bytes\": %zu, \"blocks\": %d, \"communication_ms\": %.1f, \"compute_ms\": %.1f, \"unpolled_ms\": %.1f, "
        "\"polled_ms\": %.1f, \"unpolled_over_polled\": %.2f}\n",
        bytes, blocks, median(communication), median(alone), median(unpolled), median(polled),
        median(unpolled) / median(polled));
  }
  return 0;
}

}  // namespace
}  // namespace topomoe

int main(int argc, char** argv) {
  try {
    return topomoe::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "overlap: %s\n", e.what());
    return 1;
  }
}
