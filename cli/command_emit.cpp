// topomoe emit TARGET plan.json: what a framework or a launcher needs, as it reads it.

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cli/files.hpp"
#include "cli/numbers.hpp"
#include "planner/emit/hosts.hpp"
#include "topology/read/read_file.hpp"

namespace topomoe::cli {
namespace {

struct Options {
  std::string plan, output, hosts, cluster;
  int sockets = 1;
};

void emit(const Emitter& target, const Options& o, const Context& context) {
  OutputFiles files({{"-o", o.output}}, {{"plan", o.plan}, {"--cluster", o.cluster}});
  const Plan plan = read_plan(read_text_file(o.plan), o.plan);
  EmitOptions options;
  if (!o.hosts.empty()) options.hosts = expand_hostlist(o.hosts, "--hosts");
  options.sockets = o.sockets;
  if (!o.cluster.empty()) options.socket_of_gpu = socket_of_gpus(read_topology_file(o.cluster));
  const auto emitted = target.emit(plan, options);
  if (!emitted) {
    std::string why;
    for (const Infeasible& i : emitted.error().why) why += (why.empty() ? "" : " | ") + i.message();
    throw Failure(fmt::format("{} cannot run this plan: {}", target.name, why));
  }
  files.write("-o", emitted->text);
  files.commit();
  for (const std::string& note : emitted->not_expressed)
    say(one_line(fmt::format("note: {} does not express {}", target.name, note)));
  if (context.format == Format::json)
    print(nlohmann::ordered_json{
              {"target", target.name}, {"text", emitted->text}, {"not_expressed", emitted->not_expressed}}
              .dump(2) +
          "\n");
  else if (o.output.empty())
    print(emitted->text);
}

}  // namespace

void add_emit_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("emit", "What a framework or a launcher needs to run a plan");
  command->require_subcommand(1);
  for (const Emitter& target : emitters()) {
    CLI::App* one = command->add_subcommand(std::string(target.name), std::string(target.writes));
    auto o = std::make_shared<Options>();
    one->add_option("plan", o->plan, "A plan.json of `topomoe plan`")->required()->option_text("PLAN");
    one->add_option("-o,--output", o->output, "Where it goes, instead of stdout")->option_text("FILE");
    one->add_option("--hosts", o->hosts, "Real names of the plan's hosts, in its order")->option_text("n[01-04],login");
    if (target.name == "rankfile") {
      one->add_option("--cluster", o->cluster, "The cluster of the plan: ranks go to the sockets of their GPUs")
          ->option_text("FILE");
      one->add_option("--sockets", o->sockets, "CPU sockets of a host, over which its ranks are spread; default 1")
          ->check(whole_number("--sockets", 0, 1000))
          ->option_text("N");
    }
    add_format_option(*one, context);
    one->callback([&target, o, &context] { emit(target, *o, context); });
  }
}

}  // namespace topomoe::cli
