// A Schedule from its JSON: strict about keys, types and names. Whether the schedule makes sense is the
// question of check(Schedule); here only what cannot be represented is refused.
#include "planner/plan/schedule_words.hpp"

namespace topomoe {
namespace {

// A key that may be missing: `otherwise` then, else what `read` makes of its text and its place.
template <class T, class F>
T read_or(ObjectReader& in, const char* key, T otherwise, F read) {
  return in.has(key) ? read(in.text(key), in.field(key)) : otherwise;
}
template <class T, std::size_t N>
T enum_or(ObjectReader& in, const char* key, T otherwise, const NameTable<T, N>& table) {
  return read_or(in, key, otherwise,
                 [&](const std::string& text, const std::string& at) { return value_of(table, text, at); });
}
bool flag(ObjectReader& in, const char* key) { return in.has(key) && in.boolean(key); }

const ordered_json& array_at(ObjectReader& in, const char* key) {
  const ordered_json& array = in.at(key);
  if (!array.is_array()) throw InvalidInput(in.field(key), preview(array), "must be an array");
  return array;
}
// Calls read(element, its place) for each element of an array that may be missing if `optional`.
template <class F>
void each(ObjectReader& in, const char* key, bool optional, F read) {
  if (optional && !in.has(key)) return;
  const ordered_json& array = array_at(in, key);
  for (std::size_t i = 0; i < array.size(); ++i) read(array[i], in.field(key) + "[" + std::to_string(i) + "]");
}
const std::string& text_of(const ordered_json& value, const std::string& at) {
  if (!value.is_string()) throw InvalidInput(at, preview(value), "must be a string");
  return value.get_ref<const std::string&>();
}

Chunks chunks_of(const ordered_json& value, const std::string& at) {
  if (!value.is_array() || value.size() != 2) throw InvalidInput(at, preview(value), "must be [begin, end)");
  return {ObjectReader::as_integer(value[0], at, 0, kMaxChunks), ObjectReader::as_integer(value[1], at, 0, kMaxChunks)};
}
RankSet rank_set(std::string_view text, const std::string& at) {
  RankSet set;
  bool first = true;
  for (std::size_t dot = 0; dot != std::string_view::npos; first = false) {
    dot = text.find('.');
    const std::string_view word = text.substr(0, dot);
    if (first) {
      set.base = value_of(kWhos, word, at);
    } else {
      set.spread.push_back(role_from(word, at));
    }
    if (dot != std::string_view::npos) text.remove_prefix(dot + 1);
  }
  return set;
}
Split split_of(const std::string& text, const std::string& at) {
  const RankSet set = rank_set(text, at);
  if (set.spread.size() != 1) throw InvalidInput(at, preview(text), "must be me or peer and one group, such as me.etp");
  return {set.spread[0], set.base};
}
RankSet ranks_at(ObjectReader& in, const char* key) { return rank_set(in.text(key), in.field(key)); }

class Reader {
 public:
  Reader(const ordered_json& json, std::string where) : in_(json, std::move(where)) {}

  Schedule read() {
    Schedule s;
    s.name = in_.text("name");
    s.split = in_.text("split");
    s.transport = in_.text("transport");
    s.intake = value_of(kIntakes, in_.text("intake"), in_.field("intake"));
    s.chunks = in_.integer("chunks", 1, kMaxChunks);
    s.pieces = in_.integer("pieces", 1, s.chunks);
    collect("buffers", buffers_);
    collect("maps", maps_);
    each(in_, "buffers", false,
         [&](const ordered_json& j, const std::string& at) { s.buffers.push_back(buffer(j, at)); });
    each(in_, "maps", false, [&](const ordered_json& j, const std::string& at) { s.maps.push_back(map(j, at)); });
    for (const auto& [key, steps] : {std::pair{"forward", &s.forward}, {"backward", &s.backward}}) {
      Names names("step of this pass");
      collect(key, names);
      each(in_, key, false,
           [&, out = steps](const ordered_json& j, const std::string& at) { out->push_back(step(j, at, names)); });
    }
    in_.finish();
    return s;
  }

 private:
  void collect(const char* key, Names& names) {
    each(in_, key, false, [&](const ordered_json& j, const std::string& at) {
      ObjectReader in(j, at);
      const std::string name = in.text("name");
      if (name.empty()) throw InvalidInput(in.field("name"), "empty", "must name it");
      if (!names.add(name))
        throw InvalidInput(in.field("name"), preview(name), "this name is taken; names must be unique");
    });
  }

