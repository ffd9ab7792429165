// A Hugging Face model configuration as typed fields: key -> null, boolean, integer, number or text, each with the
// place it came from. Objects and lists are flattened with dots ("rope_parameters.rope_theta", "architectures.0"); an
// empty object or list is null. It begins as a config.json (a file or a built-in card) or as nothing, and overrides are
// laid over it. Null means absent, as in Hugging Face's own classes. It remembers which fields were asked for, so that
// those without effect can be told. All errors are of kind user and name key, value, place.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>

namespace sluice {

using HfValue = std::variant<std::monostate, bool, int64_t, double, std::string>;

struct HfField {
  HfValue value;
  std::string where;     // "models/a/config.json:12", or the place of the override
  std::string spelling;  // the key as it was written
  bool overridden = false;
};

// `text` is JSON; what is not JSON stands for itself as text (qwen3_moe, not only "qwen3_moe").
struct HfOverride {
  std::string key;
  std::string text;
  std::string where;
};

// Bounds of a value, both included.
struct IntegerRange {
  int64_t low = std::numeric_limits<int64_t>::min();
  int64_t high = std::numeric_limits<int64_t>::max();
};
struct NumberRange {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
};

class HfConfig {
 public:
  // What no honest config.json comes near: larger, deeper or longer ones are refused.
  static constexpr size_t kMaxBytes = size_t{1} << 20;
  static constexpr size_t kMaxDepth = 16;
  static constexpr size_t kMaxFields = 20'000;
  static constexpr size_t kMaxKey = 512;

  // No fields yet. `source` stands in errors about missing fields ("models/a/config.json").
  explicit HfConfig(std::string source) : source_(std::move(source)) {}
  // A JSON object, in which NaN and Infinity may stand as Python writes them; places are "source:line".
  static HfConfig parse(std::string_view json, std::string source);
  // `directory`/config.json.
  static HfConfig load(const std::filesystem::path& directory);

  // Replaces the field, what lies under it and what it lies under.
  void override_with(const HfOverride& change);
  // Takes `other` as another spelling of `key`: its field becomes `key`'s. Where both are there an override beats what
  // it was laid over; two of the same standing must agree.
  void unify(std::string_view key, std::string_view other);

  const std::string& source() const { return source_; }
  const std::map<std::string, HfField, std::less<>>& fields() const { return fields_; }
  // The field, or nothing where it is absent or null.
  const HfField* find(std::string_view key) const;
  // Whether the key has a value or anything under it has.
  bool has(std::string_view key) const;

  // Typed reading. Without `fallback` an absent field is an error. An integer may be written 4096.0.
  int64_t integer(std::string_view key, IntegerRange range, std::optional<int64_t> fallback = {}) const;
  double number(std::string_view key, NumberRange range, std::optional<double> fallback = {}) const;
  bool boolean(std::string_view key, std::optional<bool> fallback = {}) const;
  std::string text(std::string_view key, std::optional<std::string> fallback = {}) const;

  // What has() and the typed reading were asked for until now, of this configuration or a copy, whether it was there or
  // not; and whether `key` was, as it is spelt in the document, or something above it.
  const std::set<std::string, std::less<>>& names_read() const { return *read_; }
  bool was_read(std::string_view key) const;

  // For errors: the place of a key (the source's for an absent one), and "num_experts 128 (config.json:12)".
  std::string where(std::string_view key) const;
  std::string describe(std::string_view key) const;

 private:
  friend class HfReader;
  // Adds a field at a new key; false where the key, or one above or below it, is taken.
  bool add(const std::string& key, HfField field);
  bool present(std::string_view key) const;
  void note(std::string_view key) const;
  const HfField& required(std::string_view key) const;

  std::string source_;
  std::map<std::string, HfField, std::less<>> fields_;
  // Shared by copies: a family reads from one of its own, in which it has unified spellings.
  std::shared_ptr<std::set<std::string, std::less<>>> read_ = std::make_shared<std::set<std::string, std::less<>>>();
};

// The value as JSON, cut to a readable length.
std::string to_text(const HfValue& value);

}  // namespace sluice
