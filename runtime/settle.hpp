// What becomes of a router's choice before anything travels: the copy of each expert that a token goes to
// (ExpertPlacement), and the choices that an expert has no room for, when a capacity is asked for.
//
// Capacity is GShard's (arXiv 2006.16668, algorithm 1). Its group is the tokens that one rank injects: of them each
// expert, whatever its replicas, takes at most capacity() choices: all tokens' first ones in order of token, then the
// second ones, and so on. Choices that find it full are dropped; those that stay keep their weights, which are not
// made to sum to 1 again. Ignored: GShard's random dispatch of second choices.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "topomoe/layer_shape.hpp"
#include "topomoe/placement.hpp"

namespace topomoe {

// Whether settle() changes anything.
bool settles(const LayerShape& shape, const ExpertPlacement& placement);

// ceil(factor * top_k * tokens / experts).
std::int64_t capacity(const LayerShape& shape, std::int64_t tokens);

// ids: [tokens, top_k], experts; afterwards copies, ~copy where the choice is dropped. Returns how many are.
// `used` is scratch. Throws std::logic_error for an id of no expert.
std::int64_t settle(std::span<std::int32_t> ids, const LayerShape& shape, const ExpertPlacement& placement,
                    std::vector<std::int64_t>& used);
// Back to the experts that were chosen, dropped or not.
void unsettle(std::span<std::int32_t> ids, const ExpertPlacement& placement);

}  // namespace topomoe
