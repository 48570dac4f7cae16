// topomoe whatif: a plan for every point of a sweep, as a table, JSON, or a page.

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <set>
#include <thread>

#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "cli/plan_request.hpp"
#include "fmt/format.h"
#include "planner/whatif/whatif.hpp"

namespace topomoe::cli {
namespace {

struct Options : PlanOptions {
  std::vector<std::string> clusters, set, degrade, remove;
  std::string output, html;
};

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

// The first Ctrl-C lets the points that are being computed end; the second ends the program.
class StopOnCtrlC {
 public:
  StopOnCtrlC() {
    struct sigaction action = {};
    action.sa_handler = [](int) { interrupted = true; };
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(SIGINT, &action, &before_);
  }
  ~StopOnCtrlC() { sigaction(SIGINT, &before_, nullptr); }
  StopOnCtrlC(const StopOnCtrlC&) = delete;
  StopOnCtrlC& operator=(const StopOnCtrlC&) = delete;

 private:
  struct sigaction before_ = {};
};

// "12 of 100 points, 3 s" on one line that is rewritten; nothing where stderr is no terminal.
class Progress {
 public:
  void show(std::size_t done, std::size_t all) {
    const auto now = Clock::now();
    if (!terminal_ || (done < all && now < next_)) return;
    next_ = now + std::chrono::milliseconds(100);
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now - begin_).count();
    write(fmt::format("\r{} of {} points, {} s", done, all, seconds));
  }
  ~Progress() {
    if (terminal_) write("\r\033[K");
  }

 private:
  using Clock = std::chrono::steady_clock;
  static void write(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
  }
  bool terminal_ = isatty(STDERR_FILENO) == 1;
  Clock::time_point begin_ = Clock::now(), next_ = begin_;
};

WhatIf what_if_from(const Options& o) {
  WhatIf w;
  w.base = plan_request(o);
  std::set<std::string> files, names;
  for (const std::string& file : o.clusters) {
    if (!files.insert(file).second) throw InvalidInput("--cluster", file, "is listed twice");
    WhatIf::Cluster cluster;
    cluster.topology = planned_topology(o, file, &cluster.note);
    cluster.name = cluster.topology.name;
    if (!names.insert(cluster.name).second) cluster.name = file;  // two files that bear one name
    if (!cluster.note.empty()) say("note: " + cluster.note);
    compare_calibrations(o, w.base, cluster.topology);
    w.clusters.push_back(std::move(cluster));
  }
  for (const std::string& text : o.set) w.settings.push_back(parse_setting(text));
  for (const Setting& setting : w.settings)
    for (const std::string& value : setting.values)
      if (setting.key == "routing") w.routings.emplace(value, routing_from(value));
  w.degrade = o.degrade, w.remove = o.remove;
  return w;
}

std::vector<NamedFile> whole_inputs_of(const Options& o) {
  std::vector<NamedFile> out = inputs_of(o);
  for (const NamedFile& cluster : named("--cluster", o.clusters)) out.push_back(cluster);
  for (const std::string& text : o.set) {
    const Setting setting = parse_setting(text);
    for (const std::string& value : setting.values)
      if (setting.key == "routing" && is_routing_file(value)) out.push_back({"--set routing", value});
  }
  return out;
}

void what_if(const Options& o, const Context& context) {
  OutputFiles files({{"-o", o.output}, {"--html", o.html}}, whole_inputs_of(o));
  const WhatIf w = what_if_from(o);
  std::vector<WhatIfOutcome> outcomes;
  {
    const StopOnCtrlC stop;
    Progress progress;
    WhatIfRun run;
    run.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    run.progress = [&](std::size_t done, std::size_t all) { progress.show(done, all); };
    run.cancel = &interrupted;
    outcomes = run_what_if(w, run);
  }
  std::string json;
  if (context.format == Format::json || !o.output.empty() || !o.html.empty()) json = what_if_json(w, outcomes);
  files.write("-o", json);
  if (files.wants("--html")) files.write("--html", what_if_page(json));
  files.commit();
  print(context.format == Format::json ? json : what_if_text(w, outcomes));

  std::size_t planned = 0, left_out = 0;
  for (const WhatIfOutcome& outcome : outcomes) {
    planned += outcome.status == WhatIfOutcome::Status::planned;
    left_out += outcome.status == WhatIfOutcome::Status::not_computed;
  }
  if (left_out > 0)
    throw Failure(fmt::format("interrupted: {} of {} points are not computed", left_out, outcomes.size()));
  if (planned == 0) throw Failure("infeasible: no point has a plan; " + outcomes.front().reason);
}

}  // namespace

void add_whatif_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("whatif", "Plans over a sweep of clusters, rates and jobs, side by side");
  auto o = std::make_shared<Options>();
  command->add_option("--cluster", o->clusters, "topomoe.cluster/1 JSON or NCCL topology XML; several are compared")
      ->required()
      ->allow_extra_args(false)
      ->delimiter(',')
      ->option_text("FILE[,FILE]");
  command->add_option("--set", o->set, "An axis of the sweep (repeatable): " + setting_keys())
      ->allow_extra_args(false)
      ->option_text("KEY=VALUE[,VALUE]");
  command->add_option("--degrade", o->degrade, "With a part of the cluster at a fraction of its rates (repeatable)")
      ->allow_extra_args(false)
      ->delimiter(',')
      ->option_text("NAME=FACTOR");
  command->add_option("--remove", o->remove, "Without a part of the cluster (repeatable)")
      ->allow_extra_args(false)
      ->delimiter(',')
      ->option_text("NAME");
  add_plan_options(*command, *o);
  command->add_option("--html", o->html, "A page to explore the sweep with")->option_text("FILE");
  command->add_option("-o,--output", o->output, "Where the JSON goes")->option_text("FILE");
  add_format_option(*command, context);
  command->callback([o, &context] { what_if(*o, context); });
}

}  // namespace topomoe::cli
