// NCCL knows NVLink; hwloc does not. NCCL writes what it found when a communicator starts, if asked by environment.
#include <dlfcn.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <memory>

#include "topology/discover.hpp"
#include "topology/read_file.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

class Library {
 public:
  explicit Library(std::initializer_list<const char*> names) {
    for (const char* name : names)
      if ((handle_ = dlopen(name, RTLD_NOW | RTLD_LOCAL)) != nullptr) return;
  }
  explicit operator bool() const { return handle_ != nullptr; }
  template <class Function>
  Function* find(const char* symbol) const {
    return reinterpret_cast<Function*>(dlsym(handle_, symbol));
  }

 private:
  void* handle_ = nullptr;  // kept open: CUDA and NCCL do not survive being unloaded
};

// Sets a variable for as long as it lives, then puts back what was there.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = getenv(name)) old_ = old;
    setenv(name, value.c_str(), 1);
  }
  ~ScopedVariable() {
    if (old_)
      setenv(name_, old_->c_str(), 1);
    else
      unsetenv(name_);
  }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> old_;
};

class TemporaryFile {
 public:
  TemporaryFile() : path_((std::filesystem::temp_directory_path() / "topomoe-nccl-XXXXXX").string()) {
    const int file = mkstemp(path_.data());
    if (file < 0) throw MissingEnvironment("no temporary file can be made in " + path_);
    close(file);
  }
  ~TemporaryFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

int visible_gpus(std::vector<std::string>& warnings) {
  // The driver first: without it the runtime library has nothing to say.
  if (!Library{"libcuda.so.1"}) {
    warnings.push_back("no NVIDIA driver on this machine: GPUs are looked for on the PCI bus only");
    return 0;
  }
  const Library cuda{"libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"};
  if (!cuda) {
    warnings.push_back("no CUDA runtime library found: GPUs are looked for on the PCI bus only");
    return 0;
  }
  auto* get_count = cuda.find<int(int*)>("cudaGetDeviceCount");
  int count = 0;
  if (get_count == nullptr || get_count(&count) != 0 || count < 1) {
    warnings.push_back("CUDA sees no GPU");
    return 0;
  }
  return count;
}

// One communicator over all visible GPUs of this process; NCCL writes the file while it starts.
bool write_dump(int gpus, const std::string& path, std::vector<std::string>& warnings) {
  const Library nccl{"libnccl.so.2", "libnccl.so"};
  if (!nccl) {
    warnings.push_back("no NCCL library found: NVLink stays unknown");
    return false;
  }
  auto* init = nccl.find<int(void**, int, const int*)>("ncclCommInitAll");
  auto* destroy = nccl.find<int(void*)>("ncclCommDestroy");
  if (init == nullptr || destroy == nullptr) {
    warnings.push_back("the NCCL library lacks ncclCommInitAll: NVLink stays unknown");
    return false;
  }
  const ScopedVariable variable("NCCL_TOPO_DUMP_FILE", path);
  std::vector<void*> communicators(static_cast<std::size_t>(gpus), nullptr);
  if (const int error = init(communicators.data(), gpus, nullptr); error != 0) {
    warnings.push_back(
        fmt::format("NCCL did not start over {} GPUs (ncclResult_t {}): NVLink stays unknown", gpus, error));
    return false;
  }
  for (void* communicator : communicators)
    if (communicator != nullptr) destroy(communicator);
  return true;
}

}  // namespace

std::optional<Topology> discover_with_nccl(std::vector<std::string>& warnings) {
  const char* given = getenv("NCCL_TOPO_DUMP_FILE");
  std::error_code error;
  if (given != nullptr && std::filesystem::is_regular_file(given, error) &&
      std::filesystem::file_size(given, error) > 0)
    return read_nccl_xml(read_text_file(given), given);
  const int gpus = visible_gpus(warnings);
  if (gpus == 0) return std::nullopt;
  const TemporaryFile dump;
  if (!write_dump(gpus, dump.path(), warnings)) return std::nullopt;
  try {
    Topology topology = read_nccl_xml(read_text_file(dump.path()), "NCCL on this machine");
    topology.name = "this-host";
    return topology;
  } catch (const InvalidInput& problem) {
    warnings.push_back(fmt::format("NCCL's topology dump cannot be used ({}): NVLink stays unknown", problem.what()));
    return std::nullopt;
  }
}

}  // namespace topomoe
