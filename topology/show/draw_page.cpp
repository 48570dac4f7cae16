// The picture and its figures on one page that loads nothing: light or dark as the reader's screen, no scripts.
#include <fmt/format.h>

#include <algorithm>

#include "topology/names.hpp"
#include "topology/show/host_matrix.hpp"
#include "topology/show/svg_canvas.hpp"
#include "topomoe/draw.hpp"

namespace topomoe {
namespace {

constexpr const char* kStyle = R"(:root{color-scheme:light dark}
body{margin:0 auto;max-width:1480px;padding:20px 28px 48px;font:14px/1.45 system-ui,"Helvetica Neue",Arial,sans-serif;background:#f6f6f4;color:#1b1b19}
h1{font-size:22px;font-weight:600;margin:0 0 12px}
h2{font-size:15px;font-weight:600;margin:0 0 8px}
section{background:#fcfcfb;border:1px solid #e2e1dc;border-radius:8px;padding:14px 16px;margin-bottom:16px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:2px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid #ecebe7}
th{font-weight:600}
td.words,th.words{text-align:left}
tr.slowest td{font-weight:600}
td.own{font-weight:600}
.note{color:#5f5e58;font-size:12.5px}
td.note{white-space:normal;min-width:20em;text-align:left}
.self{color:#a9a79f}
svg{display:block;max-width:100%;height:auto}
@media (prefers-color-scheme: dark){
body{background:#101010;color:#efeeea}
section{background:#161615;border-color:#35342f}
th,td{border-color:#2b2a27}
.note{color:#a9a79f}
}
)";

std::string cell(const std::string& words, const char* klass = "") {
  return *klass == '\0' ? "<td>" + xml_escaped(words) + "</td>"
                        : fmt::format("<td class=\"{}\">{}</td>", klass, xml_escaped(words));
}
std::string head(const std::string& words, const char* klass = "") {
  return *klass == '\0' ? "<th>" + xml_escaped(words) + "</th>"
                        : fmt::format("<th class=\"{}\">{}</th>", klass, xml_escaped(words));
}

std::string load_table(const PatternLoad& load) {
  std::string out = "<section>\n<h2>Loads by class of links</h2>\n<p class=\"note\">" +
                    xml_escaped(fmt::format("{}, {} MiB a GPU, {} GPUs: at most {} GB/s algorithm bandwidth, {} GB/s "
                                            "bus bandwidth a GPU. Bytes over raw rates: no measurement is faster.",
                                            load.pattern, short_number(load.buffer_bytes / (1 << 20)), load.gpus,
                                            short_number(load.algorithm_GBps), short_number(load.bus_GBps))) +
                    "</p>\n<div class=\"scroll\"><table>\n<tr>" + head("class", "words") + head("all bytes, MiB") +
                    head("slowest link", "words") + head("as slow") + head("its bytes, MiB") + head("GB/s") +
                    head("time, us") + head("of slowest") + head("source of its rate", "words") + "</tr>\n";
  const auto mebibytes = [](double bytes) { return short_number(bytes / (1 << 20)); };
  for (const LoadedClass& own : load.classes)
    out += fmt::format("<tr{}>", own.link == load.bottleneck.link ? " class=\"slowest\"" : "") +
           cell(own.klass, "words") + cell(mebibytes(own.total_bytes)) + cell(own.name, "words") +
           cell(fmt::format("{}", own.links_as_loaded)) + cell(mebibytes(own.max_bytes)) +
           cell(rate_text(own.GBps_per_direction)) + cell(short_number(own.seconds * 1e6, 1)) +
           cell(short_number(100 * own.share, 1) + "%") + cell(source_text(own.source, own.source_note), "note") +
           "</tr>\n";
  return out + "</table></div>\n</section>\n";
}

// A row a GPU; own: the column that is marked in each.
template <class CellAt>
std::string table(const std::vector<std::string>& rows, const std::vector<std::string>& columns, CellAt cell_at,
                  const std::vector<int>* own) {
  std::string out = "<div class=\"scroll\"><table>\n<tr><th></th>";
  for (const std::string& column : columns) out += head(column);
  out += "</tr>\n";
  for (std::size_t row = 0; row < rows.size(); ++row) {
    out += "<tr>" + head(rows[row], "words");
    for (std::size_t column = 0; column < columns.size(); ++column) {
      const PathCell& path = cell_at(row, column);
      const bool marked = own != nullptr && (*own)[row] == static_cast<int>(column);
      out += cell(cell_text(path) + (marked ? "*" : ""), marked                              ? "own"
                                                         : path.path_class == PathClass::LOC ? "self"
                                                                                             : "");
    }
    out += "</tr>\n";
  }
  return out + "</table></div>\n";
}

std::string matrices(const Router& router, std::size_t index) {
  constexpr std::size_t kMost = 72;  // columns that a page can still show; more: topo show --format json
  const HostMatrix matrix = host_matrix(router, index);
  const Topology& topology = router.topology();
  std::string out = "<section>\n<h2>" +
                    xml_escaped(fmt::format("{} x {}", topology.templates[index].name, hosts_of(topology, index))) +
                    "</h2>\n";
  if (matrix.gpus.empty()) return out + "<p class=\"note\">No GPUs are described.</p>\n</section>\n";
  if (std::max(matrix.gpus.size(), matrix.nics.size()) > kMost)
    return out + "<p class=\"note\">Too many devices for a table: topomoe topo show --format json has them.</p>\n" +
           "</section>\n";
  out += "<p class=\"note\">GPU to GPU: path class, GB/s one direction, one flow alone</p>\n";
  out += table(
      matrix.gpus, matrix.gpus,
      [&](std::size_t row, std::size_t column) -> const PathCell& { return matrix.gpu_gpu(row, column); }, nullptr);
  if (!matrix.nics.empty()) {
    out += "<p class=\"note\">GPU to NIC; * its own</p>\n";
    out += table(
        matrix.gpus, matrix.nics,
        [&](std::size_t row, std::size_t column) -> const PathCell& { return matrix.gpu_nic(row, column); },
        &matrix.own_nic);
  }
  return out + "</section>\n";
}

std::string between_hosts(const Router& router) {
  const std::vector<HostPair> pairs = host_pairs(router);
  if (pairs.empty()) return "";
  const Topology& topology = router.topology();
  std::string out = "<section>\n<h2>Between hosts</h2>\n<div class=\"scroll\"><table>\n<tr>" + head("hosts", "words") +
                    head("they are", "words") + head("same rail") + head("other rail") + "</tr>\n";
  for (const HostPair& pair : pairs)
    out += "<tr>" + cell(topology.host_name(pair.host) + " to " + topology.host_name(pair.other), "words") +
           cell(pair.relation, "words") + cell(cell_text(pair.same_rail)) +
           cell(pair.other_rail ? cell_text(*pair.other_rail) : "") + "</tr>\n";
  return out + "</table></div>\n</section>\n";
}

}  // namespace

std::string draw_page(const Router& router, const DrawnTraffic& traffic) {
  const Topology& topology = router.topology();
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{0}</title>\n"
      "<style>\n{1}</style>\n</head>\n<body>\n<h1>{0}</h1>\n<section>\n<div class=\"scroll\">\n",
      xml_escaped(topology.name), kStyle);
  out += draw_svg(router, traffic) + "</div>\n</section>\n";
  if (traffic.load) out += load_table(*traffic.load);
  out += between_hosts(router);
  constexpr std::size_t kMostTemplates = 64;
  for (std::size_t i = 0; i < std::min(topology.templates.size(), kMostTemplates); ++i)
    if (hosts_of(topology, i) > 0) out += matrices(router, i);
  if (topology.templates.size() > kMostTemplates)
    out += fmt::format("<p class=\"note\">{} kinds of hosts more: topomoe topo show --format json</p>\n",
                       topology.templates.size() - kMostTemplates);
  if (!topology.warnings.empty()) {
    out += "<section>\n<h2>Assumed or unknown</h2>\n<ul class=\"note\">\n";
    for (const std::string& line : topology.warnings) out += "<li>" + xml_escaped(line) + "</li>\n";
    out += "</ul>\n</section>\n";
  }
  return out + "</body>\n</html>\n";
}

}  // namespace topomoe
