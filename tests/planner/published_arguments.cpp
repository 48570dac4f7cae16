#include "tests/planner/published_arguments.hpp"

#include <algorithm>
#include <regex>
#include <sstream>

namespace topomoe::test {
namespace {

enum class Type { flag, integer, real, word, choice, choices };
struct Argument {
  const char* name;
  Type type;
  std::vector<std::string> choices;
};

const std::vector<Argument>& megatron() {
  static const std::vector<Argument> table{
      {"tensor-model-parallel-size", Type::integer, {}},
      {"pipeline-model-parallel-size", Type::integer, {}},
      {"pipeline-model-parallel-layout", Type::word, {}},
      {"num-layers-per-virtual-pipeline-stage", Type::integer, {}},
      {"num-virtual-stages-per-pipeline-rank", Type::integer, {}},
      {"context-parallel-size", Type::integer, {}},
      {"expert-model-parallel-size", Type::integer, {}},
      {"expert-tensor-parallel-size", Type::integer, {}},
      {"sequence-parallel", Type::flag, {}},
      {"use-distributed-optimizer", Type::flag, {}},
      {"overlap-grad-reduce", Type::flag, {}},
      {"overlap-param-gather", Type::flag, {}},
      {"ddp-bucket-size", Type::integer, {}},
      {"micro-batch-size", Type::integer, {}},
      {"global-batch-size", Type::integer, {}},
      {"bf16", Type::flag, {}},
      {"recompute-granularity", Type::choice, {"full", "selective"}},
      {"recompute-method", Type::choice, {"uniform", "block"}},
      {"recompute-num-layers", Type::integer, {}},
      {"recompute-modules",
       Type::choices,
       {"core_attn", "moe_act", "layernorm", "mla_up_proj", "mlp", "moe", "shared_experts"}},
      {"num-layers", Type::integer, {}},
      {"hidden-size", Type::integer, {}},
      {"ffn-hidden-size", Type::integer, {}},
      {"num-attention-heads", Type::integer, {}},
      {"kv-channels", Type::integer, {}},
      {"group-query-attention", Type::flag, {}},
      {"num-query-groups", Type::integer, {}},
      {"multi-latent-attention", Type::flag, {}},
      {"q-lora-rank", Type::integer, {}},
      {"kv-lora-rank", Type::integer, {}},
      {"qk-head-dim", Type::integer, {}},
      {"qk-pos-emb-head-dim", Type::integer, {}},
      {"v-head-dim", Type::integer, {}},
      {"vocab-size", Type::integer, {}},
      {"swiglu", Type::flag, {}},
      {"untie-embeddings-and-output-weights", Type::flag, {}},
      {"mtp-num-layers", Type::integer, {}},
      {"seq-length", Type::integer, {}},
      {"max-position-embeddings", Type::integer, {}},
      {"num-experts", Type::integer, {}},
      {"moe-ffn-hidden-size", Type::integer, {}},
      {"moe-layer-freq", Type::word, {}},
      {"moe-shared-expert-intermediate-size", Type::integer, {}},
      {"moe-router-topk", Type::integer, {}},
      {"moe-router-score-function", Type::choice, {"softmax", "sigmoid", "sqrtsoftplus"}},
      {"moe-router-pre-softmax", Type::flag, {}},
      {"moe-router-num-groups", Type::integer, {}},
      {"moe-router-group-topk", Type::integer, {}},
      {"moe-router-dtype", Type::choice, {"fp32", "fp64"}},
      {"moe-token-dispatcher-type", Type::choice, {"allgather", "alltoall", "flex"}},
      {"moe-flex-dispatcher-backend", Type::choice, {"deepep", "hybridep", "ncclep"}},
      {"moe-grouped-gemm", Type::flag, {}},
      {"moe-permute-fusion", Type::flag, {}},
      {"moe-expert-capacity-factor", Type::real, {}},
      {"moe-token-drop-policy", Type::choice, {"probs", "position"}},
      {"overlap-moe-expert-parallel-comm", Type::flag, {}},
  };
  return table;
}

bool fits(const Argument& argument, const std::string& value) {
  static const std::regex integer("[0-9]{1,9}"), real("[0-9]*\\.?[0-9]+(e[-+]?[0-9]+)?");
  if (argument.type == Type::integer) return std::regex_match(value, integer);
  if (argument.type == Type::real) return std::regex_match(value, real);
  if (argument.type == Type::word) return !value.empty();
  return std::find(argument.choices.begin(), argument.choices.end(), value) != argument.choices.end();
}

// argparse, as far as it matters: unknown names, missing or superfluous values, wrong types and choices.
Parsed parse(const std::vector<Argument>& table, const std::vector<std::string>& words) {
  Parsed out;
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::string name = words[i].substr(0, 2) == "--" ? words[i].substr(2) : "";
    const auto known = std::find_if(table.begin(), table.end(), [&](const Argument& a) { return a.name == name; });
    if (name.empty() || known == table.end()) {
      out.wrong.push_back("unrecognized: " + words[i]);
      continue;
    }
    if (out.has(name)) out.wrong.push_back("given twice: " + name);
    auto& values = out.values[name];
    const std::size_t most = known->type == Type::flag ? 0 : known->type == Type::choices ? 99 : 1;
    while (values.size() < most && i + 1 < words.size() && words[i + 1].substr(0, 2) != "--")
      values.push_back(words[++i]);
    if (known->type != Type::flag && values.empty()) out.wrong.push_back("expected a value: " + name);
    for (const std::string& value : values)
      if (!fits(*known, value)) out.wrong.push_back("invalid: " + name + " " + value);
  }
  return out;
}

}  // namespace

