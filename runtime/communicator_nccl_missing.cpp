// Stands in for communicator_nccl.cpp where NCCL is not built in.
#include "topomoe/communicator_nccl.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {
[[noreturn]] void missing() {
  throw MissingEnvironment("nccl: this topomoe was built without NCCL (configure with NCCL and TOPOMOE_WITH_NCCL=ON)");
}
}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(Device&, int, int, const Broadcast&, const NcclOptions&) {
  missing();
}
std::unique_ptr<Communicator> make_nccl_communicator(Device&, void*, const NcclOptions&) { missing(); }

std::string nccl_description() { return "NCCL: not built in"; }

}  // namespace topomoe
