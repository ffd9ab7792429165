// The schema as data: the fields of one Config flattened to a list, each able to read and write its member. The
// loader, the dump, the key listing and the comparison of two configurations are loops over this list.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/config.h"
#include "config/node.h"

namespace sluice::config {

struct Field {
  std::string key;   // "distributed.ep_size"
  std::string type;  // "integer >= 1"
  std::string doc;
  std::string preset;                       // sluice's own default, as YAML
  bool takes_null = false;                  // null is a value of it; otherwise null in a file is as good as nothing
  std::function<void(const Node&)> assign;  // throws without place or key
  std::function<std::string()> write;       // the value now, as YAML
};

// A section, a key without effect, or one that is refused.
struct Described {
  std::string key;
  std::string doc;
};

// An older name of a key or a section.
struct Renamed {
  std::string old;
  std::string now;
};

struct Schema {
  std::vector<Field> fields;  // in the order of declaration
  std::vector<Described> sections;
  std::vector<Described> ignored;
  std::vector<Described> refused;
  std::vector<Renamed> renamed;
  HubFields* open = nullptr;  // where further keys of `open_section` go
  Described open_section;

  const Field* find(std::string_view key) const;
  const Described* find_section(std::string_view key) const;
  const Described* find_ignored(std::string_view key) const;
  const Described* find_refused(std::string_view key) const;
  // Whether `key` is an older name of a section.
  bool is_old_section(std::string_view key) const;
  // What an older name of a key, or a key of an older section, is now; the key itself otherwise.
  std::string name_now(std::string_view key) const;
};

// The list refers to `config`, which must outlive it and stay where it is.
Schema bind(Config& config);

// The default of a field as a file would have it.
Node preset_of(const Field& field);

// The error for a key the schema does not have, with the key that was probably meant: a near spelling in the same
// section, the same name in another, a near spelling anywhere. `written` is what stands in the file, if it is an older
// name.
Error unknown_key(const Schema& schema, std::string_view key, std::string_view written = {});

// "a.b.c" -> "a.b", and "c".
std::string_view parent(std::string_view key);
std::string_view leaf(std::string_view key);

}  // namespace sluice::config