int Parsed::integer(const std::string& name, int otherwise) const {
  return has(name) && !values.at(name).empty() ? std::stoi(values.at(name)[0]) : otherwise;
}
std::string Parsed::text(const std::string& name) const {
  return has(name) && !values.at(name).empty() ? values.at(name)[0] : "";
}

std::vector<std::string> bash_array(const std::string& script, const std::string& name) {
  std::vector<std::string> words;
  const auto begin = script.find(name + "=(\n");
  if (begin == std::string::npos) return words;
  std::istringstream lines(script.substr(begin + name.size() + 3));
  for (std::string line; std::getline(lines, line) && line != ")";) {
    std::string word;
    bool quoted = false, any = false;
    for (const char c : line) {
      if (c == '\'') {
        quoted = !quoted, any = true;
      } else if (c == ' ' && !quoted) {
        if (any) words.push_back(word);
        word.clear(), any = false;
      } else if (c == '#' && !quoted && !any) {
        break;
      } else {
        word += c, any = true;
      }
    }
    if (any) words.push_back(word);
  }
  return words;
}

std::vector<int> decoder_layers_of(const std::string& layout, std::vector<std::string>& wrong) {
  std::string flat;  // x*n -> n times x; commas are cosmetic
  for (std::size_t i = 0; i < layout.size(); ++i) {
    if (layout[i] == ',') continue;
    std::size_t digits = i + 2;
    while (i + 1 < layout.size() && layout[i + 1] == '*' && digits < layout.size() && std::isdigit(layout[digits]))
      ++digits;
    if (digits == i + 2) {
      flat += layout[i];
    } else {
      flat += std::string(static_cast<std::size_t>(std::stoi(layout.substr(i + 2, digits - i - 2))), layout[i]);
      i = digits - 1;
    }
  }
  if (flat.find_first_not_of("EtmL|") != std::string::npos) wrong.push_back("layout: invalid character in " + layout);
  if (flat.empty() || flat.front() != 'E' || flat.back() != 'L') wrong.push_back("layout: from E to L: " + layout);
  if (const auto mtp = flat.find('m'); mtp != std::string::npos) {
    if (flat.find('t', mtp) != std::string::npos) wrong.push_back("layout: decoder layers before MTP layers");
    if (flat.find('|', mtp) < flat.rfind('m')) wrong.push_back("layout: MTP layers in one stage");
  }
  std::vector<int> stages(1, 0);
  for (const char c : flat) {
    if (c == '|') stages.push_back(0);
    if (c == 't') ++stages.back();
  }
  return stages;
}

