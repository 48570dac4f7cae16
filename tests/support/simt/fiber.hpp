// Fibers: stacks between which one thread of the host switches, each announced to sanitizers.
//
// switch_to() costs some 10 ns on x86-64 (our own switch) and two system calls elsewhere (ucontext, which saves the
// signal mask). Fibers are never finished: whoever needs no more of one leaves it switched away and destroys it.
#pragma once

#include <cstddef>
#include <memory>

namespace topomoe::simt {

class Fiber {
 public:
  // The calling thread itself, so that one can switch back to it.
  Fiber();
  // `body` is called by the first switch here and must not return.
  explicit Fiber(void (*body)());
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Returns when something switches back to the fiber that called. A fiber may be told to switch to itself.
  static void switch_to(Fiber& to);
  static Fiber& running();

  // ThreadSanitizer's thread; null without it.
  void* identity() const { return identity_; }

  // Of the last launch whose beginning this fiber's accesses are ordered after. The scheduler's.
  unsigned long launch = 0;

 private:
  struct Context;
  static void begin();
  static void arrived();

  std::byte* stack_ = nullptr;  // null: the host's own
  const void* bottom_ = nullptr;
  std::size_t size_ = 0;
  std::unique_ptr<Context> context_;
  void (*body_)() = nullptr;
  void* identity_ = nullptr;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
};

}  // namespace topomoe::simt
