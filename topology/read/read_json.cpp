// Schema "topomoe.cluster/1": host templates, how many hosts of each, the fabric above them.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "topology/fabric.hpp"
#include "topology/names.hpp"
#include "topology/read/json_fields.hpp"
#include "topology/read/json_text.hpp"
#include "topology/read/read_file.hpp"
#include "topology/warnings.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Json = nlohmann::ordered_json;

template <class Enum>
Enum one_of(const std::string& path, const std::string& text, std::optional<Enum> (*parse)(std::string_view),
            const char* allowed) {
  if (const auto value = parse(text)) return *value;
  throw InvalidInput(path, '"' + text + '"', std::string("allowed: ") + allowed);
}

void read_source(JsonFields& fields, Source& source, std::string& note) {
  SourceText parsed = parse_source(fields.text("source"));
  source = parsed.source;
  note = std::move(parsed.note);
}

Rate read_rate(JsonFields fields) {
  Rate rate;
  rate.GBps_per_direction = fields.number("GBps_per_direction");
  rate.latency_us = fields.number("latency_us", 0);
  read_source(fields, rate.source, rate.source_note);
  fields.refuse_unknown();
  return rate;
}

Rate read_rate(JsonFields& fields, const std::string& key) {
  return fields.has(key) ? read_rate(fields.object(key)) : Rate{};
}

GpuSpec read_gpu(JsonFields fields) {
  GpuSpec gpu;
  gpu.name = fields.text("name");
  gpu.memory_GiB = fields.number("memory_GiB", 0);
  gpu.hbm_GBps = fields.number("hbm_GBps", 0);
  gpu.bf16_TFLOPps = fields.number("bf16_TFLOPps", 0);
  gpu.fp8_TFLOPps = fields.number("fp8_TFLOPps", 0);
  gpu.fp32_TFLOPps = fields.number("fp32_TFLOPps", 0);
  gpu.sms = fields.integer("sms", 0);
  read_source(fields, gpu.source, gpu.source_note);
  fields.refuse_unknown();
  return gpu;
}

HostShape read_shape(JsonFields fields) {
  HostShape shape;
  shape.kind = fields.text("kind");
  shape.gpus = fields.integer("gpus");
  shape.numa_nodes = fields.integer("numa_nodes", 1);
  shape.gpus_per_pci_switch = fields.integer("gpus_per_pci_switch", 1);
  shape.nics = fields.integer("nics", 0);
  shape.nvlink = read_rate(fields, "nvlink");
  shape.pcie = read_rate(fields, "pcie");
  shape.c2c = read_rate(fields, "c2c");
  shape.cpu_interconnect = read_rate(fields, "cpu_interconnect");
  shape.cpu_root = read_rate(fields, "cpu_root");
  shape.nic = read_rate(fields, "nic");
  fields.refuse_unknown();
  return shape;
}

constexpr std::size_t kMostAttributes = 160;  // an NCCL file's <pci> and <gpu> have at most 64 each

std::vector<Attribute> read_attributes(JsonFields& fields) {
  std::vector<Attribute> out;
  if (!fields.has("attributes")) return out;
  const Json& all = fields.get("attributes");
  if (!all.is_object()) throw InvalidInput(fields.path("attributes"), brief(all), "an object of texts");
  for (const auto& [name, value] : all.items()) {
    const bool elsewhere = name == "busid" || name == "host_hash" || name == "name";
    if (!is_attribute_name(name) || elsewhere || out.size() >= kMostAttributes)
      throw InvalidInput(fields.path("attributes"), '"' + name.substr(0, 64) + '"',
                         elsewhere
                             ? "has a field of its own"
                             : fmt::format("at most {} names of 1 to 64 letters, digits, _ . and -", kMostAttributes));
    if (!value.is_string()) throw InvalidInput(fields.path("attributes") + "." + name, brief(value), "a text");
    out.push_back({name, value.get<std::string>()});
  }
  return out;
}

// The explicit form: devices by name, links between names.
class GraphReader {
 public:
  explicit GraphReader(JsonFields& fields) : fields_(fields) {}

