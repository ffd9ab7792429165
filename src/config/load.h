// From a file and the command line to a Config, and back to text. Every mistake in the input is a user error that
// names the key, the value, what was expected and the place.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace sluice::config {

// Reads a file over the presets. Checks keys and types, not the rules of `validate`.
Config load(const std::filesystem::path& file);
// The same for text at hand; `name` stands for the file in messages.
Config parse(std::string_view yaml, std::string_view name);

// Sets one key, or a whole section given as a flow map ("{tp_size: 2}"), from text typed by the schema.
void set(Config& config, std::string_view key, std::string_view text, Origin origin);
// Applies "--a.b.c value", "--a.b.c=value" and "--a.b.flag" (true) in order.
void apply_overrides(Config& config, std::span<const std::string> arguments);

// The rules between values that need neither a model nor the number of ranks.
void validate(const Config& config);

// The rules of the schedules when the run has so many steps, once that is known.
void check_schedule_steps(const Config& config, std::int64_t steps, std::optional<std::int64_t> decay_before = {});

// What a configuration asks for that sluice does not have, and what happens in its place: a run goes on, and says so.
struct Unavailable {
  std::string key;
  std::string value;
  std::string where;
  std::string instead;
};
std::vector<Unavailable> unavailable(const Config& config);

// Given keys that act in other recipes and that the recipe of this file leaves out, with the reason.
std::vector<IgnoredKey> overruled(const Config& config);

// Why a class of NeMo's or torch's that a `_target_` names is not available; empty for what is no such class.
std::string why_absent(std::string_view word);

// Every value by its key, the model's own fields too, as they would be written.
std::map<std::string, std::string> values(const Config& config);

// The values that differ, as they would be written.
struct Change {
  std::string key;
  std::string before;
  std::string after;
};
std::vector<Change> differences(const Config& before, const Config& after);

// The resolved configuration as YAML that reads back as the same values, each with where it came from, and what was
// given without effect. In lines of `width` columns as far as values allow: where need be, a file stands without its
// directory, or a value's origin above it.
enum class Show { all, given };
std::string to_yaml(const Config& config, Show show = Show::all, std::size_t width = std::string::npos);

// Keys of a section (all when empty) with what they take.
struct KeyInfo {
  enum class Kind { value, ignored, refused, renamed };
  std::string key;
  std::string type;    // of a value; empty otherwise
  std::string preset;  // likewise
  std::string doc;     // of an ignored or refused key: the reason; of an older name: the key it is now
  Kind kind = Kind::value;
};
std::vector<KeyInfo> keys(std::string_view section = {});
// The listing a person reads.
std::string describe_keys(std::string_view section = {});

}  // namespace sluice::config
