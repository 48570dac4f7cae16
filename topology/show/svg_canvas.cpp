#include "topology/show/svg_canvas.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace topomoe {
namespace {

// Bytes of the UTF-8 character that starts here; 0: none does.
std::size_t character(const std::string& text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(at);
  const std::size_t length = first < 0x80                    ? 1
                             : first >= 0xc2 && first < 0xe0 ? 2
                             : first >= 0xe0 && first < 0xf0 ? 3
                             : first >= 0xf0 && first < 0xf5 ? 4
                                                             : 0;
  if (length == 0 || at + length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if (byte(at + i) < 0x80 || byte(at + i) > 0xbf) return 0;
  // Overlong forms, surrogates and what lies beyond Unicode.
  if (length == 3 && ((first == 0xe0 && byte(at + 1) < 0xa0) || (first == 0xed && byte(at + 1) > 0x9f))) return 0;
  if (length == 4 && ((first == 0xf0 && byte(at + 1) < 0x90) || (first == 0xf4 && byte(at + 1) > 0x8f))) return 0;
  return length;
}

double text_width(const std::string& words, double size) { return 0.56 * size * static_cast<double>(words.size()); }

struct Colours {
  const char *name, *light, *dark;
};
// Loads from grey over blue and amber to red: told apart with the common kinds of colour blindness by lightness too.
constexpr std::array<Colours, 7> kLines{{{"plain", "#6b7075", "#9aa0a6"},
                                         {"l0", "#b4b8bc", "#5c6166"},
                                         {"l1", "#7fb2e5", "#3f74a8"},
                                         {"l2", "#2f78c4", "#5fa8ee"},
                                         {"l3", "#e0a100", "#d9a51f"},
                                         {"l4", "#e8731a", "#f08a3c"},
                                         {"l5", "#c81e1e", "#ff5a52"}}};
struct Fill {
  const char *name, *light, *light_edge, *dark, *dark_edge;
};
constexpr std::array<Fill, 8> kFills{{{"page", "#fcfcfb", "none", "#161615", "none"},
                                      {"frame", "#ffffff", "#a9aba8", "#1f1f1d", "#5a5c59"},
                                      {"part", "#f4f4f2", "#c9cac7", "#282826", "#454643"},
                                      {"cpu", "#ece4f4", "#9a7fb8", "#37304a", "#8f7cb5"},
                                      {"pci", "#fbf3da", "#c9a43c", "#3d3620", "#a98d3f"},
                                      {"gpu", "#e4f2e3", "#4f9a54", "#21391f", "#5aa35d"},
                                      {"net", "#e2eefa", "#3f7fbf", "#1d3145", "#5c97d0"},
                                      {"plane", "#cfe8d0", "#3c8a45", "#25492a", "#59ad62"}}};

}  // namespace

std::string xml_escaped(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = character(text, i);
    const char c = text[i];
    if (length == 0)
      out += '?';
    else if (length > 1)
      out += text.substr(i, length);
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else if (c == '"')
      out += "&quot;";
    else if (static_cast<unsigned char>(c) >= 0x20)
      out += c;
    i += std::max<std::size_t>(length, 1);
  }
  return out;
}

const char* load_class(double share) {
  if (share < 0) return kLines[0].name;
  // The last bits of sums apart, what takes as long as the slowest is the slowest.
  const std::size_t step = share <= 0 ? 0 : share > 1 - 1e-6 ? 5 : static_cast<std::size_t>(std::ceil(share * 4));
  return kLines[1 + std::min<std::size_t>(step, 5)].name;
}

// Doubling a rate adds as much each time: 25 GB/s 2.7, 450 GB/s 6.7 points.
double line_width(double GBps) { return std::clamp(1 + 1.1 * std::log2(1 + GBps / 12.5), 1.0, 10.0); }

