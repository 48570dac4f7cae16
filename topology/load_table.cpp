#include "topology/load_table.hpp"

namespace topomoe {

std::size_t LoadTable::class_of(int id) const {
  const Router::State& state = router_.state();
  if (id >= state.first_fabric_link) {
    const FabricMap& fabric = state.fabric;
    if (fabric.top == FabricMap::Top::torus) return 13;
    if (id < fabric.first_upper) return (id - fabric.first) % 2 == 0 ? 8 : 9;
    if (fabric.top == FabricMap::Top::mesh) return 12;
    return (id - fabric.first_upper) % 2 == 0 ? 10 : 11;
  }
  const HostRun& run = state.run_of_link(id);
  const int local = (id - run.first_link) % run.links_per_host;
  const int directed = state.directed_links(run);
  if (local >= directed) return (local - directed) % 2 == 0 ? 6 : 7;
  const auto& links = state.paths[static_cast<std::size_t>(run.template_index)].directed;
  return static_cast<std::size_t>(links[static_cast<std::size_t>(local)].kind);
}

Bottleneck LoadTable::bottleneck() const {
  const ClassLoad* worst = nullptr;
  for (const ClassLoad& load : classes_) {
    if (load.link < 0) continue;
    if (worst == nullptr || load.seconds > worst->seconds ||
        (load.seconds == worst->seconds && load.link < worst->link))
      worst = &load;
  }
  if (worst == nullptr) return {};
  const LinkInfo info = router_.link(worst->link);
  return {worst->link, info.name, info.klass, worst->seconds};
}

std::vector<ClassLoad> LoadTable::by_class() const {
  std::vector<ClassLoad> result;
  for (std::size_t i = 0; i < classes_.size(); ++i) {
    if (classes_[i].link < 0) continue;
    result.push_back(classes_[i]);
    result.back().klass = kClasses[i];
    result.back().name = router_.link(classes_[i].link).name;
  }
  return result;
}

}  // namespace topomoe