  void read(HostTemplate& host) {
    host.nvlink = one_of(fields_.path("nvlink"), fields_.text("nvlink"), presence, "present, absent, unknown");
    each("devices", [&](JsonFields device) {
      HostDevice value;
      value.kind =
          one_of(device.path("kind"), device.text("kind"), device_kind, "gpu, nic, numa, pci_switch, nvswitch");
      value.name = device.text("name");
      value.bus_id = device.text("bus_id", "");
      value.numa = device.integer("numa", -1);
      value.attributes = read_attributes(device);
      device.refuse_unknown();
      if (!index_.emplace(value.name, static_cast<int>(host.devices.size())).second)
        throw InvalidInput(device.path("name"), value.name, "already taken in this host; make it unique");
      if (value.kind == DeviceKind::gpu) host.gpus.push_back(static_cast<int>(host.devices.size()));
      host.devices.push_back(std::move(value));
    });
    each("links", [&](JsonFields link) {
      Link value;
      value.src = device(link, "src");
      value.dst = device(link, "dst");
      value.kind = one_of(link.path("kind"), link.text("kind"), link_kind,
                          "nvlink, xgmi, c2c, pcie, cpu_interconnect, cpu_root");
      value.GBps_per_direction = link.number("GBps_per_direction");
      value.latency_us = link.number("latency_us", 0);
      value.both_ways = link.boolean("both_ways", true);
      value.count = link.integer("count", 0);
      read_source(link, value.source, value.source_note);
      link.refuse_unknown();
      host.links.push_back(std::move(value));
    });
    if (!fields_.has("nics")) return;
    each("nics", [&](JsonFields nic) {
      Nic value;
      value.device = device(nic, "device");
      value.rail = nic.integer("rail", static_cast<int>(host.nics.size()));
      value.name = nic.text("name", "");
      value.port = read_rate(nic.object("port"));
      value.attributes = read_attributes(nic);
      nic.refuse_unknown();
      host.nics.push_back(std::move(value));
    });
  }

 private:
  template <class Read>
  void each(const std::string& key, Read read) {
    const Json& array = fields_.array(key);
    for (std::size_t i = 0; i < array.size(); ++i)
      read(JsonFields(array[i], fmt::format("{}[{}]", fields_.path(key), i)));
  }
  int device(JsonFields& fields, const std::string& key) {
    const std::string name = fields.text(key);
    const auto at = index_.find(name);
    if (at == index_.end())
      throw InvalidInput(fields.path(key), '"' + name + '"', "no device of this name in \"devices\"");
    return at->second;
  }

  JsonFields& fields_;
  std::map<std::string, int> index_;
};

class ClusterReader {
 public:
  ClusterReader(const std::string& where, const std::string& directory) : where_(where), directory_(directory) {}

  Topology read(const Json& root) {
    JsonFields fields(root, where_ + ": ");
    const std::string schema = fields.text("schema");
    if (schema != "topomoe.cluster/1")
      throw InvalidInput(fields.path("schema"), '"' + schema + '"', "this version reads \"topomoe.cluster/1\"");
    topology_.name = fields.text("name", "");
    topology_.source = fields.text("source", "");
    topology_.hosts_per_domain = fields.integer("hosts_per_domain", 1);
    if (fields.has("templates")) {
      const Json& templates = fields.array("templates");
      for (std::size_t i = 0; i < templates.size(); ++i)
        add_template(JsonFields(templates[i], fmt::format("{}[{}]", fields.path("templates"), i)));
    }
    const Json& hosts = fields.array("hosts");
    for (std::size_t i = 0; i < hosts.size(); ++i)
      add_group(JsonFields(hosts[i], fmt::format("{}[{}]", fields.path("hosts"), i)));
    if (topology_.templates.empty()) throw InvalidInput(fields.path("templates"), "none", "describe at least one host");
    topology_.host_names = texts(fields, "host_names");
    if (fields.has("fabric")) read_fabric(fields.object("fabric"));
    add_warnings(topology_, texts(fields, "warnings"));
    fields.refuse_unknown();
    require_valid(topology_, where_);
    add_warnings(topology_, warnings_from_sources(topology_));
    return std::move(topology_);
  }

 private:
  int add_template(JsonFields fields) {
    HostTemplate host;
    if (fields.has("nccl_xml")) {
      host = from_nccl_xml(fields);
    } else {
      const std::string name = fields.text("name");
      const GpuSpec gpu = fields.has("gpu") ? read_gpu(fields.object("gpu")) : GpuSpec{};
      if (fields.has("shape")) {
        const HostShape shape = read_shape(fields.object("shape"));
        try {
          host = build_host(shape, gpu, name);
        } catch (const InvalidInput& error) {
          throw InvalidInput(where_ + ": " + error.field, error.value, error.hint);
        }
      } else if (fields.has("devices")) {
        host.name = name;
        host.gpu = gpu;
        GraphReader(fields).read(host);
      } else {
        throw InvalidInput(fields.path("shape"), "missing",
                           "give \"shape\", or \"devices\" and \"links\", or \"nccl_xml\"");
      }
    }
    fields.refuse_unknown();
    const auto index = static_cast<int>(topology_.templates.size());
    if (!index_.emplace(host.name, index).second)
      throw InvalidInput(fields.path("name"), '"' + host.name + '"', "already taken by another template");
    topology_.templates.push_back(std::move(host));
    return index;
  }

