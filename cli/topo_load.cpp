// topomoe topo load: what a traffic puts on the links, and which of them it waits for.
#include <memory>

#include "cli/edit_options.hpp"
#include "cli/files.hpp"
#include "cli/topo_commands.hpp"
#include "cli/traffic_options.hpp"

namespace topomoe::cli {
namespace {

struct Options : EditOptions, TopoSource, TrafficOptions {};

void load(const Options& o, const Context& context) {
  const Router router(edited(described("topo load", o), o));
  const PatternLoad own = asked_load(router, o);
  print(context.format == Format::json ? pattern_load_json(own) : pattern_load_text(own));
}

}  // namespace

void add_topo_load(CLI::App& topo, Context& context) {
  CLI::App* command =
      topo.add_subcommand("load", "Bytes on links by class, the bottleneck, and the bandwidth it leaves");
  auto o = std::make_shared<Options>();
  add_source_options(*command, *o);
  add_traffic_options(*command, *o);
  add_edit_options(*command, *o);
  add_format_option(*command, context);
  command->callback([o, &context] { load(*o, context); });
}

}  // namespace topomoe::cli
