#include "tests/cli/command.hpp"

#include <stdlib.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>

namespace topomoe::testing {

void Command::SetUp() {
  std::string name = (std::filesystem::temp_directory_path() / "topomoe-cli-XXXXXX").string();
  ASSERT_NE(mkdtemp(name.data()), nullptr);
  folder_ = name;
}

void Command::TearDown() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

Said Command::shell(const std::string& line) {
  const std::string out = folder_.string() + ".out", err = folder_.string() + ".err";
  const std::string all = "cd '" + folder_.string() +
                          "' && clusters='" TOPOMOE_SOURCE_DIR "/configs/clusters' models='" TOPOMOE_SOURCE_DIR
                          "/configs/models' && { " +
                          line + " ; } > '" + out + "' 2> '" + err + "' < /dev/null";
  Said said;
  const int status = std::system(all.c_str());
  said.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  const auto take = [](const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    std::filesystem::remove(path);
    return text.str();
  };
  said.out = take(out), said.err = take(err);
  return said;
}

std::string Command::read(const std::string& file) const {
  std::ostringstream text;
  text << std::ifstream(folder_ / file, std::ios::binary).rdbuf();
  return text.str();
}

void Command::write(const std::string& file, const std::string& text) const {
  std::ofstream(folder_ / file, std::ios::binary) << text;
}

std::vector<std::string> Command::files() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder_))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

#ifdef TOPOMOE_MPIEXEC
// More ranks than cores, as root, on this machine alone. Open MPI's own leaks are not ours to report.
Said Command::mpirun(const std::vector<std::pair<int, std::string>>& ranks) {
  std::string line =
      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 "
      "OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_vader_single_copy_mechanism=none "
      "ASAN_OPTIONS=detect_leaks=0 " TOPOMOE_MPIEXEC;
  for (const auto& [count, arguments] : ranks)
    line += (&count == &ranks[0].first ? " -n " : " : -n ") + std::to_string(count) + " \"" TOPOMOE_BINARY "\" " +
            arguments;
  return shell(line);
}
#endif

void Command::write_cluster(const std::string& file, const std::string& nic_GBps) {
  write(file, R"({"schema": "topomoe.cluster/1", "hosts": [{"template": "host", "count": 2}],
      "fabric": {"hosts_per_leaf": 2},
      "templates": [{"name": "host",
        "gpu": {"name": "thread", "memory_GiB": 8, "hbm_GBps": 20, "bf16_TFLOPps": 0.2, "fp8_TFLOPps": 0,
                "fp32_TFLOPps": 0.2, "sms": 0, "source": "assumed: test"},
        "shape": {"kind": "nvswitch", "gpus": 2, "numa_nodes": 1, "gpus_per_pci_switch": 0, "nics": 1,
          "nvlink": {"GBps_per_direction": 10000, "source": "assumed: test"},
          "pcie": {"GBps_per_direction": 10000, "source": "assumed: test"},
          "nic": {"GBps_per_direction": )" +
                  nic_GBps + R"(, "source": "assumed: test"}}}]})");
}

void Command::plan_small(const std::string& output, const std::string& more) {
  const Said said = topomoe("plan --cluster $clusters/quickstart-2xh100.json --model $models/mixtral-8x7b.json -o " +
                            output + " " + more);
  ASSERT_EQ(said.code, 0) << said.err;
}

void expect_one_line(const std::string& err, const std::vector<std::string>& words) {
  EXPECT_EQ(err.rfind("topomoe: ", 0), 0U) << err;
  EXPECT_EQ(std::count(err.begin(), err.end(), '\n'), 1) << err;
  for (const std::string& word : words)
    EXPECT_NE(err.find(word), std::string::npos) << "no \"" << word << "\" in: " << err;
}

}  // namespace topomoe::testing