std::vector<int> layer_frequency(const std::string& pattern, std::vector<std::string>& wrong) {
  static const std::regex whole("\\(?\\[[01]\\]\\*[0-9]+(\\+\\[[01]\\]\\*[0-9]+)*\\)?"),
      term("\\[([01])\\]\\*([0-9]+)");
  std::vector<int> layers;
  if (!std::regex_match(pattern, whole)) wrong.push_back("moe-layer-freq: " + pattern);
  for (std::sregex_iterator it(pattern.begin(), pattern.end(), term), end; it != end; ++it)
    layers.insert(layers.end(), static_cast<std::size_t>(std::stoi((*it)[2])), std::stoi((*it)[1]));
  return layers;
}

Parsed parse_megatron(const std::vector<std::string>& words, int world, const std::string& environment) {
  Parsed p = parse(megatron(), words);
  const auto expect = [&](bool holds, const std::string& what) {
    if (!holds) p.wrong.push_back("assertion: " + what);
  };
  for (const char* name : {"num-layers", "hidden-size", "num-attention-heads", "max-position-embeddings", "seq-length",
                           "micro-batch-size", "global-batch-size"})
    expect(p.has(name), std::string(name) + " is required");
  const int tp = p.integer("tensor-model-parallel-size", 1), cp = p.integer("context-parallel-size", 1),
            pp = p.integer("pipeline-model-parallel-size", 1), ep = p.integer("expert-model-parallel-size", 1),
            etp = p.integer("expert-tensor-parallel-size", tp);
  expect(world % (tp * cp * pp) == 0, "world is a multiple of TP x CP x PP");
  expect(world % (etp * ep * pp) == 0, "world is a multiple of ETP x EP x PP");
  const int dp = world / (tp * cp * pp), micro = p.integer("micro-batch-size"), global = p.integer("global-batch-size");
  expect(micro > 0 && global % (micro * dp) == 0, "global batch is a multiple of micro batch x DP");
  const int interleavings = p.has("num-layers-per-virtual-pipeline-stage") +
                            p.has("num-virtual-stages-per-pipeline-rank") + p.has("pipeline-model-parallel-layout");
  expect(interleavings <= 1, "one of the three ways to say the stages");
  int vpp = p.integer("num-virtual-stages-per-pipeline-rank", 1);
  if (p.has("pipeline-model-parallel-layout")) {
    const auto stages = decoder_layers_of(p.text("pipeline-model-parallel-layout"), p.wrong);
    expect(static_cast<int>(stages.size()) % pp == 0, "stages of the layout are a multiple of PP");
    vpp = static_cast<int>(stages.size()) / pp;
    int layers = 0;
    for (const int n : stages) layers += n;
    expect(layers == p.integer("num-layers"), "the layout has all decoder layers");
    const std::string layout = p.text("pipeline-model-parallel-layout");
    expect((layout.find('m') != std::string::npos) == p.has("mtp-num-layers"), "the layout has the MTP layers");
  } else {
    expect(p.integer("num-layers") % (pp * vpp) == 0, "layers are a multiple of PP x VPP");
  }
  expect(vpp == 1 || pp > 1, "interleaving needs PP > 1");
  expect(vpp == 1 || global / (micro * dp) % pp == 0, "micro-batches are a multiple of PP where interleaved");
  expect(!p.has("overlap-param-gather") || (p.has("use-distributed-optimizer") && p.has("overlap-grad-reduce")),
         "overlap-param-gather needs the distributed optimizer and overlap-grad-reduce");
  expect(p.text("recompute-granularity") != "selective" || !p.has("recompute-method"), "no method where selective");
  expect(p.text("recompute-granularity") != "full" || p.has("recompute-method"), "a method where full");
  expect(!p.has("recompute-modules") || p.text("recompute-granularity") == "selective", "modules where selective");
  expect(cp == 1 || p.integer("seq-length") % (2 * cp) == 0, "sequence is a multiple of 2 x CP");
  expect(p.integer("max-position-embeddings") >= p.integer("seq-length"), "positions cover the sequence");
  expect(!p.has("moe-grouped-gemm") || p.has("bf16"), "grouped GEMM is bf16");
  expect(p.integer("num-attention-heads") % tp == 0, "heads are a multiple of TP");
  expect(p.integer("num-query-groups", p.integer("num-attention-heads")) % tp == 0, "KV heads are a multiple of TP");
  expect(p.integer("num-experts") % ep == 0, "experts are a multiple of EP");
  expect(tp == 1 || p.has("sequence-parallel"), "sequence parallelism with MoE and TP");
  expect(tp > 1 || !p.has("sequence-parallel"), "no sequence parallelism without TP");
  expect((tp == 1 && cp == 1) || environment.find("export CUDA_DEVICE_MAX_CONNECTIONS=1\n") != std::string::npos,
         "CUDA_DEVICE_MAX_CONNECTIONS=1 with TP or CP");
  expect(!p.has("overlap-moe-expert-parallel-comm") || environment.find("CONNECTIONS=1\n") == std::string::npos,
         "CUDA_DEVICE_MAX_CONNECTIONS above 1 with overlap-moe-expert-parallel-comm");
  expect((p.text("moe-token-dispatcher-type") == "flex") == p.has("moe-flex-dispatcher-backend"),
         "a backend with the flex dispatcher");
  expect(p.text("moe-flex-dispatcher-backend") != "deepep" || p.text("moe-router-dtype") == "fp32",
         "DeepEP takes fp32 weights");
  expect(p.integer("moe-router-topk", 2) > 1 || p.text("moe-router-score-function") != "softmax" ||
             p.has("moe-router-pre-softmax"),
         "softmax before the choice where k is 1");
  expect(p.has("moe-router-num-groups") == p.has("moe-router-group-topk"), "groups and chosen groups together");
  if (p.has("moe-layer-freq"))
    expect(static_cast<int>(layer_frequency(p.text("moe-layer-freq"), p.wrong).size()) == p.integer("num-layers"),
           "moe-layer-freq has one entry a layer");
  return p;
}

