// Stands in for communicator_mpi.cpp where MPI is not built in.
#include "topomoe/communicator_mpi.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {
[[noreturn]] void missing() {
  throw MissingEnvironment("mpi: this topomoe was built without MPI (configure with MPI and TOPOMOE_WITH_MPI=ON)");
}
}  // namespace

MpiSession::MpiSession(const MpiOptions&) { missing(); }
MpiSession::~MpiSession() = default;

std::unique_ptr<Communicator> make_mpi_communicator(const void*, const MpiOptions&) { missing(); }

void end_mpi_job() noexcept {}

std::string mpi_description() { return "MPI: not built in"; }

}  // namespace topomoe
