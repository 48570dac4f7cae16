// Copies: rows moved by an index map, by all ranks at once.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "kernels/gather_rows.hpp"
#include "runtime/bench.hpp"
#include "runtime/host_exchange.hpp"
#include "runtime/profile.hpp"

namespace topomoe {

std::optional<CalibrationCurve> profile_copies(const ProfileBudget& budget, Communicator& communicator,
                                               Device& device) {
  using Clock = std::chrono::steady_clock;
  // A row of a usual model; shorter ones cost more a byte, which is not told apart.
  constexpr std::int64_t kColumns = 256;
  constexpr std::int64_t kRowBytes = kColumns * 4;
  constexpr int kRounds = 5;
  const auto most = std::max<std::int64_t>(8, static_cast<std::int64_t>(budget.most_bytes) / kRowBytes);
  const DeviceMemory in = device.allocate(static_cast<std::size_t>(most * kRowBytes)),
                     out = device.allocate(static_cast<std::size_t>(most * kRowBytes)),
                     map = device.allocate(static_cast<std::size_t>(most) * sizeof(std::int32_t));
  device.zero(Lane::compute, in.get(), static_cast<std::size_t>(most * kRowBytes));
  // No row beside its neighbour, as in a repack. An odd step reaches all of a power of two.
  std::vector<std::int32_t> rows(static_cast<std::size_t>(most));
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int32_t>(i * 7 % rows.size());
  device.to_device(Lane::compute, map.get(), rows.data(), rows.size() * sizeof(std::int32_t));

  std::vector<std::int64_t> sizes;
  for (std::int64_t n = 4; n <= most; n *= 4) sizes.push_back(n);
  std::vector<double> mine;
  for (int round = -1; round < kRounds; ++round)
    for (const std::int64_t n : sizes) {
      device.synchronize(Clock::now() + budget.deadline);
      communicator.barrier();
      const auto begin = Clock::now();
      device.gather_rows(Lane::compute, {.out = out.get(),
                                         .in = in.get(),
                                         .source_row = reinterpret_cast<const std::int32_t*>(map.get()),
                                         .rows = n,
                                         .columns = kColumns});
      device.synchronize(Clock::now() + budget.deadline);
      if (round >= 0) mine.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
    }
  HostExchange host(communicator);
  const auto all = host.gather("gather the times", mine);
  if (communicator.rank() != 0) return std::nullopt;
  CalibrationCurve curve{.operation = "copy", .dtype = "any", .size_unit = "bytes"};
  std::vector<double> off;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    std::vector<double> times(kRounds, 0.0);
    for (std::size_t round = 0; round < times.size(); ++round)
      for (const auto& of_rank : all) times[round] = std::max(times[round], of_rank[round * sizes.size() + i]);
    const double t = std::max(1e-3, median(times));
    for (const double x : times) off.push_back(std::abs(x / t - 1));
    curve.knots.push_back({static_cast<double>(2 * sizes[i] * kRowBytes), t});
  }
  std::sort(off.begin(), off.end());
  curve.spread = off[off.size() * 9 / 10];
  return curve;
}

}  // namespace topomoe
