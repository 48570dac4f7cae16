// topomoe explain plan.json: the decision in words. With --format json, the plan as we read it.

#include <memory>

#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "topology/read_file.hpp"
#include "topomoe/plan.hpp"
#include "topomoe/planner.hpp"

namespace topomoe::cli {

void add_explain_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("explain", "Why a plan is what it is");
  auto path = std::make_shared<std::string>();
  command->add_option("plan", *path, "A plan.json of `topomoe plan`")->required()->option_text("PLAN");
  add_format_option(*command, context);
  command->callback([path, &context] {
    const Plan plan = read_plan(read_text_file(*path), *path);
    print(context.format == Format::json ? write_plan(plan) : explain_text(plan));
  });
}

}  // namespace topomoe::cli
