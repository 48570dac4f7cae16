// How topomoe says no.
//
// A broken promise of the caller or of the machine is an exception of one of the types below; an
// answer that may not exist ("no layout fits") is an Expected<T, Infeasible> and not an exception.
// Every message is one line that names what was wrong, which value it had, and a way out.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

namespace topomoe {

// The base of all errors that topomoe throws on purpose. Anything else that escapes is our bug.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A value handed in (file, flag, argument) that cannot be used. CLI exit code 2.
//   field: where it is, e.g. "mixtral.json: num_local_experts" or "--gpus"
//   value: what it was, as text ("missing" where there was none)
//   hint:  what is allowed, or the nearest valid choice
class InvalidInput : public Error {
 public:
  InvalidInput(std::string field_name, std::string its_value, std::string way_out)
      : Error(field_name + ": " + its_value + ": " + way_out),
        field(std::move(field_name)),
        value(std::move(its_value)),
        hint(std::move(way_out)) {}
  std::string field, value, hint;
};

// A device, library or permission that the request needs and this machine lacks. CLI exit code 3.
class MissingEnvironment : public Error {
 public:
  using Error::Error;
};

// What one rank knows of a failed step, in world ranks; -1 is unknown.
struct Failure {
  int rank = -1;     // who reports
  int peer = -1;     // whom it waits for, where that is one rank
  int culprit = -1;  // who is to blame: dead or silent, or the rank itself; a peer may only be waiting, too
  std::string step;
  double bytes = 0;  // missing
  std::string why;
};

// A transport that failed or passed its deadline. CLI exit code 1.
class TransportError : public Error {
 public:
  explicit TransportError(const Failure& f)
      : Error("rank " + std::to_string(f.rank) + (f.peer >= 0 ? ", peer " + std::to_string(f.peer) : "") +
              (f.culprit >= 0 ? ", culprit " + std::to_string(f.culprit) : "") + ", step " + f.step + ", " +
              std::to_string(static_cast<long long>(f.bytes)) + " bytes: " + f.why),
        rank(f.rank),
        peer(f.peer),
        culprit(f.culprit),
        step(f.step),
        bytes(f.bytes),
        why(f.why) {}
  TransportError(int own_rank, int other, std::string step_name, double byte_count, const std::string& reason)
      : TransportError(Failure{own_rank, other, -1, std::move(step_name), byte_count, reason}) {}
  Failure failure() const { return {rank, peer, culprit, step, bytes, why}; }
  int rank, peer, culprit;
  std::string step;
  double bytes;
  std::string why;
};

// What rank `rank` has to tell the others about an exception that ends its part. What is no transport's failure is
// its own: it is the culprit.
inline Failure failure_of(const std::exception& e, int rank) {
  if (const auto* t = dynamic_cast<const TransportError*>(&e)) return t->failure();
  return {rank, -1, rank, "none", 0, e.what()};
}

// Why no answer exists: the constraint that binds, and the smallest change that would help.
// CLI exit code 1.
struct Infeasible {
  std::string constraint;
  std::string nearest_fix;
  std::string message() const { return constraint + "; " + nearest_fix; }
};

// A value, or the reason why there is none. C++23's std::expected, as far as we need it.
template <class T, class E>
class Expected {
 public:
  Expected(T value) : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: conversions intended
  Expected(E error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT
  explicit operator bool() const { return state_.index() == 0; }
  const T& operator*() const& { return std::get<0>(state_); }
  T& operator*() & { return std::get<0>(state_); }
  T&& operator*() && { return std::get<0>(std::move(state_)); }
  const T* operator->() const { return &std::get<0>(state_); }
  const E& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, E> state_;
};

}  // namespace topomoe

// Asserts are for our own bugs, never for input. They stay on in every build: planner and executor
// run for milliseconds to seconds, a wrong plan for weeks.
#define TOPOMOE_STRINGIFY_(x) #x
#define TOPOMOE_STRINGIFY(x) TOPOMOE_STRINGIFY_(x)
#define TOPOMOE_ASSERT(condition)     \
  ((condition) ? static_cast<void>(0) \
               : throw std::logic_error("topomoe bug: " #condition " at " __FILE__ ":" TOPOMOE_STRINGIFY(__LINE__)))
