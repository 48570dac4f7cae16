// topomoe.h: communicators and devices.
#include <memory>
#include <vector>

#include "runtime/c_api.hpp"
#include "runtime/communicator_inproc.hpp"
#include "runtime/communicator_mpi.hpp"
#include "runtime/communicator_tcp.hpp"
#include "runtime/device_cpu.hpp"

using namespace topomoe::c_api;
using topomoe::InvalidInput;

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
    static constexpr topomoe_tcp_config kFromEnvironment = TOPOMOE_TCP_CONFIG_INIT;
    const topomoe_tcp_config c = read_struct(config != nullptr ? *config : kFromEnvironment, "config");
    if (c.deadline_ms < 0) throw InvalidInput("config.deadline_ms", std::to_string(c.deadline_ms), "at least 1, or 0");
    topomoe::TcpPlace place{c.rank, c.world_size, c.address != nullptr ? c.address : "", c.port};
    if (c.world_size == 0) place = topomoe::read_tcp_place(topomoe::process_environment());
    const auto deadline = std::chrono::milliseconds(c.deadline_ms > 0 ? c.deadline_ms : 30000);
    *communicator = new topomoe_communicator{topomoe::make_tcp_communicator(place, {.deadline = deadline})};
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

topomoe_status topomoe_cpu_device(topomoe_device** device) {
  return guarded([&] {
    require(device, "device") = nullptr;
    *device = new topomoe_device{topomoe::make_cpu_device()};
  });
}

void topomoe_device_free(topomoe_device* device) { delete device; }
