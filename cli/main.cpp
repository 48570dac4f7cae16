// Entry point: the table of commands, and the one place where errors become messages and exit codes.

#include <algorithm>
#include <cstdio>
#include <map>
#include <new>

#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "cli/numbers.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {

void add_format_option(CLI::App& command, Context& context) {
  const std::map<std::string, Format> names{{"text", Format::text}, {"json", Format::json}};
  command.add_option("--format", context.format, "What stdout gets: text or json")
      ->transform(CLI::CheckedTransformer(names).description("text|json"))
      ->option_text("text|json");
}

void add_threads_option(CLI::App& command, int& threads) {
  constexpr int kMost = 1024;
  command.add_option("--threads", threads, "Of each rank's kernels on CPUs, default 1; 0: all CPUs that it may run on")
      ->check(whole_number("--threads", 0, kMost))
      ->option_text("N");
}

namespace {

int fail(const Context& context, int code, const std::string& message) {
  if (!context.silent) say(message);
  return code;
}

int run(CLI::App& app, Context& context, bool& version, int argc, char** argv) {
  try {
    app.parse(argc, argv);
    if (version) {
      print(version_text(context.format));
      return 0;
    }
    if (app.get_subcommands().empty()) return fail(context, 2, "command: missing: topomoe --help lists the commands");
    return 0;
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& e) {
    return fail(context, 2,
                std::string("command line: ") + e.what() + ": topomoe <command> --help lists what there is");
  } catch (const Failure& e) {
    return fail(context, 1, e.what());
  } catch (const TransportError& e) {
    return fail(context, 1, e.what());
  } catch (const InvalidInput& e) {
    return fail(context, 2, e.what());
  } catch (const MissingEnvironment& e) {
    return fail(context, 3, e.what());
  } catch (const std::bad_alloc&) {
    return fail(context, 3, "memory: none left: run with smaller sizes, or on a larger machine");
  } catch (const std::exception& e) {
    return fail(context, 4,
                std::string("internal: ") + e.what() + ": this is a bug, please report it with the command line");
  }
}

}  // namespace
}  // namespace topomoe::cli

int main(int argc, char** argv) {
  using namespace topomoe::cli;
  CLI::App app{"Plans how a Mixture-of-Experts model is laid out over a cluster, explains the plan, and runs it.",
               "topomoe"};
  Context context;
  if (argc > 0 && argv[0] != nullptr) context.program = argv[0];
  bool version = false;
  app.add_flag("--version", version, "Version, and the libraries that are built in");
  app.footer(
      "Results on stdout, messages on stderr. Exit codes: 0 ok, 1 infeasible or check failed,\n"
      "2 usage or input, 3 something this machine lacks, 4 internal.");
  add_format_option(app, context);
  add_topo_command(app, context);
  add_estimate_command(app, context);
  add_calibrate_command(app, context);
  add_plan_command(app, context);
  add_whatif_command(app, context);
  add_explain_command(app, context);
  add_emit_command(app, context);
  add_run_command(app, context);
  add_bench_command(app, context);
  add_profile_command(app, context);
  return run(app, context, version, argc, argv);
}
