// What is asked of this machine: a child that hangs or crashes, /sys of machines that are not here, NVML under its own
// name, and that what comes out is a cluster file.
#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "support.hpp"
#include "topology/discover/in_child.hpp"
#include "topology/discover/sysfs_ports.hpp"
#include "topomoe/discover.hpp"

namespace topomoe::test {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

TEST(InChild, Answer_ComesBackWhole) {
  const std::string text(300'000, 'x');  // more than a pipe holds
  EXPECT_EQ(in_child([&] { return text; }, 60s).text, text);
  EXPECT_EQ(in_child([] { return std::string(); }, 60s).text, "");
}

TEST(InChild, Exception_IsTheReason) {
  const ChildAnswer answer = in_child([]() -> std::string { throw std::runtime_error("no such GPU"); }, 60s);
  EXPECT_FALSE(answer.text);
  EXPECT_EQ(answer.why, "no such GPU");
}

TEST(InChild, WorkThatHangs_IsKilledAtTheDeadline) {
  const ChildAnswer answer = in_child(
      []() -> std::string {
        while (true) std::this_thread::sleep_for(1s);
      },
      100ms);
  EXPECT_FALSE(answer.text);
  EXPECT_EQ(answer.why, "no answer within 0.1 s");
}

TEST(InChild, WorkThatCrashes_IsNamed) {
  const ChildAnswer answer = in_child(
      []() -> std::string {
        signal(SIGSEGV, SIG_DFL);  // not a sanitizer's
        raise(SIGSEGV);
        return "";
      },
      60s);
  EXPECT_EQ(answer.why, "ended by signal 11");
  EXPECT_EQ(in_child([]() -> std::string { _exit(0); }, 60s).why, "ended without an answer");
}

// A folder that is /sys of some machine.
class SysTree : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = (fs::temp_directory_path() / "topomoe-sys-XXXXXX").string();
    ASSERT_NE(mkdtemp(root_.data()), nullptr);
  }
  void TearDown() override { fs::remove_all(root_); }
  void put(const std::string& file, const std::string& text) const {
    fs::create_directories(fs::path(root_ + "/sys/" + file).parent_path());
    std::ofstream(root_ + "/sys/" + file) << text << "\n";
  }
  void put_rdma(const std::string& port, const std::string& rate, const std::string& state, const std::string& layer) {
    put("class/infiniband/" + port + "/rate", rate);
    put("class/infiniband/" + port + "/state", state);
    put("class/infiniband/" + port + "/link_layer", layer);
  }
  NicPorts ports(const std::vector<std::string>& rdma, const std::vector<std::string>& nets) const {
    return ports_in_sysfs(root_, "0000:1b:00.0", rdma, nets);
  }
  std::string root_;
};

TEST_F(SysTree, InfinibandPort_HasItsRateAndNetDevice) {
  put_rdma("mlx5_0/ports/1", "400 Gb/sec (4X NDR)", "4: ACTIVE", "InfiniBand");
  put("class/net/ib0/speed", "400000");
  const NicPorts got = ports({"mlx5_0"}, {"ib0"});
  ASSERT_EQ(got.ports.size(), 1U);
  EXPECT_EQ(got.ports[0].name, "mlx5_0");
  EXPECT_EQ(got.ports[0].Gbps, 400);
  EXPECT_FALSE(got.ports[0].is_down);
  EXPECT_EQ(attribute(got.ports[0].attributes, "link_layer"), "InfiniBand");
  EXPECT_EQ(attribute(got.ports[0].attributes, "netdev"), "ib0");
}

// A port that is down reports the slowest rate there is, which is not its own.
TEST_F(SysTree, PortThatIsDown_HasNoRate) {
  put_rdma("mlx4_0/ports/1", "100 Gb/sec (4X EDR)", "4: ACTIVE", "Ethernet");
  put_rdma("mlx4_0/ports/2", "2.5 Gb/sec (1X SDR)", "1: DOWN", "Ethernet");
  const NicPorts got = ports({"mlx4_0"}, {});
  ASSERT_EQ(got.ports.size(), 2U);
  EXPECT_EQ(got.ports[0].name, "mlx4_0:1");
  EXPECT_EQ(got.ports[0].Gbps, 100);
  EXPECT_EQ(got.ports[1].name, "mlx4_0:2");
  EXPECT_TRUE(got.ports[1].is_down);
  EXPECT_EQ(got.ports[1].Gbps, 0);
}

TEST_F(SysTree, NetDevices_AreTakenWhereThereIsNoRdma) {
  put("class/net/eth0/speed", "25000");
  put("class/net/eth0/operstate", "up");
  put("class/net/eth0/type", "1");
  put("class/net/eth1/speed", "-1");  // a virtual machine's
  put("class/net/eth2/operstate", "down");
  put("class/net/eth3/phys_port_name", "pf0vf3");  // of a virtual function
  const NicPorts got = ports({}, {"eth0", "eth1", "eth2", "eth3", "eth4"});
  ASSERT_EQ(got.ports.size(), 3U);
  EXPECT_EQ(got.ports[0].Gbps, 25);
  EXPECT_EQ(attribute(got.ports[0].attributes, "link_layer"), "Ethernet");
  EXPECT_EQ(got.ports[1].Gbps, 0);
  EXPECT_FALSE(got.ports[1].is_down);
  EXPECT_TRUE(got.ports[2].is_down);
}

