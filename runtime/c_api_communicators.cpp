// topomoe.h: communicators, devices, and whether ranks are where their plan has them.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "runtime/c_api.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/communicator_mpi.hpp"
#include "topomoe/communicator_nccl.hpp"
#include "topomoe/communicator_tcp.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/device_cuda.hpp"
#include "topomoe/rank_check.hpp"

using namespace topomoe::c_api;
using topomoe::InvalidInput;

namespace {

struct OnDevice {  // in this order: it refers to the device
  std::shared_ptr<topomoe::Device> device;
  std::shared_ptr<topomoe::Communicator> value;
};
std::shared_ptr<topomoe::Communicator> with_device(std::shared_ptr<OnDevice> both) {
  topomoe::Communicator* const value = both->value.get();
  return {std::move(both), value};
}

}  // namespace

topomoe_status topomoe_inproc_world(int32_t size, topomoe_communicator** communicators) {
  return guarded([&] {
    require(communicators, "communicators");
    if (size < 1) throw InvalidInput("size", std::to_string(size), "at least 1 rank");
    std::vector<std::unique_ptr<topomoe_communicator>> made;
    for (auto& rank : topomoe::make_inproc_world(size))
      made.push_back(std::make_unique<topomoe_communicator>(topomoe_communicator{std::move(rank)}));
    for (std::size_t i = 0; i < made.size(); ++i) communicators[i] = made[i].release();
  });
}

topomoe_status topomoe_mpi_communicator(const void* mpi_comm, topomoe_communicator** communicator) {
  return guarded([&] {
    require(communicator, "communicator") = nullptr;
    *communicator = new topomoe_communicator{topomoe::make_mpi_communicator(mpi_comm)};
  });
}

topomoe_status topomoe_tcp_communicator(const topomoe_tcp_config* config, topomoe_communicator** communicator) {
  return guarded([&] {
    require(communicator, "communicator") = nullptr;
    const topomoe_tcp_config c = read_struct(config != nullptr ? *config : Abi<topomoe_tcp_config>::init, "config");
    if (c.deadline_ms < 0) throw InvalidInput("config.deadline_ms", std::to_string(c.deadline_ms), "at least 1, or 0");
    topomoe::TcpPlace place{c.rank, c.world_size, c.address != nullptr ? c.address : "", c.port};
    if (c.world_size == 0) place = topomoe::read_tcp_place(topomoe::process_environment());
    const auto deadline = std::chrono::milliseconds(c.deadline_ms > 0 ? c.deadline_ms : 30000);
    *communicator = new topomoe_communicator{topomoe::make_tcp_communicator(place, {.deadline = deadline})};
  });
}

topomoe_status topomoe_nccl_communicator(topomoe_device* device, void* nccl_comm, topomoe_communicator* host,
                                         topomoe_communicator** communicator) {
  return guarded([&] {
    require(communicator, "communicator") = nullptr;
    const auto& on = require(device, "device").value;
    auto made = std::make_shared<OnDevice>();
    made->device = on;
    if (nccl_comm != nullptr) {
      made->value = topomoe::make_nccl_communicator(*on, nccl_comm);
    } else {
      topomoe::Communicator& ranks = *require(host, "host").value;
      made->value = topomoe::make_nccl_communicator(*on, ranks.rank(), ranks.size(), topomoe::broadcast_over(ranks));
    }
    *communicator = new topomoe_communicator{with_device(std::move(made))};
  });
}

topomoe_status topomoe_communicator_rank(const topomoe_communicator* communicator, int32_t* rank, int32_t* size) {
  return guarded([&] {
    const topomoe::Communicator& c = *require(communicator, "communicator").value;
    if (rank != nullptr) *rank = c.rank();
    if (size != nullptr) *size = c.size();
  });
}

topomoe_status topomoe_communicator_abort(topomoe_communicator* communicator, const char* why) {
  return guarded([&] {
    const auto& ranks = require(communicator, "communicator").value;
    ranks->fail({.rank = ranks->rank(),
                 .culprit = ranks->rank(),
                 .step = "caller",
                 .why = why != nullptr ? why : "no reason given"});
  });
}

void topomoe_communicator_free(topomoe_communicator* communicator) { delete communicator; }

topomoe_status topomoe_device_create(const topomoe_device_config* config, topomoe_device** device) {
  return guarded([&] {
    require(device, "device") = nullptr;
    const topomoe_device_config c =
        read_struct(config != nullptr ? *config : Abi<topomoe_device_config>::init, "config");
    if (c.cuda < -1) throw InvalidInput("config.cuda", std::to_string(c.cuda), "a GPU, or -1: the CPU");
    if (c.allocate == nullptr && c.release != nullptr)
      throw InvalidInput("config.allocate", "null", "release comes with allocate");
    const topomoe::Allocator memory{c.allocate, c.release, c.state};
    *device =
        new topomoe_device{c.cuda < 0 ? topomoe::make_cpu_device(memory) : topomoe::make_cuda_device(c.cuda, memory)};
  });
}

void topomoe_device_free(topomoe_device* device) { delete device; }

topomoe_status topomoe_inproc_use_device(topomoe_communicator* communicator, topomoe_device* device) {
  return guarded([&] {
    auto& ranks = require(communicator, "communicator").value;
    const auto& on = require(device, "device").value;
    topomoe::use_device(*ranks, *on);
    ranks = with_device(std::make_shared<OnDevice>(OnDevice{on, ranks}));
  });
}

topomoe_status topomoe_check_ranks(const topomoe_plan* plan, topomoe_communicator* communicator, const char* host,
                                   const char* bus_id, topomoe_rank_check* check, char* text, size_t bytes) {
  return guarded([&] {
    read_struct(require(check, "check"), "check");
    topomoe::Communicator& ranks = *require(communicator, "communicator").value;
    const topomoe::RankCheck found = topomoe::check_ranks(*require(plan, "plan").value, ranks,
                                                          bus_id != nullptr ? bus_id : "", host != nullptr ? host : "");
    write_struct(*check, {0, 0, static_cast<int32_t>(found.mismatches.size()), found.plans_differ ? 1 : 0,
                          found.planned_rank(ranks.rank())});
    if (text == nullptr || bytes == 0) return;
    std::string lines;
    for (const std::string& line : found.mismatches) lines += (lines.empty() ? "" : "\n") + line;
    const std::size_t length = std::min(lines.size(), bytes - 1);
    std::copy_n(lines.begin(), length, text);
    text[length] = 0;
  });
}
