// NVML of a machine that is not there: a library of its own, opened by name as the real one is.
//
// FAKE_NVML holds words: "gpus=8" H100s 0000:10:00.0, 0000:11:00.0, ... with 18 links to NVSwitches; "pairs" instead:
// 12 links of GPU 2n to GPU 2n+1 and back, of 18; "down=3:17" link 17 of GPU 3 is down; "narrow=2" GPU 2 runs x8;
// "clique=7" a multi-node fabric; "fabric=2" its state; "error=NAME:15" that function returns 15, whatever it wrote;
// "hang" nvmlInit_v2 does. FAKE_NVML_OLD (a macro) leaves out what drivers before 450 lack. Layouts are written out a
// second time here, so that the reader's own are checked against them.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

// The number behind `word`, or otherwise.
int number(const std::string& word, int otherwise) {
  const char* given = std::getenv("FAKE_NVML");
  const std::string all = std::string(" ") + (given == nullptr ? "" : given) + " ";
  const std::size_t at = all.find(" " + word);
  return at == std::string::npos ? otherwise : std::atoi(all.c_str() + at + 1 + word.size());
}
bool has(const std::string& word) { return number(word, -12345) != -12345; }
int error_of(const char* function) { return number("error=" + std::string(function) + ":", 0); }
unsigned gpus() { return static_cast<unsigned>(number("gpus=", 0)); }

// A GPU's handle is its number plus one.
unsigned number_of(const void* device) { return static_cast<unsigned>(reinterpret_cast<std::size_t>(device)) - 1; }
bool is_down(unsigned gpu, unsigned link) {
  return number("down=" + std::to_string(gpu) + ":", -1) == static_cast<int>(link);
}

struct Pci {
  char legacy[16];
  unsigned domain, bus, device, ids, subsystem;
  char id[32];
};
void fill(Pci* pci, unsigned domain, unsigned bus) {
  *pci = {};
  pci->domain = domain, pci->bus = bus;
  std::snprintf(pci->id, sizeof pci->id, "%08X:%02X:%02X.0", domain, bus, 0U);
}
struct FabricV2 {
  unsigned version;
  unsigned char uuid[16];
  int status;
  unsigned clique;
  unsigned char state;
  unsigned char hole[3];
  unsigned health;
};
constexpr int kInvalidArgument = 2;

}  // namespace

extern "C" {

int nvmlInit_v2() { return error_of(__func__); }
int nvmlShutdown() { return 0; }
const char* nvmlErrorString(int error) { return error == 15 ? "GPU is lost" : "Some error"; }
int nvmlSystemGetDriverVersion(char* text, unsigned size) {
  std::snprintf(text, size, "550.54.15");
  return error_of(__func__);
}
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = gpus();
  return error_of(__func__);
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  if (index >= gpus()) return kInvalidArgument;
  *device = reinterpret_cast<void*>(static_cast<std::size_t>(index) + 1);
  return error_of(__func__);
}
int nvmlDeviceGetPciInfo_v3(void* device, Pci* pci) {
  fill(pci, 0, 0x10 + number_of(device));
  return error_of(__func__);
}
int nvmlDeviceGetName(void*, char* name, unsigned size) {
  std::snprintf(name, size, "NVIDIA H100 80GB HBM3");
  return error_of(__func__);
}
int nvmlDeviceGetCudaComputeCapability(void*, int* major, int* minor) {
  *major = 9, *minor = 0;
  return error_of(__func__);
}
int nvmlDeviceGetMemoryInfo(void*, unsigned long long* total_free_used) {
  total_free_used[0] = 80ULL << 30;
  total_free_used[1] = total_free_used[2] = 40ULL << 30;
  return error_of(__func__);
}
int nvmlDeviceGetMaxPcieLinkGeneration(void*, unsigned* generation) {
  *generation = 5;
  return error_of(__func__);
}
int nvmlDeviceGetMaxPcieLinkWidth(void*, unsigned* width) {
  *width = 16;
  return error_of(__func__);
}
int nvmlDeviceGetCurrPcieLinkWidth(void* device, unsigned* width) {
  *width = number("narrow=", -1) == static_cast<int>(number_of(device)) ? 8 : 16;
  return error_of(__func__);
}
int nvmlDeviceGetNvLinkState(void* device, unsigned link, unsigned* state) {
  if (link >= 18) return kInvalidArgument;
  *state = !is_down(number_of(device), link) && (!has("pairs") || link < 12) ? 1 : 0;
  return error_of(__func__);
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void* device, unsigned link, Pci* pci) {
  if (has("pairs"))
    fill(pci, 0, 0x10 + (number_of(device) ^ 1U));
  else
    fill(pci, 0, 0xc0 + link % 4);
  return error_of(__func__);
}
#ifndef FAKE_NVML_OLD
int nvmlDeviceGetNvLinkRemoteDeviceType(void*, unsigned, int* type) {
  *type = has("pairs") ? 0 : 2;
  return error_of(__func__);
}
int nvmlDeviceGetGpuFabricInfoV(void*, FabricV2* info) {
  if (info->version != 0x02000024U) return 25;  // NVML_ERROR_ARGUMENT_VERSION_MISMATCH
  if (error_of(__func__) == 0 && !has("clique=") && !has("fabric=")) return 3;
  std::memset(info->uuid, has("clique=") ? 0xab : 0, sizeof info->uuid);
  info->status = 0;
  info->clique = static_cast<unsigned>(number("clique=", 0));
  info->state = static_cast<unsigned char>(number("fabric=", 3));
  info->health = has("degraded") ? 1 : 2;
  return error_of(__func__);
}
#endif

}  // extern "C"
