#include "config/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "config/codec.h"
#include "config/defaults.h"
#include "config/schema.h"

namespace sluice::config {
namespace {

// Lays parsed values over a configuration, key by key.
class Loader {
 public:
  // `name` is the file; a value of the command line or of a rule has the origin it is given instead.
  Loader(Config& config, std::string_view name) : config_(config), schema_(bind(config)), name_(name) {}
  Loader(Config& config, Origin origin) : Loader(config, place_of(origin)) { origin_ = std::move(origin); }

  // The entries of a section, of the whole file when `section` is empty. Its class comes first: it says what else there
  // can be.
  void entries(const std::string& section, const Node& node) {
    for (const bool classes : {true, false}) {
      for (const Node& item : node.items) {
        if ((item.key == "_target_") == classes) entry(section, item);
      }
    }
  }

  void entry(const std::string& section, const Node& node) {
    const std::string key = section.empty() ? node.key : section + "." + node.key;
    // Dots are for the command line; in a file they would let a key be given twice.
    if (node.key.find('.') != std::string::npos && !is_open(key)) throw unknown_key(schema_, key).at(at(node));
    value(key, node);
  }

  void value(const std::string& given, const Node& node) {
    // The keys of an older section are looked up one by one.
    if (schema_.is_old_section(given)) return section(given, node);
    const std::string key = schema_.name_now(given);
    if (const Field* field = schema_.find(key)) {
      assign(*field, node);
    } else if (schema_.find_section(key) != nullptr) {
      section(key, node);
    } else if (const Described* ignored = schema_.find_ignored(key)) {
      config_.ignored.push_back({key, written(key, node).text, ignored->doc});
    } else if (const Described* refused = schema_.find_refused(key)) {
      if (node.kind == Node::Kind::null) return;
      throw user_error("{}: {}", key, refused->doc).at(at(node)).advise("leave the section out, or set it to null");
    } else if (is_open(key)) {
      hub_field(key, node);
    } else if (const std::string inside = ignored_around(key); !inside.empty()) {
      config_.ignored.push_back({key, written(key, node).text, schema_.find_ignored(inside)->doc});
    } else {
      throw unknown_key(schema_, key, given).at(at(node));
    }
  }

 private:
  static std::string place_of(const Origin& origin) {
    return origin.kind == Origin::Kind::command_line ? "command line" : origin.text;
  }

  std::string at(const Node& node) const { return place(name_, node.line); }

  Origin written(std::string_view key, const Node& node) const {
    if (origin_.kind == Origin::Kind::preset) return {Origin::Kind::file, at(node)};
    // An override of a whole section is noted by its own name at each of its keys.
    if (origin_.kind == Origin::Kind::command_line && origin_.text.empty())
      return {origin_.kind, fmt::format("--{}", key)};
    return origin_;
  }

  void assign(const Field& field, const Node& node) {
    if (const auto [first, fresh] = assigned_.emplace(field.key, at(node)); !fresh) {
      throw user_error("{} is given twice", field.key).at(at(node)).advise("the other is at " + first->second);
    }
    if (is_null(node, false) && !field.takes_null) {
      field.assign(preset_of(field));
      if (origin_.kind == Origin::Kind::preset) {
        config_.origins.erase(field.key);
      } else {
        config_.origins[field.key] = written(field.key, node);
      }
      return;
    }
    // NeMo also writes a choice as a section that holds nothing but its target.
    const bool wrapped = node.kind == Node::Kind::map && node.items.size() == 1 && node.items[0].key == "_target_";
    Node read;
    naming(field.key, node, [&] {
      read = expanded(wrapped ? node.items[0] : node);
      const std::string absent = why_absent(read.text);
      if (leaf(field.key) == "_target_" && !absent.empty()) throw user_error("{}: {}", read.text, absent);
      field.assign(read);
    });
    Origin origin = written(field.key, node);
    origin.word = read.text;
    config_.origins[field.key] = std::move(origin);
  }

  // Null in a file is as good as no section; on the command line it takes away what the file gave.
  void section(const std::string& key, const Node& node) {
    if (node.kind == Node::Kind::null) {
      if (origin_.kind != Origin::Kind::preset) clear(key);
      return;
    }
    if (node.kind == Node::Kind::map && node.items.empty()) {
      config_.ignored.push_back({key, written(key, node).text, "an empty section"});
    }
    if (node.kind != Node::Kind::map) {
      throw user_error("{} is a section: its keys stand indented below it", key)
          .at(at(node))
          .advise(fmt::format("keys of this section: sluice config --keys {}", key));
    }
    config_.origins[key] = written(key, node);
    entries(key, node);
  }

  void clear(const std::string& section) {
    const auto below = [&](std::string_view key) {
      return key == section || (key.starts_with(section) && key[section.size()] == '.');
    };
    std::erase_if(config_.origins, [&](const auto& entry) { return below(entry.first); });
    std::erase_if(config_.ignored, [&](const IgnoredKey& ignored) { return below(ignored.key); });
    if (below(schema_.open_section.key)) schema_.open->fields.clear();
    for (const Field& field : schema_.fields) {
      if (below(field.key)) field.assign(preset_of(field));
    }
    // What stands elsewhere now, such as rng.seed.
    for (const Renamed& renamed : schema_.renamed) {
      const Field* field = below(renamed.old) ? schema_.find(renamed.now) : nullptr;
      if (field == nullptr || below(renamed.now)) continue;
      field->assign(preset_of(*field));
      config_.origins.erase(renamed.now);
    }
    config_.origins[section] = {.kind = Origin::Kind::preset, .text = {}, .word = "null"};
  }