  View view(const ordered_json& j, const std::string& at) const {
    View v;
    if (j.is_string()) {
      v.buffer = buffers_.find(j.get_ref<const std::string&>(), at);
      return v;
    }
    if (!j.is_object())
      throw InvalidInput(at, preview(j), "must be a buffer's name, or an object with a buffer and selectors");
    ObjectReader in(j, at);
    v.buffer = buffers_.find(in.text("buffer"), in.field("buffer"));
    if (in.has("chunks")) v.chunks = chunks_of(in.at("chunks"), in.field("chunks"));
    if (in.has("sources")) v.sources = ranks_at(in, "sources");
    if (in.has("dests")) v.dests = ranks_at(in, "dests");
    if (in.has("split")) v.split = split_of(in.text("split"), in.field("split"));
    if (in.has("block")) v.block = value_of(kWhos, in.text("block"), in.field("block"));
    in.finish();
    return v;
  }
  View view_or_none(ObjectReader& in, const char* key) const {
    return in.has(key) ? view(in.at(key), in.field(key)) : View{};
  }

  Buffer buffer(const ordered_json& j, const std::string& at) const {
    ObjectReader in(j, at);
    Buffer b;
    b.name = in.text("name");
    b.symbol = value_of(kSymbols, in.text("symbol"), in.field("symbol"));
    if (in.has("chunks")) b.chunks = chunks_of(in.at("chunks"), in.field("chunks"));
    b.sources = ranks_at(in, "sources");
    b.dests = read_or(in, "dests", RankSet{}, rank_set);
    b.order = value_of(kOrders, in.text("order"), in.field("order"));
    if (in.has("together")) b.together = in.integer("together", 1, kMaxChunks);
    b.columns = enum_or(in, "columns", b.columns, kColumns);
    b.element = enum_or(in, "element", b.element, kElements);
    b.storage = enum_or(in, "storage", b.storage, kStorages);
    if (in.has("blocks")) b.blocks = role_from(in.text("blocks"), in.field("blocks"));
    if (in.has("split")) b.split = split_of(in.text("split"), in.field("split"));
    if (in.has("alias")) b.alias = buffers_.find(in.text("alias"), in.field("alias"));
    in.finish();
    return b;
  }
  IndexMap map(const ordered_json& j, const std::string& at) const {
    ObjectReader in(j, at);
    IndexMap m{in.text("name"), view(in.at("from"), in.field("from")), view(in.at("to"), in.field("to")),
               view_or_none(in, "ids")};
    in.finish();
    return m;
  }
  static CountSlice slice(const ordered_json& j, const std::string& at) {
    ObjectReader in(j, at);
    CountSlice slice;
    slice.symbol = value_of(kSymbols, in.text("symbol"), in.field("symbol"));
    slice.sources = ranks_at(in, "sources");
    slice.dests = read_or(in, "dests", RankSet{}, rank_set);
    in.finish();
    return slice;
  }
  Step step(const ordered_json& j, const std::string& at, const Names& steps) const {
    ObjectReader in(j, at);
    Step s;
    s.name = in.text("name");
    s.kind = value_of(kKinds, in.text("kind"), in.field("kind"));
    s.phase = enum_or(in, "phase", s.phase, kPhases);
    if (in.has("chunk")) s.chunk = in.integer("chunk", 0, kMaxChunks - 1);
    s.lane = enum_or(in, "lane", s.lane, kLanes);
    // Who takes part in communication is never left to a default.
    if (communicates(s.kind) || in.has("group")) s.group = role_from(in.text("group"), in.field("group"));
    s.metadata = flag(in, "metadata");
    each(in, "in", true, [&](const ordered_json& v, const std::string& place) { s.in.push_back(view(v, place)); });
    each(in, "out", true, [&](const ordered_json& v, const std::string& place) { s.out.push_back(view(v, place)); });
    if (in.has("map")) s.map = maps_.find(in.text("map"), in.field("map"));
    s.transpose = flag(in, "transpose");
    s.weights = view_or_none(in, "weights");
    s.shared_by_tp = flag(in, "shared_by_tp");
    s.beside = flag(in, "beside");
    each(in, "slices", true,
         [&](const ordered_json& c, const std::string& place) { s.slices.push_back(slice(c, place)); });
    each(in, "after", true, [&](const ordered_json& name, const std::string& place) {
      s.after.push_back(steps.find(text_of(name, place), place));
    });
    in.finish();
    return s;
  }

  ObjectReader in_;
  Names buffers_{"buffer"}, maps_{"map"};
};

}  // namespace

Schedule schedule_from_json(const ordered_json& json, const std::string& where) { return Reader(json, where).read(); }

}  // namespace topomoe