  // A host as NCCL saw it, from a file beside this one; what the file cannot know is given here.
  HostTemplate from_nccl_xml(JsonFields& fields) {
    const std::string file = fields.text("nccl_xml");
    if (directory_.empty())
      throw InvalidInput(fields.path("nccl_xml"), file,
                         "only a cluster read from a file may refer to a file beside it");
    const bool leaves = file.empty() || file.front() == '/' || file.find("..") != std::string::npos;
    if (leaves)
      throw InvalidInput(fields.path("nccl_xml"), '"' + file + '"',
                         "a file in the folder of the cluster JSON, or below it");
    Topology read = read_nccl_xml(read_text_file(directory_ + "/" + file), file);
    if (read.templates.size() != 1)
      throw InvalidInput(fields.path("nccl_xml"), file,
                         fmt::format("must hold one host, has {}", read.templates.size()));
    // What follows from the figures is said again later, of the figures as they are then.
    const std::vector<std::string> derived = warnings_from_sources(read);
    for (const std::string& line : read.warnings)
      if (std::find(derived.begin(), derived.end(), line) == derived.end()) add_warning(topology_, line);
    HostTemplate host = std::move(read.templates[0]);
    host.name = fields.text("name", host.name);
    if (fields.has("gpu")) host.gpu = read_gpu(fields.object("gpu"));
    if (fields.has("nic")) {
      const Rate nic = read_rate(fields.object("nic"));
      for (Nic& own : host.nics) own.port = nic;
    }
    if (fields.has("cpu_interconnect"))
      override_links(host, LinkKind::cpu_interconnect, read_rate(fields.object("cpu_interconnect")));
    return host;
  }

  static void override_links(HostTemplate& host, LinkKind kind, const Rate& rate) {
    for (Link& link : host.links) {
      if (link.kind != kind) continue;
      link.GBps_per_direction = rate.GBps_per_direction;
      link.latency_us = rate.latency_us;
      link.source = rate.source;
      link.source_note = rate.source_note;
    }
  }

  void add_group(JsonFields fields) {
    HostGroup group;
    group.count = fields.integer("count", 1);
    const Json& which = fields.get("template");
    if (which.is_object()) {
      group.template_index = add_template(fields.object("template"));
    } else {
      const std::string name = fields.text("template");
      const auto found = index_.find(name);
      if (found == index_.end()) {
        std::vector<std::string> known;
        for (const HostTemplate& own : topology_.templates) known.push_back(own.name);
        throw InvalidInput(fields.path("template"), '"' + name + '"', fmt::format("known: {}", fmt::join(known, ", ")));
      }
      group.template_index = found->second;
    }
    fields.refuse_unknown();
    topology_.groups.push_back(group);
  }

  void read_fabric(JsonFields fields) {
    Fabric fabric;
    const std::string word = fields.text("kind", "fat_tree");
    const auto kind = fabric_kind(word);
    if (!kind) throw InvalidInput(fields.path("kind"), '"' + word + '"', "known: fat_tree, dragonfly_plus, torus");
    fabric.kind = *kind;
    if (fabric.kind == FabricKind::torus) {
      fields.array("dims");  // must be there
      fabric.dims = numbers(fields, "dims");
      fabric.ring = read_rate(fields.object("ring"));
    } else {
      read_tree(fabric, fields);
    }
    if (fields.has("exceptions")) {
      const Json& list = fields.array("exceptions");
      for (std::size_t i = 0; i < list.size(); ++i) {
        JsonFields own(list[i], fmt::format("{}[{}]", fields.path("exceptions"), i));
        fabric.exceptions.push_back({own.text("name"), own.number("factor")});
        own.refuse_unknown();
      }
    }
    fields.refuse_unknown();
    topology_.fabric = fabric;
  }

  static std::vector<int> numbers(JsonFields& fields, const std::string& key) {
    std::vector<int> out;
    if (!fields.has(key)) return out;
    for (const Json& size : fields.array(key)) {
      if (!size.is_number_integer()) throw InvalidInput(fields.path(key), brief(size), "whole numbers");
      out.push_back(static_cast<int>(std::clamp<std::int64_t>(size.get<std::int64_t>(), -1, 1 << 30)));
    }
    return out;
  }
  static std::vector<std::string> texts(JsonFields& fields, const std::string& key) {
    std::vector<std::string> out;
    if (!fields.has(key)) return out;
    for (const Json& text : fields.array(key)) {
      if (!text.is_string()) throw InvalidInput(fields.path(key), brief(text), "texts only");
      out.push_back(text.get<std::string>());
    }
    return out;
  }

