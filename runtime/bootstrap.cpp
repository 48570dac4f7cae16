#include "topomoe/bootstrap.hpp"

#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;

void write_whole(const std::filesystem::path& path, const void* data, std::size_t bytes) {
  if (std::filesystem::exists(path))
    throw InvalidInput("bootstrap file", path.string(), "is there already: name one that is new to this job");
  const std::filesystem::path partial = path.string() + ".part";
  std::ofstream out(partial, std::ios::binary);
  out.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
  out.close();
  if (!out) throw InvalidInput("bootstrap file", partial.string(), "cannot be written");
  std::filesystem::rename(partial, path);  // it appears whole or not at all
}

}  // namespace

Broadcast broadcast_over(Communicator& communicator) {
  std::vector<int> everyone(static_cast<std::size_t>(communicator.size()));
  std::iota(everyone.begin(), everyone.end(), 0);
  const ChannelId channel = communicator.open_channel(everyone);
  return [&communicator, channel](void* data, std::size_t bytes) {
    std::vector<Outgoing> sends;
    std::vector<Incoming> receives;
    if (communicator.rank() == 0) {
      for (int peer = 1; peer < communicator.size(); ++peer) sends.push_back({peer, data, bytes});
    } else {
      receives.push_back({0, data, bytes});
    }
    const EventPtr event = communicator.exchange(channel, sends, receives, {.step = "bootstrap", .metadata = true});
    if (event) event->wait(Clock::now() + std::chrono::seconds(30));
  };
}

Broadcast broadcast_through_file(std::string path, int rank, std::chrono::milliseconds deadline) {
  return [path = std::move(path), rank, deadline, call = 0](void* data, std::size_t bytes) mutable {
    const std::string name = path + "." + std::to_string(call++);
    if (rank == 0) return write_whole(name, data, bytes);
    const auto give_up = Clock::now() + deadline;
    while (!std::filesystem::exists(name)) {
      if (Clock::now() > give_up)
        throw TransportError(rank, 0, "bootstrap", static_cast<double>(bytes),
                             name + " did not appear before the deadline");
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    std::ifstream in(name, std::ios::binary);
    in.read(static_cast<char*>(data), static_cast<std::streamsize>(bytes));
    if (in.gcount() != static_cast<std::streamsize>(bytes) || in.peek() != std::ifstream::traits_type::eof())
      throw TransportError(rank, 0, "bootstrap", static_cast<double>(bytes), name + " has another size");
  };
}

}  // namespace topomoe
