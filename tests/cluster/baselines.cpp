// What others do with MPI's collectives in place of our schedules, in the same rounds of one launch.
//
// From packed rows to rows at the ranks of the experts; every token goes to all experts, so that their equal, padded
// messages and our drawn ones are the same bytes. Copies that only reorder rows before or after are left out on both
// sides, which favours the others; those between the two hops of 2DH are in.
//   alltoallv   MPI_Alltoallv over the EP group, by every TP rank
//   deepspeed   the same as equal blocks, MPI_Alltoall: DeepSpeed's expert-sliced layers
//   pr5626      DeepSpeed since its pull request 5626: 1/TP of the rows each, then an all-gather over the TP group
//   monta       pr5626 in 4 chunks, the gather of one beside the exchange of the next
//   tutel2dh    Tutel's two-dimensional hierarchical exchange: inside the node, copy, between nodes
#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>

#include "cli/bench_contest.hpp"
#include "runtime/bench.hpp"
#include "topomoe/communicator_mpi.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe {
namespace {

using Index = std::size_t;

MPI_Comm split_by(const RankGroups& groups, Role role, int rank) {
  MPI_Comm out = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, groups.members(role, rank).front(), rank, &out);
  return out;
}

struct Others {
  Others(const RankGroups& groups, int rank, Index bytes)
      : ep(split_by(groups, Role::ep, rank)),
        tp(split_by(groups, Role::tp, rank)),
        node(split_by(groups, Role::node, rank)),
        rail(split_by(groups, Role::rail, rank)),
        t(groups.size(Role::tp)),
        e(groups.size(Role::ep)),
        local(groups.size(Role::node)),
        all(bytes),
        packed(bytes),
        arrived(bytes),
        gathered(bytes) {}

  void alltoallv() {
    const Index block = all / static_cast<Index>(e);
    std::vector<int> counts(static_cast<Index>(e), static_cast<int>(block)), first(static_cast<Index>(e));
    for (Index i = 0; i < first.size(); ++i) first[i] = static_cast<int>(i * block);
    MPI_Alltoallv(packed.data(), counts.data(), first.data(), MPI_BYTE, arrived.data(), counts.data(), first.data(),
                  MPI_BYTE, ep);
  }
  void deepspeed() {
    const int block = static_cast<int>(all) / e;
    MPI_Alltoall(packed.data(), block, MPI_BYTE, arrived.data(), block, MPI_BYTE, ep);
  }
  void pr5626() {
    const int mine = static_cast<int>(all) / t, block = mine / e;
    MPI_Alltoall(packed.data(), block, MPI_BYTE, arrived.data(), block, MPI_BYTE, ep);
    MPI_Allgather(arrived.data(), mine, MPI_BYTE, gathered.data(), mine, MPI_BYTE, tp);
  }
  void monta() {
    constexpr int kChunks = 4;
    const Index chunk = all / static_cast<Index>(t) / kChunks;
    const int mine = static_cast<int>(chunk), block = mine / e;
    MPI_Request exchange[kChunks], gather[kChunks];
    const auto start = [&](int i) {
      const Index at = static_cast<Index>(i) * chunk;
      MPI_Ialltoall(&packed[at], block, MPI_BYTE, &arrived[at], block, MPI_BYTE, ep, &exchange[i]);
    };
    start(0);
    for (int i = 0; i < kChunks; ++i) {
      MPI_Wait(&exchange[i], MPI_STATUS_IGNORE);
      if (i + 1 < kChunks) start(i + 1);
      const Index at = static_cast<Index>(i) * chunk;
      MPI_Iallgather(&arrived[at], mine, MPI_BYTE, &gathered[at * static_cast<Index>(t)], mine, MPI_BYTE, tp,
                     &gather[i]);
    }
    MPI_Waitall(kChunks, gather, MPI_STATUSES_IGNORE);
  }
  // Blocks are [node][member] of who they are for; the first hop wants them [member][node], the second [node][member].
  void tutel2dh() {
    const Index block = all / static_cast<Index>(e), g = static_cast<Index>(local), n = static_cast<Index>(e) / g;
    for (Index i = 0; i < n; ++i)
      for (Index j = 0; j < g; ++j) std::memcpy(&arrived[(j * n + i) * block], &packed[(i * g + j) * block], block);
    const int inside = static_cast<int>(n * block), between = static_cast<int>(g * block);
    MPI_Alltoall(arrived.data(), inside, MPI_BYTE, gathered.data(), inside, MPI_BYTE, node);
    for (Index j = 0; j < g; ++j)
      for (Index i = 0; i < n; ++i) std::memcpy(&arrived[(i * g + j) * block], &gathered[(j * n + i) * block], block);
    MPI_Alltoall(arrived.data(), between, MPI_BYTE, gathered.data(), between, MPI_BYTE, rail);
  }

