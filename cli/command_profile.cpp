// topomoe profile: what this cluster does, measured by its ranks, as topomoe.calibration/1.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>

#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "cli/last_words.hpp"
#include "cli/numbers.hpp"
#include "cli/placement.hpp"
#include "cli/together.hpp"
#include "planner/rates/machine_figures.hpp"
#include "planner/rates/same_machine.hpp"
#include "runtime/profile.hpp"
#include "topology/read/read_file.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/communicator_mpi.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

struct Options {
  std::string backend = "inproc", cluster, output, name, most = "16M";
  int tp = 0, ep = 0, etp = 0, threads = 1;
  bool edp_inner = false, host_curves = false;
  double seconds = 30;
  std::vector<std::string> experts, dtypes;  // no experts: of a machine without GPUs; no dtypes: both
};

// On top of the time of collectives.
constexpr double kExpertsShare = 0.2;

// "4096x1536": hidden and the width of a shard. Experts are timed on this machine's CPU, and a plan would take that for
// the rate of the cluster's devices.
std::vector<ExpertShape> experts_for(const Options& o, const Topology& topology) {
  std::vector<ExpertShape> out;
  const std::string& device = topology.gpu_spec(0).name;
  const bool gpus = computes_on_gpus(topology.gpu_spec(0));
  if (o.experts == std::vector<std::string>{"none"} || (o.experts.empty() && gpus)) {
    if (!o.dtypes.empty())
      throw InvalidInput("--dtype", o.dtypes[0], "is of experts, and none are timed: see --expert");
    return out;
  }
  if (gpus)
    throw InvalidInput("--expert", o.experts[0], "none: the cluster computes on " + device + ", this profile on CPUs");
  for (const std::string& text : o.experts.empty() ? std::vector<std::string>{"512x512"} : o.experts)
    for (const std::string& dtype : o.dtypes.empty() ? std::vector<std::string>{"f32", "bf16"} : o.dtypes) {
      ExpertShape& s = out.emplace_back();
      s.dtype = dtype == "bf16" ? DType::bf16 : DType::f32;
      const char* const end = text.data() + text.size();
      const auto [x, no_hidden] = std::from_chars(text.data(), end, s.hidden);
      const bool has_x = x != end && *x == 'x';
      const char* const width = has_x ? x + 1 : end;
      const auto [stop, no_ffn] = std::from_chars(width, end, s.ffn);
      constexpr std::int64_t kMost = 1 << 20, kMostElements = 1 << 27;  // 3 GB a rank, gradients included
      if (no_hidden != std::errc() || no_ffn != std::errc() || !has_x || stop != end || s.hidden < 1 || s.ffn < 1 ||
          s.hidden > kMost || s.ffn > kMost)
        throw InvalidInput("--expert", text, "hidden x width of a shard, as 4096x1536, or none");
      if (s.hidden * s.ffn > kMostElements)
        throw InvalidInput("--expert", text, fmt::format("at most {} elements a matrix", kMostElements));
    }
  return out;
}

// Ranks of either backend move host memory.
void require_host_ranks(const Options& o, const Topology& topology) {
  const GpuSpec& device = topology.gpu_spec(0);
  if (!computes_on_gpus(device) || o.host_curves) return;
  throw InvalidInput("--cluster", topology.name.empty() ? o.cluster : topology.name,
                     "computes on " + device.name + ", and --backend " + o.backend +
                         " measures host memory, whose links and copies are others: measure the GPUs with nccl-tests "
                         "and import that (calibrate), or insist with --host-curves: run and bench compare with such "
                         "curves, no plan takes them unasked");
}

std::vector<ProfileShape> shapes_for(const Options& o, const Topology& topology) {
  const int world = topology.gpu_count(), per_node = topology.gpus_per_node();
  if (o.tp == 0 && o.ep == 0 && o.etp == 0) {
    if (o.edp_inner)
      throw InvalidInput("--edp-inner", "alone",
                         "is of one layout: without --tp, --ep or --etp all groups are measured");
    return profile_shapes(world, per_node);
  }
  const int tp = std::max(1, o.tp), etp = o.etp > 0 ? o.etp : tp;
  return profile_shapes(make_layout(world, tp, 1, 1, etp, o.ep > 0 ? o.ep : std::max(1, world / etp),
                                    o.edp_inner ? ExpertOrder::edp_inner : ExpertOrder::ep_inner),
                        per_node);
}