std::string canvas_style(const std::string& scope) {
  const auto rules = [&](bool dark) {
    std::string out;
    for (const Fill& own : kFills)
      out += fmt::format("{}.{}{{fill:{};stroke:{}}}\n", scope, own.name, dark ? own.dark : own.light,
                         dark ? own.dark_edge : own.light_edge);
    for (const Colours& own : kLines)
      out += fmt::format("{0}.{1}{{stroke:{2}}}{0}.key.{1}{{fill:{2};stroke:none}}\n", scope, own.name,
                         dark ? own.dark : own.light);
    out += fmt::format("{0}.ink{{fill:{1}}}{0}.soft{{fill:{2}}}{0}.rate{{fill:{1};stroke:{3}}}\n", scope,
                       dark ? "#efeeea" : "#1b1b19", dark ? "#a9a79f" : "#5f5e58", dark ? "#1f1f1d" : "#ffffff");
    return out;
  };
  return fmt::format("{}.wire{{fill:none}}{}.rate{{paint-order:stroke;stroke-width:3px;stroke-linejoin:round}}\n",
                     scope, scope) +
         rules(false) + "@media (prefers-color-scheme: dark){\n" + rules(true) + "}\n";
}

namespace {
std::string tip_element(const std::string& tip) { return tip.empty() ? "" : "<title>" + xml_escaped(tip) + "</title>"; }
}  // namespace

void Canvas::grow(double x, double y) {
  width_ = std::max(width_, x);
  height_ = std::max(height_, y);
}

void Canvas::box(Layer layer, double x, double y, double w, double h, const std::string& klass, double radius) {
  on(layer) += fmt::format(R"(<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="{}"/>)"
                           "\n",
                           klass, x, y, w, h, radius);
  grow(x + w, y + h);
}

void Canvas::text(double x, double y, const std::string& words, double size, const std::string& anchor,
                  const std::string& klass) {
  words_ += fmt::format(R"(<text class="{}" x="{:.1f}" y="{:.1f}" font-size="{}" text-anchor="{}">{}</text>)"
                        "\n",
                        klass, x, y, size, anchor, xml_escaped(words));
  const double length = text_width(words, size);
  grow(anchor == "start" ? x + length : anchor == "end" ? x : x + length / 2, y + 4);
}

void Canvas::labelled_box(Layer layer, double x, double y, double w, double h, const std::string& klass,
                          const std::string& words, const std::string& below) {
  box(layer, x, y, w, h, klass);
  const auto fitted = [&](const std::string& own, double at, double size, const char* ink) {
    double fits = std::min(size, size * (w - 6) / std::max(text_width(own, size), 1.0));
    std::string cut = own;
    if (fits < 8) {
      fits = 8;
      const auto most = static_cast<std::size_t>(std::max((w - 6) / (0.56 * fits), 3.0));
      if (cut.size() > most) cut = cut.substr(0, most - 2) + "..";
    }
    text(x + w / 2, at, cut, std::floor(fits * 10) / 10, "middle", ink);
  };
  fitted(words, below.empty() ? y + h / 2 + 4 : y + h / 2 - 2, 11, "ink");
  if (!below.empty()) fitted(below, y + h / 2 + 11, 9.5, "soft");
}

void Canvas::line(double x1, double y1, double x2, double y2, const Stroke& stroke) {
  lines_ += fmt::format(
      R"(<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke-width="{:.1f}"{}>{}</line>)"
      "\n",
      load_class(stroke.share), x1, y1, x2, y2, line_width(stroke.GBps),
      stroke.dashed ? R"( stroke-dasharray="4 4")" : "", tip_element(stroke.tip));
  grow(std::max(x1, x2), std::max(y1, y2));
}

void Canvas::arc(double x1, double x2, double y, double depth, const Stroke& stroke) {
  lines_ += fmt::format(
      R"(<path class="wire {}" d="M {:.1f} {:.1f} Q {:.1f} {:.1f} {:.1f} {:.1f}" stroke-width="{:.1f}">{}</path>)"
      "\n",
      load_class(stroke.share), x1, y, (x1 + x2) / 2, y + 2 * depth, x2, y, line_width(stroke.GBps),
      tip_element(stroke.tip));
  grow(std::max(x1, x2), y + depth + 6);
}

std::string Canvas::finish(const std::string& title) const {
  return fmt::format(
      R"(<svg xmlns="http://www.w3.org/2000/svg" class="topology" width="{0:.0f}" height="{1:.0f}" viewBox="0 0 {0:.0f} {1:.0f}" font-family="Helvetica, Arial, sans-serif">)"
      "\n<title>{2}</title>\n<style>\n{3}</style>\n"
      R"(<rect class="page" width="100%" height="100%"/>)"
      "\n{4}{5}{6}{7}{8}</svg>\n",
      width_ + 24, height_ + 24, xml_escaped(title), canvas_style("svg.topology "), back_, frames_, lines_, boxes_,
      words_);
}

}  // namespace topomoe