  bool is_open(std::string_view key) const {
    const std::string& open = schema_.open_section.key;
    if (schema_.open == nullptr || !key.starts_with(open + ".")) return false;
    // A near miss of one of the section's own keys is a mistake, not a field of the model.
    std::vector<std::string> own;
    for (const Field& field : schema_.fields) {
      if (parent(field.key) == open) own.emplace_back(leaf(field.key));
    }
    return nearest(key.substr(open.size() + 1), own).empty();
  }

  void hub_field(const std::string& key, const Node& node) {
    if (node.kind == Node::Kind::map && !node.items.empty()) {
      for (const Node& entry : node.items) hub_field(key + "." + entry.key, entry);
      return;
    }
    const std::string_view name = std::string_view(key).substr(schema_.open_section.key.size() + 1);
    naming(key, node, [&] { schema_.open->set(name, to_json(expanded(node))); });
    config_.origins[key] = written(key, node);
  }

  // The ignored key that `key` stands below, if any.
  std::string ignored_around(std::string_view key) const {
    while (!(key = parent(key)).empty()) {
      if (schema_.find_ignored(key) != nullptr) return std::string(key);
    }
    return {};
  }

  // Runs `act`; its error gets the key in front and the place.
  template <class Act>
  void naming(std::string_view key, const Node& node, Act act) const {
    try {
      act();
    } catch (const Error& error) {
      throw Error(error.kind(), fmt::format("{}: {}", key, error.what())).at(at(node)).advise(error.hint());
    }
  }

  static Node expanded(const Node& node) {
    Node result = node;
    if (result.text.find('$') != std::string::npos) result.text = expand_environment(result.text);
    for (Node& item : result.items) item = expanded(item);
    return result;
  }

  Config& config_;
  Schema schema_;
  std::string name_;
  Origin origin_;
  std::map<std::string, std::string, std::less<>> assigned_;  // where each key was given
};

// Text of the command line: a flow list, flow map or quoted text where it begins as one, otherwise a plain scalar.
Node read_argument(std::string_view key, std::string_view text, std::string_view name) {
  Node node;
  if (!text.empty() && std::string_view("[{\"'").find(text.front()) != std::string_view::npos) {
    try {
      node = parse_yaml(text, name);
    } catch (const Error&) {
      // The parser's own words speak of lines and of the end of the file.
      throw user_error("{}: not a list, a map or quoted text: {}", key, json_quote(text)).at(std::string(name));
    }
  } else {
    node.kind = text == "null" || text == "~" ? Node::Kind::null : Node::Kind::scalar;
    node.text = text;
    node.plain = !text.empty();  // an empty word is one, not null
  }
  // Lines within an argument mean nothing to a person.
  const auto clear = [](auto&& self, Node& each) -> void {
    each.line = 0;
    for (Node& item : each.items) self(self, item);
  };
  clear(clear, node);
  return node;
}

}  // namespace

Config parse(std::string_view yaml, std::string_view name) {
  const Node root = parse_yaml(yaml, name);
  if (root.kind == Node::Kind::null) {
    throw user_error("the file is empty")
        .at(std::string(name))
        .advise("a configuration needs at least model.config; examples/ has runnable ones");
  }
  if (root.kind != Node::Kind::map) {
    throw user_error("not a configuration: expected keys such as `model:` at the left margin")
        .at(place(name, root.line));
  }
  Config config;
  Loader loader(config, name);
  loader.entries("", root);
  apply_program_defaults(config);
  return config;
}

Config load(const std::filesystem::path& file) {
  std::error_code ignored;
  if (std::filesystem::is_directory(file, ignored)) {
    throw user_error("cannot read {}: it is a directory", file.string()).advise("name a YAML file");
  }
  return parse(read_input(file, max_file_bytes), file.string());
}

void set(Config& config, std::string_view key, std::string_view text, Origin origin) {
  const std::string name = origin.kind == Origin::Kind::command_line ? "command line" : origin.text;
  Node node = read_argument(key, text, name);
  // Written down only if the whole value is good.
  Config changed = config;
  Loader(changed, std::move(origin)).value(std::string(key), node);
  apply_program_defaults(changed);
  config = std::move(changed);
}

void apply_overrides(Config& config, std::span<const std::string> arguments) {
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (!argument.starts_with("--") || argument.size() == 2) {
      throw user_error("{} is neither a key nor a value", json_quote(argument))
          .at("command line")
          .advise("settings are written --section.key value");
    }
    const std::size_t equals = argument.find('=');
    const std::string key = argument.substr(2, equals == std::string::npos ? equals : equals - 2);
    std::string text = "true";
    if (equals != std::string::npos) {
      text = argument.substr(equals + 1);
    } else if (i + 1 < arguments.size() && !arguments[i + 1].starts_with("--")) {
      text = arguments[++i];
    }
    set(config, key, text, {Origin::Kind::command_line, ""});
  }
}

}  // namespace sluice::config