std::optional<Calibration> profile(const Options& o, const Topology& topology, Communicator& communicator) {
  const std::int64_t least = std::max<std::int64_t>(64, 4 * topology.gpu_count());  // 4 bytes a rank
  if (bytes_from(o.most, "--most") < static_cast<double>(least))
    throw InvalidInput("--most", o.most, fmt::format("at least {}", least));
  const auto device = make_cpu_device({}, {.threads = o.threads});
  const auto experts = experts_for(o, topology);
  ProfileBudget budget{.seconds = o.seconds,
                       .most_bytes = static_cast<std::size_t>(bytes_from(o.most, "--most")),
                       .ranks_per_host = topology.gpus_per_node()};
  auto curves = profile_collectives(shapes_for(o, topology), budget, communicator, *device);
  auto copies = profile_copies(budget, communicator, *device);
  budget.seconds = o.seconds * kExpertsShare;
  auto products = profile_experts(experts, budget, communicator, *device);
  if (!curves) return std::nullopt;
  curves->push_back(std::move(*copies));
  curves->insert(curves->end(), products->begin(), products->end());
  // A cluster file need not say its name.
  const std::string known = topology.name.empty() ? o.cluster : topology.name;
  return Calibration{.name = o.name.empty() ? known : o.name,
                     .source = fmt::format("topomoe profile --backend {}: {} ranks, {} on a host", o.backend,
                                           topology.gpu_count(), topology.gpus_per_node()),
                     .machine = machine_figures(topology),
                     .software = {{"backend", o.backend}},
                     .curves = std::move(*curves)};
}

// Of the experts: flops, 2 a multiply-add and 3 matrices, of the largest.
std::string rate_of(const CalibrationCurve& c) {
  const CalibrationKnot& last = c.knots.back();
  if (c.size_unit != "rows") return fmt::format("{:>12.1f}", last.size / last.time_us);
  return fmt::format("{:>5.2f} GFLOPps",
                     6e-3 * last.size * c.parameters.at("hidden") * c.parameters.at("ffn") / last.time_us);
}

std::string note_of(const CalibrationCurve& c) {
  if (c.size_unit == "rows") return fmt::format("{}x{} {}", c.parameters.at("hidden"), c.parameters.at("ffn"), c.dtype);
  return c.parameters.contains("in_a_row") ? "in a row" : "";
}

// Time of the smallest, and what the largest makes of its bytes or rows.
std::string summary(const Calibration& c) {
  std::string text = fmt::format("# {}: {}\n#{:>15} {:>6} {:>6} {:>14} {:>12} {:>14} {:>14} {:>8}\n", c.name, c.source,
                                 "operation", "ranks", "hosts", "", "least (us)", "most (B, rows)", "(MB/s)", "spread");
  for (const CalibrationCurve& curve : c.curves) {
    const CalibrationKnot& last = curve.knots.back();
    text +=
        fmt::format("{:>16} {:>6} {:>6} {:>14} {:>12.1f} {:>14.0f} {:>14} {:>7.1f}%\n", curve.operation, curve.gpus,
                    curve.nodes, note_of(curve), curve.knots[0].time_us, last.size, rate_of(curve), 100 * curve.spread);
  }
  return text;
}

void deliver(const Options& o, const Context& context, OutputFiles& files, const Calibration& calibration) {
  const std::string json = write_calibration(calibration);
  files.write("-o", json);
  files.commit();
  print(context.format == Format::json || o.output.empty() ? json : summary(calibration));
}

constexpr auto kStart = std::chrono::minutes(1);  // for ranks to read, and to tell each other what they have

Topology cluster_for(const Options& o) {
  Topology topology = read_topology_file(o.cluster);
  require_host_ranks(o, topology);
  return topology;
}

