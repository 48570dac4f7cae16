// Layers whose tokens travel once to a rank, with their ids and weights beside them, and not once an expert.
//
// The rank spreads a token to its own experts, and sums up their weighted outputs before they travel back; so
// weights are applied where the experts are, and the backward returns their gradients from there. How tokens
// come to the rank, and how its sums come home and meet those of other ranks, is a TokensWay.
#pragma once

#include <span>

#include "planner/schedules/draft.hpp"

namespace topomoe {

// What travels for a token: its row, or a sidecar of it.
struct Cargo {
  std::string tag;  // begins the names of its buffers and steps
  Columns columns = Columns::hidden;
  Element element = Element::payload;
  bool metadata() const { return columns != Columns::hidden; }
  bool ids() const { return element == Element::i32; }
};
// `rows` for a cargo: the same declaration, its own name and width.
Buffer rows_for(const Cargo& cargo, const std::string& name, int number, Buffer rows);

class TokensWay {
 public:
  virtual ~TokensWay() = default;
  virtual std::string name() const = 0;
  // From a chunk's first step to its experts, and from its experts to the last step of its way back.
  virtual int ticks_out() const = 0;
  virtual int ticks_back() const = 0;
  // At the end each rank must know how many rows it gets from each source, and for which of its experts.
  virtual void exchange_counts(LayerDraft& d) = 0;
  // A row for each token of piece p that comes to me.
  virtual int landed(LayerDraft& d, const Cargo& cargo, const std::string& name, int p, Storage storage) = 0;
  // Chunk c of `tokens`, the rows that I inject, to its place in `landed`. Where maps are missing the first cargo is
  // the row itself and the second its ids.
  struct Load {
    Cargo cargo;
    int tokens, landed;
  };
  virtual void out(LayerDraft& d, double slot, int c, std::span<const Load> loads) = 0;
  // Chunks are other ones from here on: what is kept of them is of no use.
  virtual void recut() {}
  // Chunk c of the sums in `landed` to `to`, the rows that I injected.
  virtual void back(LayerDraft& d, double slot, const Cargo& cargo, int c, int landed, const View& to) = 0;
};

Schedule build_tokens_layer(const ScheduleRequest& request, TokensWay& way);

}  // namespace topomoe
