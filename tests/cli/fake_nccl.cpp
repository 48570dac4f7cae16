// CUDA and NCCL of a machine that is not there, in one library under three names: ncclCommInitAll writes the file named
// by FAKE_NCCL_DUMP as its dump, or does what FAKE_NCCL says: "crash", "fail" (ncclSystemError), "silent" (no dump).
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

extern "C" {

int cudaGetDeviceCount(int* count) {
  *count = 4;
  return 0;
}
int ncclCommInitAll(void**, int, const int*) {
  const char* told = std::getenv("FAKE_NCCL");
  const std::string word = told == nullptr ? "" : told;
  if (word == "crash") {
    signal(SIGABRT, SIG_DFL);
    raise(SIGABRT);
  }
  if (word == "fail") return 2;
  if (word == "silent") return 0;
  std::puts("NCCL version 2.28.3 (on the standard output, as NCCL_DEBUG=VERSION does)");
  std::fflush(stdout);
  std::filesystem::copy_file(std::getenv("FAKE_NCCL_DUMP"), std::getenv("NCCL_TOPO_DUMP_FILE"),
                             std::filesystem::copy_options::overwrite_existing);
  return 0;
}
int ncclCommDestroy(void*) { return 0; }

}  // extern "C"
