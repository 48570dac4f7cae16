// The links between GPUs of one host.
#include <fmt/format.h>

#include "topology/doctor/doctor_host.hpp"
#include "topology/host_tree.hpp"
#include "topology/known_rates.hpp"
#include "topology/names.hpp"

namespace topomoe {
namespace {

struct GpuLinks {
  double GBps = 0;
  int count = 0;
  bool counted = true;
  std::string text() const {
    if (GBps == 0) return "no NVLink";
    return counted ? fmt::format("{} links, {} GB/s", count, short_number(GBps, 1))
                   : fmt::format("NVLink of {} GB/s", short_number(GBps, 1));
  }
};

GpuLinks links_out_of(const HostTemplate& host, int gpu) {
  GpuLinks out;
  for (const Link& link : host.links) {
    if (!joins_gpus(link) || (link.src != gpu && !(link.both_ways && link.dst == gpu))) continue;
    out.GBps += link.GBps_per_direction, out.count += link.count;
    out.counted = out.counted && link.count > 0;
  }
  return out;
}

// All links of the GPU replaced by one of `GBps` like those of its siblings to the switch.
void repair_links(HostTemplate& host, int gpu, double GBps) {
  const auto kind = [&](int index) { return host.devices[static_cast<std::size_t>(index)].kind; };
  for (const Link& link : host.links) {
    if (!joins_gpus(link) || (kind(link.src) != DeviceKind::nvswitch && kind(link.dst) != DeviceKind::nvswitch))
      continue;
    Link repaired = link;
    (kind(link.src) == DeviceKind::gpu ? repaired.src : repaired.dst) = gpu;
    std::erase_if(host.links, [&](const Link& own) { return joins_gpus(own) && (own.src == gpu || own.dst == gpu); });
    repaired.GBps_per_direction = GBps;
    host.links.push_back(repaired);
    return;
  }
}

void fewer_than_siblings(const HostCase& own) {
  std::vector<GpuLinks> all;
  for (const int gpu : own.host.gpus) all.push_back(links_out_of(own.host, gpu));
  double most = 0;
  for (const GpuLinks& links : all) most = std::max(most, links.GBps);
  if (most == 0) return;
  const auto whole = [&](const GpuLinks& links) { return links.GBps > 0.999 * most; };
  const auto like = std::count_if(all.begin(), all.end(), whole);
  const GpuLinks& best = *std::find_if(all.begin(), all.end(), whole);
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (whole(all[i])) continue;
    // Where most GPUs have as few (meshes in which corners have one link less), that is the design.
    const auto as_few =
        std::count_if(all.begin(), all.end(), [&](const GpuLinks& o) { return o.GBps < 1.001 * all[i].GBps; });
    const bool by_design = as_few > 1 && 2 * as_few >= static_cast<std::ptrdiff_t>(all.size()) && all[i].GBps > 0;
    const int gpu = own.host.gpus[i];
    own.add(by_design ? Severity::note : Severity::severe, own.named(gpu), all[i].text(),
            fmt::format("{}, as {} of the {} GPUs beside it", best.text(), like, all.size()),
            "nvidia-smi nvlink --status -i of this GPU (rocm-smi --showtopo); Xid 74 in the kernel log; was the file "
            "edited?",
            by_design ? std::string() : own.cost_against([&](HostTemplate& host) { repair_links(host, gpu, most); }));
  }
}

// None of the boards that are never sold without has a link, and the description says so.
void none_at_all(const HostCase& own) {
  if (own.host.nvlink != Presence::absent || own.host.gpus.size() < 2) return;
  int boards = 0;
  for (const int gpu : own.host.gpus) {
    if (links_out_of(own.host, gpu).GBps > 0) return;
    XmlPci board;
    board.vendor = attribute(own.device(gpu).attributes, "vendor");
    board.device = attribute(own.device(gpu).attributes, "device");
    boards += has_nvlink_by_design(board);
  }
  if (boards == 0) return;
  own.add(
      Severity::severe, own.where + "NVLink",
      fmt::format("no NVLink between {} GPUs; {} is sold with NVLink only", own.host.gpus.size(),
                  own.host.gpu.name.empty() ? "their board" : own.host.gpu.name),
      "links of each GPU to the others, or to an NVSwitch",
      "the fabric manager (systemctl status nvidia-fabricmanager), nvidia-smi nvlink --status; was the dump made in "
      "a container or VM that does not see them?",
      "traffic between GPUs of this host goes over PCIe");
}

void one_way(const HostCase& own) {
  for (const Link& link : own.host.links) {
    if (!joins_gpus(link) || link.both_ways) continue;
    double back = 0;
    for (const Link& other : own.host.links)
      if (joins_gpus(other) && other.src == link.dst && other.dst == link.src) back += other.GBps_per_direction;
    if (back >= link.GBps_per_direction) continue;
    own.add(Severity::severe, own.named(link.src) + " -> " + own.named(link.dst),
            fmt::format("{} GB/s there, {} back", short_number(link.GBps_per_direction, 1), short_number(back, 1)),
            "as many links in both directions: they are the same cables",
            "the NVLinks of both GPUs (nvidia-smi nvlink --status); was the file edited?");
  }
}

void end_nowhere(const HostCase& own) {
  for (const int gpu : own.host.gpus)
    if (const std::string_view count = attribute(own.device(gpu).attributes, kLinksLeftOut); !count.empty())
      own.add(Severity::warning, own.named(gpu), fmt::format("{} links to a device that the file does not have", count),
              "both ends of a link in one file",
              "a GPU that is hidden (CUDA_VISIBLE_DEVICES, a container, a VM) or has fallen off the bus");
}

}  // namespace

void diagnose_gpu_links(const HostCase& own) {
  fewer_than_siblings(own);
  none_at_all(own);
  one_way(own);
  end_nowhere(own);
}

}  // namespace topomoe
