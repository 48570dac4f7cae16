#include "cli/edit_options.hpp"

namespace topomoe::cli {

void add_edit_options(CLI::App& command, EditOptions& o) {
  command.add_option("--set", o.set, "A figure for all: nic.GBps=25, hosts=64 (repeatable)")
      ->allow_extra_args(false)
      ->option_text("KEY=N");
  command
      .add_option("--degrade", o.degrade,
                  "Links of one thing times a factor: leaf3=0.5, host4.nic1=0.25 (a GPU: its links, not its clock)")
      ->allow_extra_args(false)
      ->option_text("NAME=X");
  command.add_option("--remove", o.remove, "Without one thing: host17.gpu3, host17, leaf3, leaf3->spine5")
      ->allow_extra_args(false)
      ->option_text("NAME");
}

Topology edited(const Topology& topology, const EditOptions& o) {
  std::vector<Edit> edits;
  for (const std::string& text : o.set) edits.push_back(parse_set(text));
  for (const std::string& text : o.degrade) edits.push_back(parse_degrade(text));
  for (const std::string& text : o.remove) edits.push_back(parse_remove(text));
  return edit(topology, edits);
}

std::string words(const EditOptions& o) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  for (const std::string& part : o.set) add(part);
  for (const std::string& part : o.degrade) add(part);
  for (const std::string& part : o.remove) add("without " + part);
  return text;
}

}  // namespace topomoe::cli
