// topomoe.h: errors, versions and plans.
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "runtime/c_api.hpp"
#include "topomoe/error.hpp"
#include "topomoe/plan.hpp"
#include "topomoe/topomoe.h"

namespace topomoe::c_api {
namespace {

// Room for one line: an error must be told even where there is no memory left.
thread_local char last_error[1024] = "";

}  // namespace

topomoe_status failed(topomoe_status status, const char* why) noexcept {
  std::snprintf(last_error, sizeof last_error, "%s", why);
  return status;
}

}  // namespace topomoe::c_api

using namespace topomoe::c_api;

using topomoe::InvalidInput;

namespace {

void read_plan_text(const std::string& text, const std::string& name, topomoe_plan** plan) {
  *plan = new topomoe_plan{std::make_shared<const topomoe::Plan>(topomoe::read_plan(text, name))};
}

}  // namespace

const char* topomoe_last_error(void) { return last_error; }
const char* topomoe_version(void) { return TOPOMOE_LIBRARY_VERSION; }
uint32_t topomoe_abi_version(void) { return TOPOMOE_ABI_VERSION; }

const char* topomoe_status_name(topomoe_status status) {
  switch (status) {
    case TOPOMOE_OK: return "ok";
    case TOPOMOE_INVALID_INPUT: return "invalid input";
    case TOPOMOE_MISSING_ENVIRONMENT: return "missing environment";
    case TOPOMOE_TRANSPORT_ERROR: return "transport error";
    case TOPOMOE_INTERNAL_ERROR: return "internal error";
  }
  return "unknown status";
}

topomoe_status topomoe_plan_read(const char* text, size_t bytes, const char* name, topomoe_plan** plan) {
  return guarded([&] {
    require(plan, "plan") = nullptr;
    read_plan_text({&require(text, "text"), bytes}, name != nullptr ? name : "plan", plan);
  });
}

topomoe_status topomoe_plan_read_file(const char* path, topomoe_plan** plan) {
  return guarded([&] {
    require(plan, "plan") = nullptr;
    std::ifstream in(&require(path, "path"), std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    if (!in) throw InvalidInput(path, std::strerror(errno), "a plan.json that can be read is needed");
    read_plan_text(text, path, plan);
  });
}

void topomoe_plan_free(topomoe_plan* plan) { delete plan; }

topomoe_status topomoe_plan_hash(const topomoe_plan* plan, char hash[17]) {
  return guarded([&] {
    const std::string text = topomoe::plan_hash(*require(plan, "plan").value);
    TOPOMOE_ASSERT(text.size() == 16);
    std::memcpy(&require(hash, "hash"), text.c_str(), 17);
  });
}

topomoe_status topomoe_plan_get_info(const topomoe_plan* plan, int32_t kind, topomoe_plan_info* info) {
  return guarded([&] {
    const topomoe::Plan& p = *require(plan, "plan").value;
    read_struct(require(info, "info"), "info");
    const topomoe::LayerShape s = topomoe::layer_shape_of(p, kind);
    const topomoe::Layout& l = p.layout;
    topomoe_plan_info out{};
    out.kinds = topomoe::moe_kind_count(p.model);
    out.world = l.world, out.tp = l.tp, out.ep = l.ep, out.etp = l.etp;
    out.gpus_per_node = p.topology.gpus_per_node;
    out.sequence_parallel = l.sequence_parallel ? 1 : 0;
    out.experts = s.experts, out.top_k = s.top_k, out.renormalize = s.renormalize ? 1 : 0;
    out.hidden = s.hidden, out.ffn = s.ffn;
    out.dtype = s.dtype == topomoe::DType::f32 ? TOPOMOE_F32 : TOPOMOE_BF16;
    out.tokens_per_tp_group = p.tokens_per_rank;
    out.shared_ffn = s.shared_ffn, out.shared_gate = static_cast<topomoe_shared_gate>(s.shared_gate);
    out.sigmoid_scores = s.router.scoring == topomoe::Scoring::sigmoid ? 1 : 0;
    out.router_groups = s.router.groups, out.router_topk_groups = s.router.topk_groups;
    out.routed_scaling = p.model.routed_scaling, out.capacity_factor = s.capacity_factor;
    out.gated = p.model.gated_ffn ? 1 : 0;
    out.replicated = topomoe::ExpertPlacement(s.experts, l.ep, s.expert_owners).replicated() ? 1 : 0;
    write_struct(*info, out);
  });
}

topomoe_status topomoe_plan_held_experts(const topomoe_plan* plan, int32_t kind, int32_t rank, int32_t* experts,
                                         int32_t most, int32_t* count) {
  return guarded([&] {
    const std::vector<int> held = topomoe::held_experts(*require(plan, "plan").value, rank, kind);
    require(count, "count") = static_cast<int32_t>(held.size());
    if (experts != nullptr)
      std::copy_n(held.begin(), std::min(held.size(), static_cast<std::size_t>(std::max(most, 0))), experts);
  });
}
