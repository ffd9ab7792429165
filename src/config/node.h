// A configuration file as a tree of plain values with the line each began on: what parsing leaves for the schema to
// type. Aliases and merge keys are already expanded, environment references not yet.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sluice::config {

struct Node {
  enum class Kind { null, scalar, list, map };

  Kind kind = Kind::null;
  int line = 0;             // 1-based; 0 for a value of the command line
  std::string key;          // in a map: the name of this entry
  std::string text;         // of a scalar
  bool plain = true;        // written without quotes, so it may be a number, a boolean or null
  std::vector<Node> items;  // of a list, and the entries of a map in the order of the file
};

// Bounds no honest configuration comes near: what is larger is refused, not processed.
inline constexpr std::size_t max_file_bytes = std::size_t{1} << 20;
inline constexpr int max_depth = 32;
inline constexpr std::size_t max_nodes = 20'000;

// Parses one YAML document. `name` stands before the line in errors, all of kind user: bad syntax, text that is not
// UTF-8, two keys of one name, tags, several documents, and whatever exceeds the bounds.
Node parse_yaml(std::string_view text, std::string_view name);

// "name:line".
std::string place(std::string_view name, int line);

// Expands ${VAR}, ${VAR,default}, ${oc.env:VAR} and $VAR from the environment; an unset VAR without a default is a
// user error. A dollar sign that begins none of these stays.
std::string expand_environment(std::string_view text);

// The value as JSON: an unquoted scalar is a number, a boolean or null where it reads as one (YAML's core rules).
std::string to_json(const Node& node);
std::string json_quote(std::string_view text);

}  // namespace sluice::config
