// A grouped operation that runs later than its call, for devices that queue work: it takes along the host memory that
// it names (offsets, a pointer an expert), which the caller may use again on return.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <vector>

namespace topomoe::testing {

template <class Op>
auto expert_views(Op& op) {
  if constexpr (requires { op.w_gate_grad; })
    return std::array{&op.w_gate_grad, &op.w_up_grad, &op.w_down_grad};
  else
    return std::array{&op.w_gate, &op.w_up, &op.w_down};
}

template <class Op, class Call>
std::function<void()> later(Op op, Call call) {
  using Pointer = std::remove_cv_t<std::remove_pointer_t<decltype(expert_views(op)[0]->each)>>;
  std::array<std::vector<Pointer>, 3> pointers;
  for (std::size_t i = 0; i < pointers.size(); ++i)
    if (const auto* const each = expert_views(op)[i]->each; each != nullptr)
      pointers[i].assign(each, each + op.offsets.size() - 1);
  return [op, call, pointers, offsets = std::vector<std::int64_t>(op.offsets.begin(), op.offsets.end())]() mutable {
    op.offsets = offsets;
    for (std::size_t i = 0; i < pointers.size(); ++i)
      if (expert_views(op)[i]->each != nullptr) expert_views(op)[i]->each = pointers[i].data();
    call(op);
  };
}

}  // namespace topomoe::testing
