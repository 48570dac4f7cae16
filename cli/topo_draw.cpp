// topomoe topo draw: the cluster as a picture, or as a page with its figures.
#include <memory>

#include "cli/edit_options.hpp"
#include "cli/files.hpp"
#include "cli/topo_commands.hpp"
#include "cli/traffic_options.hpp"
#include "topomoe/draw.hpp"
#include "topomoe/error.hpp"

namespace topomoe::cli {
namespace {

struct Options : EditOptions, TopoSource, TrafficOptions {
  std::string output;
};

void draw(const Options& o) {
  const bool page = o.output.ends_with(".html"), picture = o.output.ends_with(".svg");
  if (!page && !picture) throw InvalidInput("-o", o.output, "x.svg, or x.html for a page with the figures");
  OutputFiles files({{"-o", o.output}}, {{"file", o.file}, {"--pattern", o.traffic_file()}});
  const Router router(edited(described("topo draw", o), o));
  DrawnTraffic traffic;
  // What is asked for is drawn or refused; without a question, a cluster without traffic is drawn without colours.
  if (o.pattern.empty() && o.bytes.empty())
    traffic = usual_traffic(router);
  else
    traffic.load = asked_load(router, o);
  files.write("-o", page ? draw_page(router, traffic) : draw_svg(router, traffic));
  files.commit();
}

}  // namespace

void add_topo_draw(CLI::App& topo) {
  CLI::App* command =
      topo.add_subcommand("draw", "A picture: width by rate, colour by load; or a page with its figures");
  auto o = std::make_shared<Options>();
  add_source_options(*command, *o);
  command->add_option("-o,--output", o->output, "x.svg or x.html")->option_text("FILE")->required();
  add_traffic_options(*command, *o);
  add_edit_options(*command, *o);
  command->callback([o] { draw(*o); });
}

}  // namespace topomoe::cli
