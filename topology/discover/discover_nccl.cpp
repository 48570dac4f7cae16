// NCCL knows NVLink; hwloc does not. NCCL writes what it found when a communicator starts, if asked by environment.
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "topology/discover/discover.hpp"
#include "topology/discover/in_child.hpp"
#include "topology/discover/shared_library.hpp"
#include "topology/read/read_file.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

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

// What the child says: the dump, or none and why.
struct Dump {
  bool has_driver = false;
  std::string xml, why;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Dump, has_driver, xml, why)

constexpr int kInsufficientDriver = 35;  // cudaErrorInsufficientDriver of the CUDA runtime API

int visible_gpus(Dump& out) {
  // The driver first: without it the runtime library has nothing to say.
  out.has_driver = static_cast<bool>(SharedLibrary{"libcuda.so.1"});
  if (!out.has_driver) {
    out.why = "no CUDA driver library (libcuda.so.1)";
    return 0;
  }
  const SharedLibrary cuda{"libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"};
  auto* get_count = cuda ? cuda.find<int(int*)>("cudaGetDeviceCount") : nullptr;
  int count = 0, error = 0;
  if (get_count == nullptr)
    out.why = "no CUDA runtime library found";
  else if ((error = get_count(&count)) == kInsufficientDriver)
    out.why = "no NVIDIA driver, or one older than the CUDA runtime library";
  else if (error != 0 || count < 1)
    out.why = fmt::format("CUDA sees no GPU (cudaError_t {})", error);
  return out.why.empty() ? count : 0;
}

// One communicator over all visible GPUs of this process; NCCL writes the file while it starts.
void write_dump(int gpus, const std::string& path, Dump& out) {
  const SharedLibrary nccl{"libnccl.so.2", "libnccl.so"};
  if (!nccl) {
    out.why = "no NCCL library found";
    return;
  }
  auto* init = nccl.find<int(void**, int, const int*)>("ncclCommInitAll");
  auto* destroy = nccl.find<int(void*)>("ncclCommDestroy");
  if (init == nullptr || destroy == nullptr) {
    out.why = "the NCCL library lacks ncclCommInitAll";
    return;
  }
  setenv("NCCL_TOPO_DUMP_FILE", path.c_str(), 1);  // of the child alone
  std::vector<void*> communicators(static_cast<std::size_t>(gpus), nullptr);
  if (const int error = init(communicators.data(), gpus, nullptr); error != 0) {
    out.why = fmt::format("NCCL did not start over {} GPUs (ncclResult_t {})", gpus, error);
    return;
  }
  out.xml = read_text_file(path);
  if (out.xml.empty()) out.why = "NCCL wrote no dump (NCCL_TOPO_DUMP_FILE)";
  for (void* communicator : communicators)
    if (communicator != nullptr) destroy(communicator);
}

Dump ask_nccl(const std::string& path) {
  const ChildAnswer answer = in_child(
      [&] {
        Dump out;
        if (const int gpus = visible_gpus(out); gpus > 0) write_dump(gpus, path, out);
        using Json = nlohmann::json;
        return Json(out).dump(-1, ' ', false, Json::error_handler_t::replace);
      },
      kDriverDeadline);
  if (answer.text) return nlohmann::json::parse(*answer.text).get<Dump>();
  return {true, "", "CUDA or NCCL: " + answer.why};
}

}  // namespace

std::optional<Topology> given_nccl_dump() {
  const char* given = getenv("NCCL_TOPO_DUMP_FILE");
  std::error_code error;
  if (given == nullptr || !std::filesystem::is_regular_file(given, error) ||
      std::filesystem::file_size(given, error) == 0)
    return std::nullopt;
  return read_nccl_xml(read_text_file(given), given);
}

NcclAnswer discover_with_nccl(const std::string& name) {
  const TemporaryFile file;
  const Dump dump = ask_nccl(file.path());
  NcclAnswer out;
  out.has_driver = dump.has_driver;
  out.why = dump.why;
  if (dump.xml.empty()) return out;
  try {
    out.topology = read_nccl_xml(dump.xml, name);
    out.topology->source = "NCCL on this machine";
  } catch (const InvalidInput& problem) {
    out.why = fmt::format("NCCL's topology dump cannot be used ({})", problem.what());
  }
  return out;
}

}  // namespace topomoe