  MPI_Comm ep, tp, node, rail;
  int t, e, local;
  Index all;
  std::vector<char> packed, arrived, gathered;
};

int run(int argc, char** argv) {
  CLI::App app{"Exchanges of others beside ours"};
  int tp = 8, per_host = 8, repeat = 1;
  std::int64_t bytes = 16 << 20;
  double rate = 0;
  cli::ContestOptions contest_options;
  app.add_option("--tp", tp);
  app.add_option("--per-host", per_host);
  app.add_option("--bytes", bytes);
  app.add_option("--repeat", repeat);
  app.add_option("--rate-GBps", rate);
  app.add_option("--cluster", contest_options.cluster);
  app.add_option("--calibration", contest_options.calibrations);
  CLI11_PARSE(app, argc, argv);

  const MpiSession session;
  const auto mpi = make_mpi_communicator();
  const int world = mpi->size(), ep = world / tp;
  // A token is 4 KiB where that leaves enough of them for 16 chunks and all TP ranks.
  std::int64_t hidden = 1024;
  while (hidden > 1 && bytes / (4 * hidden * ep) < std::int64_t{16} * tp * 4) hidden /= 2;
  BenchCase b{.layout = make_layout(world, tp, 1, 1, tp, ep), .ranks_per_host = per_host};
  b.shape = {.hidden = hidden, .ffn = tp, .experts = ep, .top_k = ep};
  b.tokens = bytes / (4 * hidden * ep);
  b.repeat = repeat, b.nic_payload_GBps = rate;
  const RankGroups groups(b.layout, per_host);
  Others others(groups, mpi->rank(), static_cast<Index>(4 * hidden * ep * b.tokens));

  // Of a rank's rows 1 - local/ep go to other hosts; slices are then gathered by TP - 1 others.
  const double rows = static_cast<double>(others.all), away = rows * (ep - others.local) / ep,
               inside = rows * (others.local - 1) / ep, ranks = world, part = 1.0 / tp;
  const auto of = [&](const char* name, int chunks, double share, double gathered, auto member) {
    return Rival{name,
                 chunks,
                 share * away * ranks,
                 (share * inside + gathered) * ranks,
                 share * away * per_host,
                 [&others, member] { (others.*member)(); }};
  };
  std::vector<Rival> rivals{of("alltoallv", 1, 1, 0, &Others::alltoallv), of("deepspeed", 1, 1, 0, &Others::deepspeed)};
  if (tp > 1) {
    rivals.push_back(of("pr5626", 1, part, rows * (1 - part), &Others::pr5626));
    rivals.push_back(of("monta", 4, part, rows * (1 - part), &Others::monta));
  }
  if (others.local < ep) {
    // Second hop and first: as many rows leave the rank, but inside the node they go for all nodes.
    Rival r = of("tutel2dh", 1, 1, 0, &Others::tutel2dh);
    r.intra_bytes = rows * (others.local - 1) / others.local * ranks;
    rivals.push_back(std::move(r));
  }

  std::vector<std::string>& variants = contest_options.variants;
  if (tp > 1) variants.emplace_back("replicated:flat:1");
  for (const int chunks : tp > 1 ? std::vector{1, 4, 8, 16} : std::vector{1})
    variants.push_back("sliced:flat:" + std::to_string(chunks));
  if (others.local > 1 && others.local < ep) variants.emplace_back("sliced:two_level:1");
  const cli::Contest contest = cli::contest_for(contest_options, b, std::nullopt, mpi->rank() > 0);
  auto out = bench_exchange(contest.schedules, b, *mpi, *make_cpu_device(), rivals);
  if (!out) return 0;
  for (std::size_t i = 0; i < contest.predicted_us.size(); ++i)
    (*out)[i].predicted_us = contest.predicted_us[i].front(), (*out)[i].picked = i == contest.picked;
  std::fputs(rows_json(*out).c_str(), stdout);
  for (const BenchRow& row : *out)
    if (row.bytes_agree == false) throw std::runtime_error(row.algorithm + " moved other bytes than were drawn");
  return 0;
}

}  // namespace
}  // namespace topomoe

int main(int argc, char** argv) {
  try {
    return topomoe::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "baselines: %s\n", e.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
}