OutputFiles files_of(const Options& o) { return {{{"-o", o.output}}, {{"--cluster", o.cluster}}}; }

void over_threads(const Options& o, const Context& context) {
  require_one_process("", false, o.backend);
  OutputFiles files = files_of(o);
  const Topology topology = cluster_for(o);
  if (topology.gpu_count() > kMostThreads)
    throw InvalidInput("--cluster", fmt::format("{} ranks", topology.gpu_count()),
                       fmt::format("inproc runs at most {}; use --backend mpi", kMostThreads));
  std::optional<Calibration> calibration;
  run_inproc(topology.gpu_count(), [&](Communicator& c) {
    if (auto mine = profile(o, topology, c)) calibration = std::move(mine);
  });
  deliver(o, context, files, *calibration);
}

void as_rank(const Options& o, Context& context) {
  const MpiOptions options{.black_box = &black_box()};
  const auto session = start_mpi(options);
  const auto mpi = make_mpi_communicator(nullptr, options);
  context.silent = mpi->rank() != 0;
  std::optional<Calibration> calibration;
  try {
    const Topology topology = read_together(*mpi, kStart, context, [&] {
      if (mpi->rank() == 0) (void)files_of(o);
      return cluster_for(o);
    });
    if (mpi->size() != topology.gpu_count())
      throw InvalidInput("--cluster", fmt::format("{} ranks", topology.gpu_count()),
                         fmt::format("mpirun started {}", mpi->size()));
    calibration = profile(o, topology, *mpi);
  } catch (const InvalidInput&) {
    throw;  // alike on all ranks
  } catch (const std::exception& e) {
    give_up(*mpi, e);
  }
  if (!calibration) return;
  OutputFiles files = files_of(o);
  deliver(o, context, files, *calibration);
}

}  // namespace

void add_profile_command(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("profile", "Measure collectives, copies and experts on ranks, as topomoe.calibration/1");
  auto o = std::make_shared<Options>();
  command->add_option("--backend", o->backend, "Ranks are threads (default) or mpirun's processes")
      ->check(CLI::IsMember({"inproc", "mpi"}))
      ->option_text("inproc|mpi");
  command->add_option("--cluster", o->cluster, "What we run on: a rank is a GPU of it")
      ->required()
      ->option_text("FILE");
  const auto count = [&](const char* flag, int& value, const char* text) {
    command->add_option(flag, value, text)->check(whole_number(flag, 1, 1'000'000))->option_text("N");
  };
  count("--tp", o->tp, "Only groups of this layout: tensor parallel size");
  count("--ep", o->ep, "Expert parallel size, default all that --etp leaves");
  count("--etp", o->etp, "Shards of an expert, default --tp");
  command->add_flag("--edp-inner", o->edp_inner, "Stride EP groups over hosts instead of packing them");
  command->add_option("--seconds", o->seconds, "About so long for collectives, a fifth of it for experts; default 30")
      ->check(positive_number("--seconds", 86400))
      ->option_text("S");
  command->add_option("--most", o->most, "Largest buffer of a rank, default 16M")->option_text("SIZE");
  command
      ->add_option(
          "--expert", o->experts,
          "Hidden x width of a shard of experts to time on CPUs, default 512x512 unless the cluster has GPUs; or none")
      ->delimiter(',')
      ->option_text("4096x1536,...|none");
  command->add_option("--dtype", o->dtypes, "Of these experts, default both")
      ->delimiter(',')
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->option_text("f32,bf16");
  command->add_flag("--host-curves", o->host_curves,
                    "Measure host memory though the cluster has GPUs: for run and bench on such ranks");
  add_threads_option(*command, o->threads);
  command->add_option("--name", o->name, "Of the calibration, default the cluster's")->option_text("NAME");
  command->add_option("-o,--output", o->output, "Where it goes; default stdout")->option_text("FILE");
  add_format_option(*command, context);
  command->callback([o, &context] { o->backend == "inproc" ? over_threads(*o, context) : as_rank(*o, context); });
}

}  // namespace topomoe::cli
