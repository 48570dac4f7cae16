// topomoe explain plan.json: the decision in words. With --format json, the plan as we read it. With a second plan,
// what differs.

#include <memory>

#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "planner/compare.hpp"
#include "topology/read_file.hpp"
#include "topomoe/plan.hpp"
#include "topomoe/planner.hpp"

namespace topomoe::cli {
namespace {

Plan plan_of(const std::string& path) { return read_plan(read_text_file(path), path); }

}  // namespace

void add_explain_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("explain", "Why a plan is what it is, or how two differ");
  auto paths = std::make_shared<std::pair<std::string, std::string>>();
  command->add_option("plan", paths->first, "A plan.json of `topomoe plan`")->required()->option_text("PLAN");
  command->add_option("other", paths->second, "Another: only what differs is said")->option_text("PLAN");
  add_format_option(*command, context);
  command->callback([paths, &context] {
    const Plan plan = plan_of(paths->first);
    const bool json = context.format == Format::json;
    if (paths->second.empty()) return print(json ? write_plan(plan) : explain_text(plan));
    const Plan other = plan_of(paths->second);
    print(json ? compare_json(plan, other) : compare_text(plan, other));
  });
}

}  // namespace topomoe::cli