TEST_F(SysTree, VirtualFunction_IsToldByItsPhysicalOne) {
  EXPECT_FALSE(ports({}, {}).is_virtual_function);
  put("bus/pci/devices/0000:1b:00.0/physfn/class", "0x020000");
  EXPECT_TRUE(ports({}, {}).is_virtual_function);
  put("bus/pci/devices/0000:1b:00.0/class", "0x020000");
  EXPECT_EQ(pci_class_in_sysfs(root_, "0000:1b:00.0"), "0x020000");
}

TEST_F(SysTree, NamesThatLeadElsewhere_AreNotFollowed) {
  put("class/net/eth0/speed", "25000");
  EXPECT_TRUE(ports({"../net"}, {"../net/eth0", ".."}).ports.empty());
  EXPECT_EQ(pci_class_in_sysfs(root_, "../../../class/net/eth0"), "");
}

class Discover : public ::testing::Test {
 protected:
  // libpciaccess keeps one allocation in a static pointer; kept loaded, it is no leak to the address sanitizer.
  void SetUp() override { dlopen("libpciaccess.so.0", RTLD_NOW); }
};

// Sets variables for one test.
class Environment {
 public:
  explicit Environment(std::vector<std::pair<const char*, std::string>> variables) : variables_(std::move(variables)) {
    for (const auto& [name, value] : variables_) setenv(name, value.c_str(), 1);
  }
  ~Environment() {
    for (const auto& [name, value] : variables_) unsetenv(name);
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  std::vector<std::pair<const char*, std::string>> variables_;
};

void expect_same_after_json(const Topology& topology) {
  const std::string written = write_cluster_json(topology);
  const Topology again = read_cluster_json(written, "live");
  EXPECT_EQ(write_cluster_json(again), written);
  EXPECT_EQ(again.templates, topology.templates);
  EXPECT_EQ(again.host_names, topology.host_names);
  EXPECT_EQ(again.warnings, topology.warnings);
  EXPECT_EQ(fingerprint(again), fingerprint(topology));
}

int count_of(const HostTemplate& host, DeviceKind kind) {
  int count = 0;
  for (const HostDevice& device : host.devices) count += device.kind == kind ? 1 : 0;
  return count;
}

TEST_F(Discover, ThisMachine_GivesATopologyOrSaysWhatIsMissing) {
  const Topology topology = discover_live();
  EXPECT_EQ(topology.host_count(), 1);
  if (topology.gpu_count() == 0) {
    EXPECT_TRUE(warns(topology, "GPU"));
  }
  expect_same_after_json(topology);
}

TEST_F(Discover, GivenDump_IsUsed) {
  const Environment given({{"NCCL_TOPO_DUMP_FILE", source_path("configs/clusters/h100-host.nccl.xml")}});
  const Topology topology = discover_live("n17");
  EXPECT_EQ(topology.gpu_count(), 8);
  EXPECT_EQ(topology.templates[0].nvlink, Presence::present);
  EXPECT_EQ(topology.host_name(0), "n17");
  expect_same_after_json(topology);
}

TEST_F(Discover, ThisMachineUnderAName_IsThatHost) {
  const Topology topology = discover_live("n17");
  EXPECT_EQ(topology.name, "n17");
  EXPECT_EQ(topology.host_name(0), "n17");
  EXPECT_EQ(topology.templates.at(0).name, "n17");
  expect_same_after_json(topology);
}

// Both as the kernel counts them.
TEST_F(Discover, NumaNodesAndNics_AreThoseOfSysfs) {
  int numas = 0, nics = 0;
  for (const fs::directory_entry& node : fs::directory_iterator("/sys/devices/system/node"))
    if (contains(node.path().filename().string(), "node")) {
      std::string cpus;
      std::ifstream(node.path() / "cpulist") >> cpus;
      numas += cpus.empty() ? 0 : 1;
    }
  std::error_code error;
  for (fs::directory_iterator device("/sys/bus/pci/devices", error), end; !error && device != end; ++device)
    nics += text_of((device->path() / "class").string()).starts_with("0x02") ? 1 : 0;
  const HostTemplate host = discover_live("n17").templates.at(0);
  EXPECT_EQ(count_of(host, DeviceKind::numa), numas);
  EXPECT_EQ(count_of(host, DeviceKind::nic), nics);
}

// A POWER9 with six V100s, of whose PCI devices the copy holds no ids: NUMA nodes, but no GPU can be told.
TEST_F(Discover, AnothersSysTree_IsReadWithoutThisMachinesCpu) {
  const std::string archive = data_path("topologies/hwloc-xml/nvidiagpunumanodes-sysfs.tar.bz2");
  if (!fs::exists(archive)) GTEST_SKIP() << archive << " is not there";
  std::string folder = (fs::temp_directory_path() / "topomoe-power-XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  ASSERT_EQ(std::system(("tar -xjf '" + archive + "' -C " + folder).c_str()), 0);
  {
    const Environment another({{"HWLOC_FSROOT", folder + "/nvidiagpunumanodes"}});
    const Topology topology = discover_live("c685f8n02");
    const HostTemplate& host = topology.templates.at(0);
    EXPECT_EQ(count_of(host, DeviceKind::numa), 2);
    EXPECT_EQ(count_of(host, DeviceKind::nic), 0);
    ASSERT_EQ(host.links.size(), 1U);
    EXPECT_TRUE(contains(host.links[0].source_note, "POWER9")) << host.links[0].source_note;
    EXPECT_TRUE(warns(topology, "another machine"));
    EXPECT_TRUE(warns(topology, "no GPU on the PCI bus"));
    expect_same_after_json(topology);
  }
  fs::remove_all(folder);
}

}  // namespace
}  // namespace topomoe::test