Parsed parse_torchrun(const std::vector<std::string>& words) {
  static const std::vector<Argument> table{
      {"nnodes", Type::integer, {}},       {"nproc-per-node", Type::integer, {}},
      {"node-rank", Type::word, {}},       {"rdzv-backend", Type::choice, {"static", "c10d", "etcd", "etcd-v2"}},
      {"master-addr", Type::word, {}},     {"master-port", Type::integer, {}},
      {"max-restarts", Type::integer, {}},
  };
  std::vector<std::string> split;  // --name=value
  for (const std::string& word : words) {
    const auto equals = word.find('=');
    split.push_back(word.substr(0, equals));
    if (equals != std::string::npos) split.push_back(word.substr(equals + 1));
  }
  return parse(table, split);
}

std::vector<std::string> parse_hostlist(const std::string& text) {
  static const std::regex element("([^,\\[]+)(\\[([^\\]]*)\\])?(,|$)"), range("([0-9]+)(-([0-9]+))?(,|$)");
  std::vector<std::string> names;
  for (std::sregex_iterator it(text.begin(), text.end(), element), end; it != end; ++it) {
    const std::string head = (*it)[1], ranges = (*it)[3];
    if (!(*it)[2].matched) names.push_back(head);
    for (std::sregex_iterator r(ranges.begin(), ranges.end(), range); r != end; ++r) {
      const std::string low = (*r)[1], high = (*r)[3].matched ? (*r)[3] : (*r)[1];
      for (int i = std::stoi(low); i <= std::stoi(high); ++i) {
        std::string digits = std::to_string(i);
        if (digits.size() < low.size()) digits.insert(0, low.size() - digits.size(), '0');
        names.push_back(head + digits);
      }
    }
  }
  return names;
}

}  // namespace topomoe::test
