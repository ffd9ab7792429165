// How each type of field reads from a parsed node, writes as YAML and is called in messages. Reading throws a user
// error that says what was expected and what stood there; the caller adds the key and the place.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "config/node.h"
#include "config/types.h"

namespace sluice::config {

// The error of a value that is not what its field takes.
Error mismatch(std::string_view expected, const Node& got);
// "integer >= 1": a kind of number with its bounds.
std::string describe_range(std::string_view kind, const Range& range);

std::int64_t read_integer(const Node& node, const Range& range);
double read_real(const Node& node, const Range& range);
bool read_bool(const Node& node);
std::string read_text(const Node& node);
// Index into `words` of the word the node says.
std::size_t read_word(const Node& node, const std::vector<std::string>& words);
Recompute read_recompute(const Node& node);
ParamGroupOverride read_override(const Node& node);
// null, ~ or nothing; with `none_too` also NeMo's none and None.
bool is_null(const Node& node, bool none_too);

std::string write_real(double value);
// Plain where YAML reads it back as the same text, quoted otherwise.
std::string write_text(std::string_view text);
std::string write_list(const std::vector<std::string>& items);
std::string write_recompute(const Recompute& value);
std::string write_override(const ParamGroupOverride& value);
std::string one_of(const std::vector<std::string>& words);

template <class T>
struct Codec;

template <>
struct Codec<std::int64_t> {
  static std::string type(const Range& range) { return describe_range("integer", range); }
  static std::int64_t read(const Node& node, const Range& range) { return read_integer(node, range); }
  static std::string write(std::int64_t value) { return std::to_string(value); }
};

template <>
struct Codec<double> {
  static std::string type(const Range& range) { return describe_range("number", range); }
  static double read(const Node& node, const Range& range) { return read_real(node, range); }
  static std::string write(double value) { return write_real(value); }
};

template <>
struct Codec<bool> {
  static std::string type(const Range&) { return "true or false"; }
  static bool read(const Node& node, const Range&) { return read_bool(node); }
  static std::string write(bool value) { return value ? "true" : "false"; }
};

template <>
struct Codec<std::string> {
  static std::string type(const Range&) { return "text"; }
  static std::string read(const Node& node, const Range&) { return read_text(node); }
  static std::string write(const std::string& value) { return write_text(value); }
};

template <>
struct Codec<Recompute> {
  static std::string type(const Range&) {
    return "none, selective, full, or a list of norm, mla_up, qk_rope, act, experts, dispatch";
  }
  static Recompute read(const Node& node, const Range&) { return read_recompute(node); }
  static std::string write(const Recompute& value) { return write_recompute(value); }
};

template <>
struct Codec<ParamGroupOverride> {
  static std::string type(const Range&) { return "{pattern: text, lr_mult: number >= 0, wd_mult: number >= 0}"; }
  static ParamGroupOverride read(const Node& node, const Range&) { return read_override(node); }
  static std::string write(const ParamGroupOverride& value) { return write_override(value); }
};

template <class Enum>
  requires std::is_enum_v<Enum>
struct Codec<Enum> {
  static std::vector<std::string> words() {
    std::vector<std::string> all;
    for (const auto& spelling : spellings(Enum{})) all.emplace_back(spelling.word);
    return all;
  }
  // The words sluice writes, one per value.
  static std::vector<std::string> canonical_words() {
    std::vector<std::string> all;
    for (const auto& spelling : spellings(Enum{})) {
      if (word(spelling.value) == spelling.word) all.emplace_back(spelling.word);
    }
    return all;
  }
  static std::string type(const Range&) { return one_of(canonical_words()); }
  static Enum read(const Node& node, const Range&) { return spellings(Enum{})[read_word(node, words())].value; }
  static std::string write(Enum value) { return std::string(word(value)); }
};

template <class T>
struct Codec<std::vector<T>> {
  static std::string type(const Range& range) { return "list of " + Codec<T>::type(range); }
  static std::vector<T> read(const Node& node, const Range& range) {
    // A choice of several may be one.
    if constexpr (std::is_enum_v<T>) {
      if (node.kind == Node::Kind::scalar) return {Codec<T>::read(node, range)};
    }
    if (node.kind != Node::Kind::list) throw mismatch(type(range), node);
    std::vector<T> values;
    for (const Node& item : node.items) values.push_back(Codec<T>::read(item, range));
    return values;
  }
  static std::string write(const std::vector<T>& values) {
    std::vector<std::string> items;
    for (const T& value : values) items.push_back(Codec<T>::write(value));
    return write_list(items);
  }
};

template <class T>
struct Codec<std::optional<T>> {
  // `none` is itself a way to recompute.
  static constexpr bool none_is_null = !std::is_same_v<T, Recompute>;

  static std::string type(const Range& range) { return Codec<T>::type(range) + ", or null"; }
  static std::optional<T> read(const Node& node, const Range& range) {
    if (is_null(node, none_is_null)) return std::nullopt;
    return Codec<T>::read(node, range);
  }
  static std::string write(const std::optional<T>& value) { return value ? Codec<T>::write(*value) : "null"; }
};

}  // namespace sluice::config
