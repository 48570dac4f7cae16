// The commands of `topomoe`: one file each, which parses, calls the libraries and prints.
//
// Results go to stdout, everything else to stderr, one line a message. Errors are thrown; main() alone
// turns them into messages and exit codes: 0 ok, 1 infeasible or a check that failed, 2 usage or input,
// 3 something this machine lacks, 4 our own bug. Adding a command: a file command_<name>.cpp, a line here,
// a line in main().
#pragma once

#include <CLI/CLI.hpp>
#include <stdexcept>
#include <string>

namespace topomoe::cli {

enum class Format { text, json };

// Ranks that `run --backend inproc` carries as threads of one process.
constexpr int kMostThreads = 64;

// What the commands share with main().
struct Context {
  Format format = Format::text;
  std::string program = "topomoe";  // as it was called, for commands that a user may copy
  // Ranks beyond the first leave talking to rank 0.
  bool silent = false;
};

// A result that says no: infeasible, or a check that failed. Exit code 1.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

void add_topo_command(CLI::App& app, Context& context);
void add_calibrate_command(CLI::App& app, Context& context);
void add_estimate_command(CLI::App& app, Context& context);
void add_plan_command(CLI::App& app, Context& context);
void add_whatif_command(CLI::App& app, Context& context);
void add_explain_command(CLI::App& app, Context& context);
void add_emit_command(CLI::App& app, Context& context);
void add_run_command(CLI::App& app, Context& context);
void add_bench_command(CLI::App& app, Context& context);
void add_profile_command(CLI::App& app, Context& context);

// `--format text|json`, which every command has.
void add_format_option(CLI::App& command, Context& context);
// --threads of each rank's kernels on CPUs.
void add_threads_option(CLI::App& command, int& threads);

// The text of `topomoe --version`.
std::string version_text(Format format);

}  // namespace topomoe::cli
