// topomoe explain plan.json: the decision in words. With --format json, the plan as we read it. With a second plan,
// what differs. --glossary: what their words mean.

#include <memory>

#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "planner/compare.hpp"
#include "topology/read/read_file.hpp"
#include "topomoe/plan.hpp"
#include "topomoe/planner.hpp"

namespace topomoe::cli {
namespace {

Plan plan_of(const std::string& path) { return read_plan(read_text_file(path), path); }

}  // namespace

void add_explain_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("explain", "Why a plan is what it is, or how two differ");
  auto paths = std::make_shared<std::pair<std::string, std::string>>();
  auto glossary = std::make_shared<bool>(false);
  command->add_option("plan", paths->first, "A plan.json of `topomoe plan`")->option_text("PLAN");
  command->add_option("other", paths->second, "Another: only what differs is said")->option_text("PLAN");
  command->add_flag("--glossary", *glossary, "What TP, EP, sliced, node_dedup, lane, bound, ... mean");
  add_format_option(*command, context);
  command->callback([paths, glossary, &context] {
    if (*glossary && paths->first.empty()) return print(glossary_text());
    if (paths->first.empty()) throw InvalidInput("plan", "missing", "a plan.json of `topomoe plan`, or --glossary");
    const Plan plan = plan_of(paths->first);
    const bool json = context.format == Format::json;
    if (paths->second.empty()) return print(json ? write_plan(plan) : explain_text(plan));
    const Plan other = plan_of(paths->second);
    print(json ? compare_json(plan, other) : compare_text(plan, other));
  });
}

}  // namespace topomoe::cli
