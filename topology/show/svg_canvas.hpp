// What a drawing is made of: boxes, lines and words, in layers, with one style sheet for light and dark.
//
// A line's width says its rate and its colour how long its bytes take beside the slowest link's. Layers, back to front:
// frames, lines, boxes, words; so a cable that passes over a CPU's bar is seen, and none hides a name.
#pragma once

#include <string>

namespace topomoe {

std::string xml_escaped(const std::string& text);  // and what is no UTF-8 as "?"

// Share of the slowest link's time, 0 to 1; below 0: no load is drawn.
const char* load_class(double share);  // of the style sheet: "l0" .. "l5", "plain"
double line_width(double GBps);
// Rules for the classes that canvases use. `scope` begins each selector: "svg.topology ".
std::string canvas_style(const std::string& scope);

class Canvas {
 public:
  enum class Layer { back, frame, line, box };

  void box(Layer layer, double x, double y, double w, double h, const std::string& klass, double radius = 4);
  void text(double x, double y, const std::string& words, double size = 11, const std::string& anchor = "middle",
            const std::string& klass = "ink");
  // Words are made smaller, then cut, to fit; all of them stand in the tip.
  void labelled_box(Layer layer, double x, double y, double w, double h, const std::string& klass,
                    const std::string& words, const std::string& below = "");
  struct Stroke {
    double GBps = 0, share = -1;
    std::string tip;
    bool dashed = false;
  };
  void line(double x1, double y1, double x2, double y2, const Stroke& stroke);
  // From x1 to x2, hanging down from y by so much.
  void arc(double x1, double x2, double y, double depth, const Stroke& stroke);

  std::string finish(const std::string& title) const;

 private:
  std::string& on(Layer layer) {
    return layer == Layer::back ? back_ : layer == Layer::frame ? frames_ : layer == Layer::line ? lines_ : boxes_;
  }
  void grow(double x, double y);
  std::string back_, frames_, lines_, boxes_, words_;
  double width_ = 320, height_ = 60;
};

}  // namespace topomoe
