// The page of `topomoe whatif --html` in a browser: it clicks through itself (#self-test), and what its panels show is
// held against the JSON. Only what the document holds is compared, never what the page's script computed from it.

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "tests/cli/command.hpp"

namespace topomoe::testing {
namespace {

using nlohmann::json;

// The number that a text begins with is `value`, to half of its last digit.
::testing::AssertionResult shows(const std::string& text, double value) {
  const std::string digits = text.substr(0, text.find_first_not_of("0123456789."));
  const auto dot = digits.find('.');
  const double last = dot == std::string::npos ? 1 : std::pow(10.0, -static_cast<double>(digits.size() - dot - 1));
  if (!digits.empty() && std::abs(std::stod(digits) - value) <= 0.5001 * last) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << '"' << text << "\" for " << value;
}

// "22.0 MB"
::testing::AssertionResult shows_bytes(const std::string& text, double value) {
  const std::map<std::string, double> units{{"B", 1}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}};
  return shows(text, value / units.at(text.substr(text.find(' ') + 1)));
}

std::string unescaped(std::string text) {
  for (const auto& [entity, letter] : {std::pair{"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}, {"&amp;", "&"}})
    for (std::size_t at = 0; (at = text.find(entity, at)) != std::string::npos; ++at)
      text.replace(at, std::string(entity).size(), letter);
  return text;
}

struct WhatIfPage : Command {
  void SetUp() override {
    Command::SetUp();
    if (shell("command -v chromium").code != 0) GTEST_SKIP() << "chromium is not installed (Debian: chromium)";
  }
  // Writes sweep.json and page.html, and returns what the page says of itself.
  json self_test(const std::string& arguments) {
    const Said said = topomoe("whatif " + arguments + " --html page.html -o sweep.json");
    EXPECT_EQ(said.code, 0) << said.err;
    all = json::parse(read("sweep.json"));
    // No sandbox: tests run as root. No network: what the page needs is in it.
    const Said dom = shell(
        "timeout 120 chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir=profile "
        "--proxy-server=127.0.0.1:1 --window-size=1400,1800 --virtual-time-budget=10000 --dump-dom "
        "\"file://$PWD/page.html#self-test\"");
    const std::string open = "<pre id=\"self-test\">";
    const auto begin = dom.out.find(open), end = dom.out.find("</pre>", begin);
    if (begin == std::string::npos || end == std::string::npos) {
      ADD_FAILURE() << "no self-test in the page: " << dom.err.substr(0, 2000);
      return {};
    }
    return json::parse(unescaped(dom.out.substr(begin + open.size(), end - begin - open.size())));
  }
  const json& point(std::size_t i) const { return all.at("points")[i]; }
  bool planned(std::size_t i) const { return point(i).at("status") == "planned"; }
  std::string why(std::size_t i) const {
    return point(i).at("status").get<std::string>() + ": " + point(i).at("reason").get<std::string>();
  }
  json all;
};

void expect_row(const json& cells, const json& point, const json& axes) {
  std::size_t c = 0;
  EXPECT_EQ(cells[c++], std::to_string(point.at("index").get<int>()));
  for (const json& axis : axes) {
    if (axis.at("values").size() < 2) continue;
    const json& value = point.at("settings").at(axis.at("key").get<std::string>());
    EXPECT_EQ(cells[c++], value.is_string() ? value.get<std::string>() : value.dump());
  }
  if (point.at("status") != "planned") {
    EXPECT_EQ(cells[c], point.at("status").get<std::string>() + ": " + point.at("reason").get<std::string>());
    EXPECT_EQ(cells.size(), c + 1);
    return;
  }
  for (const char* key : {"step_ms", "low_ms", "high_ms", "model_TFLOPps_per_gpu"})
    EXPECT_TRUE(shows(cells[c++], point.at(key))) << key;
  EXPECT_TRUE(shows(cells[c++], 1e6 * point.at("gpu_seconds_per_token").get<double>()));
  EXPECT_TRUE(shows(cells[c++], point.at("memory_GiB")));
  EXPECT_EQ(cells[c++], point.at("bottleneck"));
  EXPECT_EQ(cells[c++], point.at("layout").get<std::string>() + " | " + point.at("algorithm").get<std::string>());
  EXPECT_EQ(cells.size(), c);
}

void expect_tiles(const json& shown, const json& point) {
  const json& tiles = shown.at("tiles");
  ASSERT_EQ(tiles.size(), 6U);
  EXPECT_TRUE(shows(tiles[0], point.at("step_ms")));
  EXPECT_TRUE(shows(tiles[1], point.at("model_TFLOPps_per_gpu")));
  EXPECT_TRUE(shows(tiles[2], 1e6 * point.at("gpu_seconds_per_token").get<double>()));
  EXPECT_TRUE(shows(tiles[3], point.at("memory_GiB")));
  EXPECT_EQ(tiles[4], point.at("layout"));
  EXPECT_EQ(tiles[5], point.at("bottleneck"));
  EXPECT_TRUE(shows(shown.at("more")[0], point.at("low_ms")));
  EXPECT_TRUE(shows(shown.at("more")[2], 1e6 * point.at("gpu_seconds_per_token_low").get<double>()));
  EXPECT_EQ(shown.at("more")[4], point.at("algorithm"));
  std::size_t i = 0;
  for (const char* key : {"moe_ms", "attention_ms", "bubble_ms", "gradients_ms", "other_ms"})
    EXPECT_TRUE(shows(shown.at("parts")[i++], point.at("time").at(key))) << key;
}

// Bars stand where steps do: x = left + k begin, with the same left and k in all passes.
void expect_timeline(const json& shown, const json& point) {
  std::vector<json> passes{point.at("forward")};
  if (point.contains("backward")) passes.push_back(point.at("backward"));
  ASSERT_EQ(shown.size(), passes.size());
  const auto bar_of = [&](std::size_t pass, const json& step) {
    for (const json& bar : shown[pass])
      if (bar.at("name") == step.at("name") && bar.at("lane") == step.at("lane")) return bar;
    ADD_FAILURE() << "no bar for " << step;
    return json{{"x", 0}, {"width", 0}};
  };
  const json &first = passes[0].at("steps").front(), &last = passes[0].at("steps").back();
  const double x0 = bar_of(0, first).at("x"), b0 = first.at("begin_us"), b1 = last.at("begin_us");
  const double k = (bar_of(0, last).at("x").get<double>() - x0) / (b1 - b0);
  EXPECT_GT(k, 0);
  for (std::size_t pass = 0; pass < passes.size(); ++pass) {
    EXPECT_EQ(shown[pass].size(), passes[pass].at("steps").size());
    for (const json& step : passes[pass].at("steps")) {
      const json bar = bar_of(pass, step);
      const double begin = step.at("begin_us"), end = step.at("end_us");
      EXPECT_NEAR(bar.at("x").get<double>(), x0 + k * (begin - b0), 0.01) << step;
      EXPECT_NEAR(bar.at("width").get<double>(), std::max(1.0, k * (end - begin) - 0.75), 0.01) << step;
    }
  }
}

void expect_heat(const json& shown, const json& point) {
  double layer_us = point.at("forward").at("time_us");
  if (point.contains("backward")) layer_us += point.at("backward").at("time_us").get<double>();
  for (const json& load : point.at("loads")) {
    bool found = false;
    for (const json& cell : shown) {
      if (cell.at("link_class") != load.at("link_class")) continue;
      found = true;
      const double busy = load.at("busy_us");
      EXPECT_NEAR(cell.at("busy").get<double>(), busy / layer_us, 1e-4);
      EXPECT_EQ(cell.at("own")[0], load.at("link"));
      EXPECT_TRUE(shows(cell.at("own")[1], load.at("GBps_per_direction")));
      EXPECT_TRUE(shows_bytes(cell.at("own")[2], load.at("bytes")));
      EXPECT_TRUE(shows(cell.at("own")[3], busy));
    }
    EXPECT_TRUE(found) << load;
  }
}

void expect_memory(const json& shown, const json& point) {
  const json& buckets = point.at("memory_by_bucket_GiB");
  EXPECT_EQ(shown.at("memory").size(), buckets.size());
  double width = 0, total_GiB = point.at("memory_GiB");
  for (const json& bar : shown.at("memory")) width += bar.at("width").get<double>();
  for (const json& bar : shown.at("memory"))
    EXPECT_NEAR(bar.at("width").get<double>() / width,
                buckets.at(bar.at("name").get<std::string>()).get<double>() / total_GiB, 1e-6);
  double legend_GiB = 0;
  for (const json& text : shown.at("buckets")) legend_GiB += std::stod(text.get<std::string>());
  EXPECT_NEAR(legend_GiB, total_GiB, 0.05 * static_cast<double>(buckets.size()));
}

// Marks stand where the axis says: two of its ticks give the scale.
void expect_curve(const json& curve, const json& all, double (*metric)(const json&)) {
  const auto scale = [&](double v) { return curve.at("logarithmic").get<bool>() ? std::log(v) : v; };
  ASSERT_GE(curve.at("ticks").size(), 2U);
  const json &low = curve.at("ticks").front(), &high = curve.at("ticks").back();
  const double y0 = low.at("y"), v0 = scale(low.at("value"));
  const double k = (high.at("y").get<double>() - y0) / (scale(high.at("value")) - v0);
  EXPECT_LT(k, 0) << "more is higher";
  EXPECT_GT(curve.at("bands"), 0);
  EXPECT_EQ(curve.at("marks").size(), all.at("points").size());
  for (const json& mark : curve.at("marks")) {
    const json& point = all.at("points")[mark.at("point").get<std::size_t>()];
    if (point.at("status") != "planned") continue;
    EXPECT_NEAR(mark.at("y").get<double>(), y0 + k * (scale(metric(point)) - v0), 0.01) << point.at("settings");
  }
}

void expect_page(const json& page, const json& all) {
  EXPECT_EQ(page.at("question"), all.at("question"));
  ASSERT_EQ(page.at("changes").size(), all.at("changes").size());
  for (std::size_t i = 0; i < all.at("changes").size(); ++i)
    EXPECT_EQ(page.at("changes")[i], all.at("changes")[i].at("text"));
  ASSERT_EQ(page.at("rows").size(), all.at("points").size());
  ASSERT_EQ(page.at("points").size(), all.at("points").size());
  for (std::size_t i = 0; i < all.at("points").size(); ++i) {
    const json &point = all.at("points")[i], &shown = page.at("points")[i];
    SCOPED_TRACE(point.at("settings").dump());
    expect_row(page.at("rows")[i], point, all.at("axes"));
    EXPECT_EQ(shown.at("chosen_rows"), json({std::to_string(i)}));
    if (point.at("status") != "planned") {
      EXPECT_EQ(shown.at("reason"),
                json({point.at("status").get<std::string>() + ": " + point.at("reason").get<std::string>()}));
      EXPECT_TRUE(shown.at("tiles").empty() && shown.at("passes").empty() && shown.at("memory").empty());
      continue;
    }
    expect_tiles(shown, point);
    expect_timeline(shown.at("passes"), point);
    expect_heat(shown.at("heat"), point);
    expect_memory(shown, point);
  }
  expect_curve(page.at("curves").at("step_ms"), all, [](const json& p) { return p.at("step_ms").get<double>(); });
  expect_curve(page.at("curves").at("tflops"), all,
               [](const json& p) { return p.at("model_TFLOPps_per_gpu").get<double>(); });
  expect_curve(page.at("curves").at("gpu_seconds"), all,
               [](const json& p) { return 1e6 * p.at("gpu_seconds_per_token").get<double>(); });
  EXPECT_EQ(page.at("by_curve").size(), all.at("points").size());
  EXPECT_FALSE(page.at("by_heat").empty());
  for (const char* panel : {"by_curve", "by_heat"})
    for (const json& click : page.at(panel)) {
      const std::size_t i = click.at("clicked");
      EXPECT_EQ(click.at("chosen"), json({std::to_string(i)})) << panel;
      if (all.at("points")[i].at("status") != "planned") continue;
      EXPECT_TRUE(shows(click.at("tiles")[0], all.at("points")[i].at("step_ms"))) << panel;
    }
  EXPECT_NE(page.at("themes")[0], page.at("themes")[1]) << "light and dark";
}

// Two axes, points without a plan, and a cluster whose name means something to HTML.
TEST_F(WhatIfPage, ShowsTheJson) {
  const std::string hostile = "a</script><!--<b>&amp;";
  json cluster = json::parse(shell("cat $clusters/h100-2x8.json").out);
  cluster["name"] = hostile;
  write("cluster.json", cluster.dump());
  const json page = self_test(
      "--cluster cluster.json --model $models/mixtral-8x7b.json --fix tp=1,pp=2,cp=1,ep=8 --set nic.GBps=12.5,50,200 "
      "--set hosts=1,2,4");
  ASSERT_FALSE(page.is_null());
  EXPECT_NE(page.at("question").get<std::string>().find(hostile), std::string::npos);
  EXPECT_FALSE(planned(0)) << "one host is too small";
  EXPECT_TRUE(planned(1));
  expect_page(page, all);
}

// Values in no order, a pass without a backward, edits.
TEST_F(WhatIfPage, ShowsTheJson_OfUnorderedAxes) {
  const json page = self_test(
      "--cluster $clusters/quickstart-2xh100.json --model $models/mixtral-8x7b.json --phase prefill "
      "--set split=sliced,replicated --degrade leaf0=0.5");
  ASSERT_FALSE(page.is_null());
  expect_page(page, all);
}

TEST_F(Command, WhatIfPage_NamesNoOtherPlace) {
  ASSERT_EQ(
      topomoe("whatif --cluster $clusters/quickstart-2xh100.json --model $models/mixtral-8x7b.json --html page.html")
          .code,
      0);
  std::string page = read("page.html");
  const std::string svg = "http://www.w3.org/2000/svg";  // a name, not an address
  for (std::size_t at; (at = page.find(svg)) != std::string::npos;) page.erase(at, svg.size());
  EXPECT_GT(page.size(), 10'000U);
  for (const char* word : {"http:", "https:", "src=", "href=", "@import", "url(", "fetch("})
    EXPECT_EQ(page.find(word), std::string::npos) << word;
}

}  // namespace
}  // namespace topomoe::testing
