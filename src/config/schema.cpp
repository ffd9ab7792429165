#include "config/schema.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "base/text.h"
#include "config/codec.h"

namespace sluice::config {
namespace {

std::string join(std::string_view section, std::string_view name) {
  std::string key(section);
  if (!key.empty()) key += '.';
  return key += name;
}

template <class T>
constexpr bool is_optional = false;
template <class T>
constexpr bool is_optional<std::optional<T>> = true;

// Visits the `fields` of every section and writes down what it is shown.
class Binder {
 public:
  explicit Binder(Schema& schema) : schema_(schema) {}

  template <class T>
  void operator()(std::string_view name, T& value, std::string_view doc, Range range = {}) {
    schema_.fields.push_back({.key = join(section_, name),
                              .type = Codec<T>::type(range),
                              .doc = std::string(doc),
                              .preset = {},
                              .takes_null = is_optional<T>,
                              .assign = [&value, range](const Node& node) { value = Codec<T>::read(node, range); },
                              .write = [&value] { return Codec<T>::write(value); }});
  }

  void operator()(std::string_view name, std::string& value, std::string_view doc,
                  std::initializer_list<std::string_view> allowed) {
    const std::vector<std::string> words(allowed.begin(), allowed.end());
    schema_.fields.push_back({.key = join(section_, name),
                              .type = one_of(words),
                              .doc = std::string(doc),
                              .preset = {},
                              .assign = [&value, words](const Node& node) { value = words[read_word(node, words)]; },
                              .write = [&value] { return write_text(value); }});
  }

  template <class Section>
  void section(std::string_view name, Section& value, std::string_view doc) {
    const std::string outer = std::exchange(section_, join(section_, name));
    schema_.sections.push_back({section_, std::string(doc)});
    value.fields(*this);
    section_ = outer;
  }

  void ignore(std::string_view name, std::string_view reason) {
    schema_.ignored.push_back({join(section_, name), std::string(reason)});
  }

  void refuse(std::string_view name, std::string_view reason) {
    schema_.refused.push_back({join(section_, name), std::string(reason)});
  }

  void renamed(std::string_view old, std::string_view now) {
    schema_.renamed.push_back({std::string(old), std::string(now)});
  }

  void open(HubFields& fields, std::string_view doc) {
    schema_.open = &fields;
    schema_.open_section = {section_, std::string(doc)};
  }

 private:
  Schema& schema_;
  std::string section_;
};

template <class List>
auto find_key(const List& list, std::string_view key) {
  const auto found = std::ranges::find(list, key, [](const auto& entry) -> std::string_view { return entry.key; });
  return found == list.end() ? nullptr : &*found;
}

// The section of the schema that `key` stands in or under.
std::string_view enclosing_section(const Schema& schema, std::string_view key) {
  std::string_view section = parent(key);
  while (!section.empty() && schema.find_section(section) == nullptr) section = parent(section);
  return section;
}

// No person's key is longer; likeness takes length x length, and a message is to be read.
constexpr std::size_t kLongestKey = 200;

std::string suggestion(const Schema& schema, std::string_view key) {
  if (key.size() > kLongestKey) return {};
  std::vector<std::string> all;
  for (const Field& field : schema.fields) all.push_back(field.key);
  for (const Described& section : schema.sections) all.push_back(section.key);
  for (const Described& ignored : schema.ignored) all.push_back(ignored.key);
  for (const Renamed& renamed : schema.renamed) all.push_back(renamed.old);

  const std::string_view section = parent(key);
  std::vector<std::string> names;
  for (const std::string& other : all) {
    if (parent(other) == section) names.emplace_back(leaf(other));
  }
  if (const std::string near = nearest(leaf(key), names); !near.empty()) return join(section, near);
  const auto elsewhere = std::ranges::find(all, leaf(key), [](const std::string& other) { return leaf(other); });
  if (elsewhere != all.end()) return *elsewhere;
  return nearest(key, all);
}

}  // namespace

const Field* Schema::find(std::string_view key) const {
  return find_key(fields, key);
}
const Described* Schema::find_section(std::string_view key) const {
  return find_key(sections, key);
}
const Described* Schema::find_ignored(std::string_view key) const {
  return find_key(ignored, key);
}
const Described* Schema::find_refused(std::string_view key) const {
  return find_key(refused, key);
}

bool Schema::is_old_section(std::string_view key) const {
  return std::ranges::any_of(renamed, [&](const Renamed& r) { return r.old == key && find_section(r.now) != nullptr; });
}

std::string Schema::name_now(std::string_view key) const {
  const auto named = [&](std::string_view old) { return std::ranges::find(renamed, old, &Renamed::old); };
  if (const auto found = named(key); found != renamed.end()) return found->now;
  for (std::string_view outer = parent(key); !outer.empty(); outer = parent(outer)) {
    if (const auto found = named(outer); found != renamed.end()) {
      return found->now + std::string(key.substr(outer.size()));
    }
  }
  return std::string(key);
}

Schema bind(Config& config) {
  Config defaults;
  Schema presets;
  Binder of_defaults(presets);
  defaults.fields(of_defaults);
  Schema schema;
  Binder binder(schema);
  config.fields(binder);
  for (std::size_t i = 0; i < schema.fields.size(); ++i) schema.fields[i].preset = presets.fields[i].write();
  return schema;
}

Node preset_of(const Field& field) {
  Node node = parse_yaml(field.preset, field.key);
  node.line = 0;
  return node;
}

Error unknown_key(const Schema& schema, std::string_view key, std::string_view written) {
  const std::string meant = suggestion(schema, key);
  const std::string_view section = enclosing_section(schema, meant.empty() ? key : std::string_view(meant));
  const std::string listing = section.empty() ? "all keys: sluice config --keys"
                                              : fmt::format("keys of this section: sluice config --keys {}", section);
  std::string shown(written.empty() ? key : written);
  if (shown.size() > kLongestKey) shown = shown.substr(0, kLongestKey) + "...";
  Error error = user_error("{} is not a key", shown);
  return std::move(error).advise(meant.empty() ? listing : fmt::format("did you mean {}?   ({})", meant, listing));
}

std::string_view parent(std::string_view key) {
  const std::size_t dot = key.rfind('.');
  return dot == std::string_view::npos ? std::string_view{} : key.substr(0, dot);
}

std::string_view leaf(std::string_view key) {
  const std::size_t dot = key.rfind('.');
  return dot == std::string_view::npos ? key : key.substr(dot + 1);
}

}  // namespace sluice::config
