// A library that is only looked for at run time: CUDA, NCCL, NVML.
#pragma once

#include <dlfcn.h>

#include <initializer_list>

namespace topomoe {

class SharedLibrary {
 public:
  // The first of these that is there.
  explicit SharedLibrary(std::initializer_list<const char*> names) {
    for (const char* name : names)
      if ((handle_ = dlopen(name, RTLD_NOW | RTLD_LOCAL)) != nullptr) return;
  }
  explicit operator bool() const { return handle_ != nullptr; }
  template <class Function>
  Function* find(const char* symbol) const {
    return reinterpret_cast<Function*>(dlsym(handle_, symbol));
  }

 private:
  void* handle_ = nullptr;  // kept open: drivers do not survive being unloaded
};

}  // namespace topomoe