  void read_tree(Fabric& fabric, JsonFields& fields) {
    fabric.rails = fields.integer("rails", 1);
    fabric.rail_optimised = fields.boolean("rail_optimised", false);
    fabric.planes = fields.integer("planes", 1);
    fabric.hosts_per_leaf = fields.integer("hosts_per_leaf");
    fabric.leaf_hosts = numbers(fields, "leaf_hosts");
    fabric.leaf_names = texts(fields, "leaf_names");
    fabric.pod_names = texts(fields, "pod_names");
    fabric.spine_count = fields.integer("spine_count", 0);
    if (fabric.rails < 1) throw InvalidInput(fields.path("rails"), std::to_string(fabric.rails), "1 or more");
    if (fabric.planes < 1) throw InvalidInput(fields.path("planes"), std::to_string(fabric.planes), "1 or more");
    if (fabric.hosts_per_leaf < 1)
      throw InvalidInput(fields.path("hosts_per_leaf"), std::to_string(fabric.hosts_per_leaf), "1 or more");
    read_tier(fields, "oversubscription", "uplink", "NICs a leaf", leaf_down_GBps(topology_, fabric),
              fabric.spine_count > 0, fabric.oversubscription, fabric.uplink);
    const std::string pod = fabric.kind == FabricKind::dragonfly_plus ? "group" : "pod";
    fabric.hosts_per_pod = fields.integer("hosts_per_" + pod, 0);
    const bool is_tree = fabric.kind == FabricKind::fat_tree;
    if (is_tree) {
      if (fabric.hosts_per_pod > 0 && !fields.has("core_count"))
        throw InvalidInput(fields.path("core_count"), "missing", "switches above the pods; 0: pods are not joined");
      fabric.core_count = fields.integer("core_count", 0);
    }
    fabric.pod_leaves = numbers(fields, pod + "_leaves");
    const bool pods = fabric.hosts_per_pod >= fabric.hosts_per_leaf;
    read_tier(fields, pod + "_oversubscription", pod + "_uplink", "leaf uplinks a " + pod + " and way out",
              pods ? pod_uplink_GBps(topology_, fabric, 1) : 0,
              fabric.hosts_per_pod > 0 && (!is_tree || fabric.core_count > 0), fabric.pod_oversubscription,
              fabric.pod_uplink);
  }

  // The rate of the uplinks may be given as such, or as oversubscription; both must agree.
  static void read_tier(JsonFields& fields, const std::string& ratio_key, const std::string& key,
                        const std::string& below, double down, bool needed, double& oversubscription, Rate& rate) {
    const bool has_ratio = fields.has(ratio_key);
    oversubscription = fields.number(ratio_key, 1);
    if (!(oversubscription > 0))
      throw InvalidInput(fields.path(ratio_key), brief(fields.get(ratio_key)), "above 0; 1 is non-blocking");
    if (!fields.has(key)) {
      if (needed)
        throw InvalidInput(
            fields.path(key), "missing",
            fmt::format("give {{GBps_per_direction, latency_us, source}}: the rate of all of them together; it "
                        "follows from {} where it is left out",
                        ratio_key));
      return;
    }
    JsonFields uplink = fields.object(key);
    if (!uplink.has("GBps_per_direction")) {
      rate.latency_us = uplink.number("latency_us", 0);
      read_source(uplink, rate.source, rate.source_note);
      if (has_ratio || rate.source != Source::unknown) rate.GBps_per_direction = down / oversubscription;
      uplink.refuse_unknown();
      return;
    }
    rate = read_rate(fields.object(key));
    const double ratio = down / rate.GBps_per_direction;
    if (has_ratio && down > 0 && std::abs(ratio - oversubscription) > 0.001 * oversubscription)
      throw InvalidInput(fields.path(ratio_key), brief(fields.get(ratio_key)),
                         fmt::format("{}.GBps_per_direction {} under {} GB/s of {} means {}; give one of the two", key,
                                     rate.GBps_per_direction, down, below, short_number(ratio, 4)));
    if (!has_ratio && ratio > 0) oversubscription = ratio;
  }

  const std::string& where_;
  const std::string& directory_;
  Topology topology_;
  std::map<std::string, int> index_;  // of templates
};

}  // namespace

Topology read_cluster_json(std::string_view text, const std::string& where, const std::string& directory) {
  return ClusterReader(where, directory).read(parse_description(text, where));
}

}  // namespace topomoe
