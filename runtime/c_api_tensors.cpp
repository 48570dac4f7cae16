// topomoe.h: weights and gradients, checked against the layer that they are of.
#include <string>
#include <utility>

#include "runtime/c_api.hpp"

namespace topomoe::c_api {
namespace {

// One block, or a pointer an expert.
template <class View, class Block, class Each>
View view_of(Block* block, Each each, std::size_t experts, const std::string& name) {
  if (each == nullptr) return View(block);
  if (block != nullptr) throw InvalidInput(name, "given twice", "one block, or a pointer an expert");
  for (std::size_t e = 0; e < experts; ++e)
    if (each[e] == nullptr)
      throw InvalidInput(name + "s[" + std::to_string(e) + "]", "null",
                         "a pointer for each of the " + std::to_string(experts) + " local experts");
  return View::one_by_one(each);
}

// What weights and gradients have alike. What would be ignored is refused: the caller means another layer.
template <class Tensors, class Given>
Tensors tensors_from(const Layer& layer, const Given& t, const std::string& name) {
  using Experts = decltype(Tensors::gate);
  Tensors out;
  out.router = t.router, out.mix = t.mix;
  out.gate = view_of<Experts>(t.gate, t.gates, layer.local_experts, name + ".gate");
  out.up = view_of<Experts>(t.up, t.ups, layer.local_experts, name + ".up");
  out.down = view_of<Experts>(t.down, t.downs, layer.local_experts, name + ".down");
  out.shared_gate = t.shared_gate, out.shared_up = t.shared_up, out.shared_down = t.shared_down;
  if (layer.shape.shared_ffn == 0 && (t.shared_gate != nullptr || t.shared_up != nullptr || t.shared_down != nullptr))
    throw InvalidInput(name + ".shared_gate, shared_up, shared_down", "given", "the plan has no shared expert");
  if (layer.shape.shared_gate == SharedGate::none && t.mix != nullptr)
    throw InvalidInput(name + ".mix", "given", "the plan has no shared expert with a gate");
  if (!layer.shape.gated && (out.gate || out.shared_gate != nullptr))
    throw InvalidInput(name + ".gate, shared_gate", "given", "the plan's experts have no gate");
  return out;
}

void require_all_or_none(bool a, bool b, bool c, const char* which) {
  if (a != b || a != c) throw InvalidInput("gradients", std::string("some of ") + which + " are null", "all or none");
}

}  // namespace

LayerWeights weights_from(const Layer& layer, const topomoe_weights* given) {
  const topomoe_weights w = read_struct(require(given, "weights"), "weights");
  require(w.router, "weights.router");
  auto out = tensors_from<LayerWeights>(layer, w, "weights");
  out.selection_bias = w.selection_bias;
  for (const auto& [view, name] :
       {std::pair{&out.gate, "weights.gate"}, {&out.up, "weights.up"}, {&out.down, "weights.down"}})
    if (layer.local_experts > 0 && !*view && (layer.shape.gated || view != &out.gate))
      throw InvalidInput(name, "null", "the rank holds " + std::to_string(layer.local_experts) + " experts");
  return out;
}

LayerGradients gradients_from(const Layer& layer, const topomoe_gradients* given) {
  const topomoe_gradients g = read_struct(require(given, "gradients"), "gradients");
  auto out = tensors_from<LayerGradients>(layer, g, "gradients");
  const bool gated = layer.shape.gated;
  require_all_or_none(gated ? !out.gate : !out.up, !out.up, !out.down, "gate, up and down");
  require_all_or_none((gated ? g.shared_gate : g.shared_up) == nullptr, g.shared_up == nullptr,
                      g.shared_down == nullptr, "shared_gate, shared_up and shared_down");
  return out;
}

}  // namespace topomoe::c_api
