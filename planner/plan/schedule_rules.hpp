// What each kind of step needs, and when two views mean the same rows: the vocabulary in which
// schedule_check and schedule_flow judge a schedule. Rows are compared as they are declared, never by
// counts: two declarations that happen to hold the same rows in other words count as different.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "topomoe/schedule.hpp"

namespace topomoe {

// What a row holds, one letter each: h(idden), q (hidden as fp8), f(fn), i(ds), w(eights), p: one an expert (logits),
// s(hared ffn); * is any, ? no such thing.
char row_of(const Buffer& buffer);
std::string_view row_words(char row);

struct Rule {
  StepKind kind;
  std::string_view in, out;  // a letter a view
  bool communicates = false;
  bool maps = false;          // needs a map; others take none
  bool weighs = false;        // may have weights
  bool keeps_width = false;   // in[0] and out[0] have rows of one width
  bool keeps_chunks = false;  // and are of the same symbol and chunks
};
const Rule& rule_of(StepKind kind);

// Groups that steps inside the layer may name.
bool inside_layer(Role role);
bool per_token(Symbol symbol);
bool expert_step(StepKind kind);
bool token_step(StepKind kind);   // works on tokens, all views of the same rows
bool adds_to_out(StepKind kind);  // its first output had rows before
bool computes(const Step& step);  // with rows that a step of its kind may also only move; fp8 ones are moved
// Chunks that a view covers; held rows are of all chunks at once.
Chunks chunks_of(const Schedule& schedule, const View& view);
// Chunks of a unit as far as a view shows them: one of a single unit does not tell how long it is.
int unit_in(const Schedule& schedule, const View& view);
bool same_rows(const Schedule& schedule, const View& a, const View& b);
// The selectors alone: which ranks' rows, which part of them.
bool same_selection(const Schedule& schedule, const View& a, const View& b);
bool names_peer(const View& view);

constexpr std::size_t kMaxViolations = 100;  // more are not listed
// The second half of check(); indices must be sound.
std::vector<std::string> check_flow(const Schedule& schedule);

}  // namespace topomoe
